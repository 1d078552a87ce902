"""Support tickets of users about a model, as a help desk hands them on.

1. A ticket has a number of the help desk's own: handed on again, it counts once, as it was handed on first.
2. A ticket names a device, which is best, or at least a version.
"""

from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import END, DeviceId, Name
from whimbrel.model.patterns import matching

Ticket = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9][A-Za-z0-9_.:#/@-]{0,127}" + END,
        "letters, digits and _ . : # / @ -, at most 128, a letter or digit first",
    ),
]
# waiting; counted in its arm; counted already by another ticket of that device and window; in no rollout under way
Fate = Literal["waiting", "counted", "again", "nowhere"]


class UserReport(Document, frozen=True):
    """One ticket. `at`: when the trouble was (POSIX seconds); when it is handed on, where nobody says."""

    ticket: Ticket
    model: Name
    device_id: DeviceId | None = None
    version: Annotated[str, Meta(min_length=1, max_length=128)] | None = None  # calendar or semantic
    at: Annotated[float, Meta(ge=0, le=1e11)] | None = None
    text: Annotated[str, Meta(max_length=limits.USER_REPORT_CHARS)] = ""

    def __post_init__(self) -> None:
        if (self.device_id is None) == (self.version is None):
            raise ValueError(f"ticket {self.ticket} must name either a device or a version")


class UserReports(Document, frozen=True):
    """The body of POST user-reports. None at all is a message too: the help desk is connected, and nobody complains."""

    reports: Annotated[tuple[UserReport, ...], Meta(max_length=limits.USER_REPORTS_A_BATCH)] = ()
    model: Name | None = None  # of a message without reports
