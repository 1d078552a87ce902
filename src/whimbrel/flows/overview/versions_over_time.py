"""Which versions ran on how many devices, hour by hour? From what standing monitors keep.

1. A device counts in an hour in which it was heard, so a curve is of devices that report, not of all that are enrolled.
2. What is closed never changes: closed hours are read once a process, and the open one every time.
3. Of several hours that are one point of a chart the one is told in which most devices spoke: versions of two hours
   are never added up, since a device that changes its version in between would count twice.

Called by the console.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from whimbrel.flows.monitors.records import HOUR_S

DevicesByHour = dict[int, dict[int, int]]  # by hour since 1970 and serial


class HoursPort(Protocol):
    """Where hours are kept."""

    def devices_by_hour(self, model: str, *, since: int, before: int) -> DevicesByHour: ...


class VersionHours:
    """The last hours of the models of one namespace, as far as they were read."""

    def __init__(self, *, hours: int, models: int) -> None:
        self._hours, self._models = hours, models
        self._kept: dict[str, tuple[int, DevicesByHour]] = {}  # by model: the hour up to which all was read

    def of(self, health: HoursPort, model: str, *, now: float) -> DevicesByHour:
        """The devices of a model by hour and serial, the open hour among them. `now`: POSIX seconds."""
        hour = int(now // HOUR_S)
        since = hour - self._hours + 1
        closed_before, kept = self._kept.pop(model, (since, {}))
        closed_before = max(since, min(closed_before, hour))
        read = health.devices_by_hour(model, since=closed_before, before=hour + 1)
        kept = {at: devices for at, devices in kept.items() if since <= at < closed_before} | read
        self._kept[model] = hour, kept
        while len(self._kept) > self._models:
            self._kept.pop(next(iter(self._kept)))
        return kept


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """How far a version came: its devices of all that follow the model, now."""

    devices: int
    of: int

    @property
    def percent(self) -> float:
        """In percent; 0 where nobody follows the model."""
        return 100 * self.devices / self.of if self.of else 0.0


def adoption_of(serial: int, counts: Mapping[int | None, int]) -> Adoption:
    """`counts`: devices by the serial that they run."""
    return Adoption(devices=counts.get(serial, 0), of=sum(counts.values()))


def fullest(hours: DevicesByHour, *, first: int, last: int, step: int) -> list[tuple[int, dict[int, int]]]:
    """Of every `step` hours from `first` to `last`, oldest first, the hour in which most devices told anything."""
    rows = []
    for start in range(first, last + 1, step):
        within = [hours[hour] for hour in range(start, min(start + step, last + 1)) if hour in hours]
        rows.append((start, max(within, key=_devices_of, default={})))
    return rows


def _devices_of(hour: Mapping[int, int]) -> int:
    return sum(hour.values())


def serials_of(rows: Sequence[tuple[int, Mapping[int, int]]]) -> list[int]:
    """Every version that is told of, oldest first."""
    return sorted({serial for _, devices in rows for serial in devices})
