"""What the admin API answers instead of a view when something is wrong."""

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457). `detail`: what was found, what was expected and what to do next."""

    title: str
    status: int  # the same as the answer's
    detail: str
