"""What is remembered of signed documents between refreshes, so that nothing older is believed again.

Written by the trust client (tuf_client.py), durably, as `trust/memory.json`.
"""

from typing import Annotated, Literal

import msgspec

from whimbrel.model.documents import Document
from whimbrel.model.ids import Name

Sequenced = Literal["policy", "line"]


class GreatestSequences(Document, frozen=True):
    """The greatest sequences of one model, and the keys of the roles that signed them ("": not remembered)."""

    policy: int = 0
    line: int = 0
    policy_keys: str = ""
    line_keys: str = ""


class Memory(Document, frozen=True, tag_field="format", tag="whimbrel-trust-1"):
    """What is remembered between refreshes. `complete`: all documents that the cached metadata names were looked at."""

    seen: Annotated[dict[Name, GreatestSequences], msgspec.Meta(max_length=1024)] = {}
    signed_at: float = 0.0  # the time that the newest timestamp teaches
    timestamp: str = ""  # which one: its version and its role's keys
    etag: str = ""
    root_version: int = 0
    expires: float = 0.0  # the earliest expiry in the cached set
    complete: bool = False
    refreshed_at: float = 0.0
    confirmed: Annotated[dict[Name, float], msgspec.Meta(max_length=1024)] = {}  # when its documents were the newest
    bundled: Annotated[tuple[Name, ...], msgspec.Meta(max_length=64)] = ()  # of a bundle: need not be fresh

    def greatest(self, model: str, word: Sequenced, *, keys: str) -> int:
        """The greatest sequence that the role's keys of today (`keys`) have signed; 0 where they have signed none.

        What another key wrote is forgotten: the targets role replaced it, perhaps because it was stolen.
        """
        seen = self.seen.get(model, GreatestSequences())
        last, last_keys = (seen.policy, seen.policy_keys) if word == "policy" else (seen.line, seen.line_keys)
        return last if last_keys in {"", keys} else 0

    def with_sequence(self, model: str, word: Sequenced, sequence: int, *, keys: str) -> dict[Name, GreatestSequences]:
        """`seen`, with a sequence that was just taken."""
        seen = self.seen.get(model, GreatestSequences())
        changed = msgspec.structs.replace(seen, **{word: sequence, f"{word}_keys": keys})
        return {**self.seen, model: changed}
