"""When may a rollout begin and move? Freeze windows and a start time, in the time zones that people live in.

1. A freeze says `from` and `to` in one of three forms: once ("2026-12-24" or "2026-12-24T18:00"), every week ("fri
   16:00"), every day ("20:00"). A day without a time begins at its midnight and ends at the next.
2. Times are local times of `zone`. An hour that comes twice, because the clocks are set back, counts twice.
3. A zone without rules on this machine freezes: a time that cannot be computed is not permitted.

Pure: `now` is an argument. Called by the flows that start and advance, and by `plan check`.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from whimbrel.model.documents import Document
from whimbrel.model.ids import END
from whimbrel.model.patterns import matching
from whimbrel.policy.policy import DAYS, ZONE_PATTERN, ZONE_WORDS

Zone = Annotated[str, matching(ZONE_PATTERN, ZONE_WORDS)]
Note = Annotated[str, Meta(max_length=500)]

_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
_DAY = f"(?:{'|'.join(DAYS)})"
_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
Point = Annotated[
    str,
    matching(
        rf"^(?:{_DATE}(?:T{_TIME})?|{_DAY}(?: {_TIME})?|{_TIME})" + END,
        "a date, a date and time (2026-03-05T22:00), a day of the week (fri 22:00), or a time (22:00)",
    ),
]
StartAt = Annotated[
    str,
    matching(
        rf"^{_DATE}(?:T{_TIME}(?::[0-5]\d)?(?:Z|[+-]{_TIME})?)?" + END, "a date, or a time such as 2026-03-05T22:00:00Z"
    ),
]

_CLOCK = re.compile(r"(\d{2}):(\d{2})\Z")
_PERIODS = {"every week": timedelta(days=7), "every day": timedelta(days=1)}
_MONDAY = datetime(2024, 1, 1)  # noqa: DTZ001  (naive on purpose: a Monday's midnight on any wall)
_MERGES = 256  # freezes in a row before they count as endless


class Freeze(Document, frozen=True):
    """A time in which nothing starts and nothing advances. Going back is always possible."""

    start: Point = msgspec.field(name="from")
    end: Point = msgspec.field(name="to")
    zone: Zone = "UTC"
    note: Note = ""

    def __post_init__(self) -> None:
        if _form(self.start) != _form(self.end):
            raise ValueError(
                f"to: {self.end!r} is another form than from {self.start!r}; say both as dates, as week days, or as "
                "times of the day"
            )
        if self._span()[0] == self._span()[1] or (_form(self.start) == "once" and self._span()[0] > self._span()[1]):
            raise ValueError(f"to: {self.end!r} is not after {self.start!r}")

    def end_of(self, now: float) -> float | None:
        """When this freeze ends, if `now` lies inside it. None if `now` lies outside. Both in POSIX seconds."""
        zone = zone_of(self.zone)
        if zone is None or math.isinf(now):
            return math.inf
        here = datetime.fromtimestamp(now, UTC).astimezone(zone).replace(tzinfo=None)
        first, last = self._span()
        if period := _PERIODS.get(_form(self.start)):
            length = last - first if last > first else last - first + period
            first += (here - first) // period * period
            last = first + length
        if not first <= here < last:
            return None
        return max(last.replace(tzinfo=zone).timestamp(), now + 1)

    def _span(self) -> tuple[datetime, datetime]:
        return _local_time(self.start), _local_time(self.end) + (timedelta(0) if ":" in self.end else timedelta(days=1))

    def words(self) -> str:
        """The freeze as a sentence says it."""
        form = _form(self.start)
        return f"{'' if form == 'once' else f'{form} '}from {self.start} to {self.end} {self.zone}" + (
            f" ({self.note})" if self.note else ""
        )


class Schedule(Document, frozen=True):
    """When a rollout begins by itself: a local time in `zone`, or a time with an offset ("2026-12-01T09:00+01:00")."""

    start_at: StartAt
    zone: Zone | None = None

    def __post_init__(self) -> None:
        start = datetime.fromisoformat(self.start_at)
        if start.tzinfo is not None and self.zone is not None:
            raise ValueError(f"start_at: {self.start_at!r} has an offset of its own; leave out the zone {self.zone!r}")

    def at(self) -> float:
        """The start in POSIX seconds. Infinite for a zone that this machine does not know."""
        start = datetime.fromisoformat(self.start_at)
        if start.tzinfo is None:
            zone = zone_of(self.zone or "UTC")
            if zone is None:
                return math.inf
            start = start.replace(tzinfo=zone)
        return start.timestamp()


def frozen_until(freezes: Sequence[Freeze], now: float) -> float | None:
    """When the freeze at `now` ends, together with freezes that follow it at once. None where no freeze holds.

    Infinite where the freezes never end.
    """
    until = now
    for _ in range(_MERGES):
        ends = [end for freeze in freezes if (end := freeze.end_of(until)) is not None]
        if not ends:
            return until if until > now else None
        until = max(ends)
        if math.isinf(until):
            break
    return math.inf


def zone_of(name: str) -> tzinfo | None:
    """The rules of an IANA time zone. None where this machine has none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _form(point: str) -> str:
    if point[0].isalpha():
        return "every week"
    return "once" if "-" in point else "every day"


def _local_time(point: str) -> datetime:
    """A local time. Weekly and daily ones are placed in a week that begins on some Monday."""
    if _form(point) == "once":
        return datetime.fromisoformat(point)
    day = DAYS.index(point[:3]) if point[0].isalpha() else 0
    clock = _CLOCK.search(point)
    hours, minutes = (int(clock[1]), int(clock[2])) if clock else (0, 0)
    return _MONDAY + timedelta(days=day, hours=hours, minutes=minutes)
