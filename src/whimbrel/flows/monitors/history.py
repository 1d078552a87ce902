"""The hours of a model's versions that its monitors look at, read once: what is closed never changes.

1. Two weeks of closed hours are kept, so that a week can be compared with the week before; the open hour is read anew
   every time.
2. Of each hour of a version all classes together, with everything that was told; and by class what is compared beside
   other versions: without latencies, predictions and peaks, which are most of a row.
3. Hours in which nothing was told are passed over, and what closed hours of two sides come to is worked out once.
4. What is forgotten (a new process) is read again: it costs time, never a decision.
"""

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

from whimbrel.flows.monitors.ports import HealthPort
from whimbrel.flows.monitors.records import HealthRow
from whimbrel.health.device_hour import HourSums

KEPT_HOURS = 15 * 24

Hours = dict[int, dict[int, HourSums]]  # by hour and serial


class HourHistory:
    """The last two weeks of one model."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._whole: Hours = {}
        self._by_class: dict[int, dict[tuple[int, str], HourSums]] = {}
        self._told: list[int] = []  # the hours of `_whole`, in their order
        self._beside: dict[int, dict[int, list[tuple[HourSums, HourSums]]]] = {}  # by hour and serial
        self._closed_before = 0  # the hour up to which everything was read

    def read(self, health: HealthPort, *, hour: int) -> None:
        """Read what is new; `hour` is the open one."""
        since = max(self._closed_before, hour - KEPT_HOURS)
        for each in self.told(range(since, hour + 1)):
            self._forget(each)
        for row in health.hours(self.model, since=since, before=hour + 1):
            self._add(row)
        for old in [each for each in self._whole if each < hour - KEPT_HOURS]:
            self._forget(old)
        self._told = sorted(self._whole)
        self._closed_before = hour

    def told(self, hours: range) -> list[int]:
        """Of these hours, those in which devices of any version told anything, in their order."""
        return self._told[bisect_left(self._told, hours.start) : bisect_left(self._told, hours.stop)]

    def _forget(self, hour: int) -> None:
        for kept in (self._whole, self._by_class, self._beside):
            kept.pop(hour, None)

    def _add(self, row: HealthRow) -> None:
        of_hour = self._whole.setdefault(row.start, {})
        of_hour[row.serial] = of_hour[row.serial].plus(row.sums) if row.serial in of_hour else row.sums
        slim = msgspec.structs.replace(row.sums, latency={}, latency_units=0, predictions={}, peaks={})
        self._by_class.setdefault(row.start, {})[row.serial, row.hardware_class] = slim

    def of_version(self, serial: int, hours: Iterable[int]) -> list[HourSums]:
        """What the devices of a version told in these hours, without those in which none did."""
        return [sums for hour in hours if (sums := self._whole.get(hour, {}).get(serial)) is not None]

    def at(self, serial: int, hour: int) -> HourSums | None:
        """What the devices of a version told in an hour; None: nothing."""
        return self._whole.get(hour, {}).get(serial)

    def of_model(self, hour: int) -> HourSums | None:
        """What the devices of all versions together told in an hour; None: nothing."""
        total: HourSums | None = None
        for sums in self._whole.get(hour, {}).values():
            total = sums if total is None else total.plus(sums)
        return total

    def beside(self, serial: int, hour: int) -> list[tuple[HourSums, HourSums]]:
        """An hour of a version and of all others, by each class that has both."""
        of_hour = self._beside.setdefault(hour, {})
        if serial not in of_hour:
            of_hour[serial] = self._pair(serial, hour)
        return of_hour[serial]

    def _pair(self, serial: int, hour: int) -> list[tuple[HourSums, HourSums]]:
        own: dict[str, HourSums] = {}
        others: dict[str, HourSums] = {}
        for (other, name), sums in self._by_class.get(hour, {}).items():
            if other == serial:
                own[name] = sums
            else:
                others[name] = others[name].plus(sums) if name in others else sums
        return [(own[name], others[name]) for name in sorted(own.keys() & others.keys())]

    def serials(self, hours: Iterable[int]) -> dict[int, int]:
        """Device-hours by version in these hours."""
        counts: dict[int, int] = {}
        for hour in hours:
            for serial, sums in self._whole.get(hour, {}).items():
                counts[serial] = counts.get(serial, 0) + sums.devices
        return counts
