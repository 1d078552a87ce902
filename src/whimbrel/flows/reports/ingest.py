"""Messages of devices come in: each is taken once, in order, within one transaction. (Steps 14 and 15.)

1. A window counts once by (device, epoch, sequence): the newest sequence tallied is kept, and an installation's windows
   come in order (it has one batch in flight, and the inbox keeps order).
2. A message that cannot be read is counted and dropped; it stops no other.
3. What the messages ask of the fleet is read once and written once (`batch`).
4. Windows of models that there are not count nowhere, and so do announcements: no device fills a table with names. One
   that tells which models it follows is counted for these and no others, also where a window that it had kept speaks of
   another one.
5. With `devices`, messages of devices that are blocked or removed are left out, what batches say of their devices
   is noted (`flows/devices/observe`), and devices that may have been invented are counted apart (`proven`).

Announcements place devices in their cohorts (`take_announcement`). Windows of reports become cells (`tally_window`);
in a small fleet they are the past of their devices too (`past`), and always an hour of their version (`monitors`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import xxhash

from whimbrel.errors import UntrustedInput
from whimbrel.flows.device_records import DeviceMessage, SequenceMark
from whimbrel.flows.devices.duplicates import digests_after
from whimbrel.flows.devices.observe import Observations, admitted
from whimbrel.flows.devices.ports import ObservedPort, RunHistoryPort
from whimbrel.flows.devices.take_run_history import RunHistoryIntake
from whimbrel.flows.monitors.count_hours import HourTally
from whimbrel.flows.monitors.ports import HourTallyPort
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import ExperimentRecord
from whimbrel.flows.reports.batch import FleetBatch
from whimbrel.flows.reports.live import LiveComparisons
from whimbrel.flows.reports.past import PastTally
from whimbrel.flows.reports.proven import Admissions, EvidenceRule
from whimbrel.flows.reports.take_announcement import take_announcement
from whimbrel.flows.reports.tally_window import tally_window
from whimbrel.health.report import Announcement, Batch
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse


class IngestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some messages."""

    windows: int = 0
    duplicates: int = 0
    announcements: int = 0
    contradictions: int = 0
    unreadable: int = 0
    setbacks: int = 0  # devices that failed or went back: the gate looks at once


def ingest(
    registry: RegistryPort,
    fleet: FleetPort,
    records: Iterable[DeviceMessage],
    *,
    now: float,
    experiments: Sequence[ExperimentRecord] = (),
    devices: ObservedPort | None = None,
    runs: RunHistoryPort | None = None,
    health: HourTallyPort | None = None,
    evidence: EvidenceRule = "proven",
) -> IngestCounts:
    """Take messages in order. `experiments`: those that are live. `devices`: who may speak; None: everybody, proven.

    `runs`: where run histories are kept, and `health`: where the hours of versions are added up; None: nowhere.
    `evidence`: which devices move a comparison.
    """
    records = tuple(records) if devices is None else admitted(devices, records)
    observed = Observations(devices, registry) if devices is not None else None
    names = {record.device_id for record in records}
    live = LiveComparisons(
        registry,
        fleet,
        [*registry.rollouts(live=True), *experiments],
        admissions=Admissions(fleet.admissions(sorted(names)), fleet.first_admitted_at()),
        weighs=devices is not None and evidence == "proven",
        now=now,
    )
    models = frozenset(model.name for model in registry.models())
    batch = FleetBatch(fleet, comparisons=live.ids, devices=names, models=models)
    past = PastTally(fleet, now=now)
    hours = HourTally(registry, health, now=now)
    intake = _Intake(live, batch, past, hours, observed, runs=RunHistoryIntake(runs, registry), now=now)
    for record in records:
        try:
            intake.take(record)
        except UntrustedInput:
            intake.counts["unreadable"] += 1
    batch.write()
    past.write()
    hours.write()
    if observed is not None:
        observed.write()
    for comparison, cells in intake.cells.items():
        fleet.tally(comparison, cells)
    return IngestCounts(**intake.counts)


class _Intake:
    """The messages of one transaction: what is counted of them, and the cells that they add."""

    def __init__(
        self,
        live: LiveComparisons,
        batch: FleetBatch,
        past: PastTally,
        hours: HourTally,
        observed: Observations | None,
        *,
        runs: RunHistoryIntake,
        now: float,
    ) -> None:
        self._live, self._batch, self._past, self._observed, self._now = live, batch, past, observed, now
        self._hours, self._runs = hours, runs
        self.counts: Counter[str] = Counter()  # by the names of `IngestCounts`
        self.cells: dict[str, list[Cell]] = defaultdict(list)  # by rollout or experiment

    def take(self, record: DeviceMessage) -> None:
        if record.kind == "announce":
            self._announcement(record, parse(Announcement, record.body, what="an announcement"))
        else:
            self._reports(record, parse(Batch, record.body, what="a batch of reports"))

    def _announcement(self, record: DeviceMessage, announcement: Announcement) -> None:
        result = take_announcement(self._live, self._batch, announcement, device_id=record.device_id, at=record.at)
        self.counts["announcements"] += 1
        self.counts["contradictions"] += result.contradicts
        self.counts["setbacks"] += result.setback

    def _reports(self, record: DeviceMessage, reports: Batch) -> None:
        device_id, at = record.device_id, record.at
        marks = self._batch.marks(device_id)
        if self._observed is not None:
            self._observed.see(device_id, reports, marks, at=at)
        if reports.run_history is not None and not self._runs.take(device_id, reports.run_history, at=at):
            self.counts["contradictions"] += 1
        device_hours = self._hours.hours_of(marks.values())
        last = self._batch.last_sequence(device_id, reports.epoch)
        fresh = [window for window in reports.windows if window.first > last]
        for window in fresh:
            if window.model not in self._batch.models:
                continue
            self._batch.note_running(
                device_id,
                model=window.model,
                serial=reports.runs.get(window.model, window.serial),
                hardware_class=window.hardware_class,
                at=at,
            )
            chance = _chance(device_id, reports.epoch, window.first)
            tally = tally_window(
                self._live, self._batch, window, device_id=device_id, chance=chance, at=at, now=self._now
            )
            self.counts["contradictions"] += tally.contradictions
            if self._hours.is_published(window.model, window.serial):
                self._past.add(device_id, window, chance=chance)
            self._hours.add(device_hours, window)
            for comparison, cells in tally.cells.items():
                self.cells[comparison] += cells
        if fresh:
            digests = digests_after(marks.get(reports.epoch), fresh)
            self._batch.set_mark(device_id, reports.epoch, SequenceMark(fresh[-1].last, at, digests, device_hours))
        if reports.models:
            self._batch.note_followed(device_id, reports.models, at=at)
        self._batch.note_heard(device_id, at=at, labels=dict(reports.labels) if reports.labels else None)
        self.counts["windows"] += len(fresh)
        self.counts["duplicates"] += len(reports.windows) - len(fresh)


def _chance(device_id: str, epoch: str, sequence: int) -> int:
    """64 bits that are a report's own, and the same whenever it is looked at: what is drawn by them is drawn once."""
    return xxhash.xxh64_intdigest(f"{device_id}/{epoch}/{sequence}".encode())
