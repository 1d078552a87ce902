"""The rows of standing monitors as frozen values. Times are POSIX seconds (UTC)."""

from typing import Literal

import msgspec

from whimbrel.health.device_hour import HourSums

HOUR_S, DAY_S = 3600, 86400
OTHER_CLASSES = "..."  # hardware classes beyond those that an hour tells apart

# Of an episode: an alert was due, the model was taken back, it should have been and could not.
Outcome = Literal["alert", "taken_back", "not_taken_back"]


class HealthRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the devices of a class told of a version in one period. `start`: hours, or days, since 1970 (UTC)."""

    serial: int
    hardware_class: str
    start: int
    sums: HourSums


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor of a version fired at `since`, for a reason, until `ended_at` (None: it still does)."""

    model: str
    serial: int
    monitor: str  # its name: what an objective says, or the measure of an anomaly
    since: float
    because: str
    outcome: Outcome = "alert"
    ended_at: float | None = None
