"""Windows of reports become the hours of their versions, also when nothing rolls out. (Beside step 15.)

1. A window counts by the version that the device ran, in the hour in which it is tallied, once (health/device_hour),
   whether or not it counts in a rollout too.
2. Only versions that were published have hours, and a device has at most four of a model in one hour: what it invents
   finds no place.
3. What a device told in this hour is remembered with the number of its newest window, so that it costs no further row.

Called by `reports/ingest`.
"""

from collections import defaultdict
from collections.abc import Iterable

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.device_records import SequenceMark
from whimbrel.flows.monitors.ports import HourTallyPort
from whimbrel.flows.monitors.records import HOUR_S
from whimbrel.flows.ports import ModelsPort
from whimbrel.flows.versions import reference_of
from whimbrel.health.device_hour import HOURS_A_DAY, DeviceHour, HourSums, add_up, fold_window
from whimbrel.health.report import Summary, Window
from whimbrel.plan.measures import SHARES
from whimbrel.plan.objectives import peaks_of

DeviceHours = dict[str, dict[int, DeviceHour]]  # by model and serial


class HourTally:
    """The hours that the messages of one transaction add to."""

    def __init__(self, models: ModelsPort, health: HourTallyPort | None, *, now: float) -> None:
        self._models, self._health = models, health
        self._hour = int(now // HOUR_S)
        self._known: dict[str, dict[int, int]] = {}  # by model: published serials, with the bins of their references
        self._peaks: dict[str, frozenset[str]] = {}
        self._changes: dict[tuple[str, int], dict[str, list[HourSums]]] = defaultdict(lambda: defaultdict(list))

    def hours_of(self, marks: Iterable[SequenceMark]) -> DeviceHours:
        """What a device told in its newest hours, whichever of its installations told it. Only today's hours count."""
        today = self._hour // HOURS_A_DAY
        newest: DeviceHours = {}
        for mark in sorted(marks, key=lambda each: each.at):
            for model, serials in mark.hours.items():
                for serial, told in serials.items():
                    before = newest.setdefault(model, {}).get(serial)
                    if told.hour // HOURS_A_DAY == today and (before is None or told.hour >= before.hour):
                        newest[model][serial] = told
        return {model: serials for model, serials in newest.items() if serials}

    def add(self, hours: DeviceHours, window: Window) -> None:
        """Count a window. `hours`: of its device, which are changed."""
        model, serial = window.model, window.serial
        if self._health is None or serial is None or serial not in self._serials(model):
            return
        told = hours.setdefault(model, {})
        if serial not in told and sum(each.hour == self._hour for each in told.values()) >= limits.DEVICE_VERSIONS:
            return
        told[serial], changes = fold_window(
            told.get(serial),
            window,
            hour=self._hour,
            metrics=_credible(window),
            peaks=self._peaks[model],
            bins=self._bins(model, serial) if window.predictions else 0,
        )
        self._changes[model, serial][told[serial].hardware_class].append(changes)

    def is_published(self, model: str, serial: int | None) -> bool:
        """Whether there is such a version."""
        return serial is not None and serial in self._serials(model)

    def write(self) -> None:
        """Write what was counted."""
        if self._health is not None:
            for (model, serial), changes in sorted(self._changes.items()):
                sums = {name: add_up(parts) for name, parts in changes.items()}
                self._health.add_hour(model, serial, self._hour, sums)

    def _serials(self, model: str) -> dict[int, int]:
        if model not in self._known:
            try:
                self._peaks[model] = peaks_of(self._models.model(model).settings.objectives)
            except NotFound:
                self._known[model] = {}
            else:
                self._known[model] = {version.serial: -1 for version in self._models.versions(model)}
        return self._known[model]

    def _bins(self, model: str, serial: int) -> int:
        """How many bins the version's reference predictions have; 0 where it has none."""
        known = self._known[model]
        if known[serial] < 0:
            reference = reference_of(self._models, model, serial)
            known[serial] = len(reference.bin_shares) if reference is not None else 0
        return known[serial]


def _credible(window: Window) -> dict[str, Summary]:
    """Without means of shares that no share can have."""
    return {
        name: told
        for name, told in window.metrics.items()
        if told.n and (name not in SHARES or 0 <= told.sum / told.n <= 1)
    }
