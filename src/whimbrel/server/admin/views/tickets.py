"""What the admin API answers about tickets of users.

What became of a batch is a `FilingResult`, as the flow makes it.
"""

import msgspec

from whimbrel.health.user_report import Fate


class TicketView(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket, and what became of it. It names a device, or else a version. Times are POSIX seconds."""

    ticket: str
    model: str
    device_id: str | None
    serial: int | None
    at: float  # when the trouble was
    text: str
    fate: Fate
    decided_at: float | None
    version: str | None
