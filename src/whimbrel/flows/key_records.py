"""Changes of keys that wait, as frozen values. Times are POSIX seconds."""

import msgspec


class KeyProposal(msgspec.Struct, frozen=True, kw_only=True):
    """A change of keys that one person handed in, signed, and that another one approves.

    `id`: of what it says. `documents`: signed metadata by role. `changes`: what it changes, a sentence each.
    """

    id: str
    documents: dict[str, bytes]
    changes: list[str]
    because: str
    proposed_by: str
    at: float
