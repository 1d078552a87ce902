"""Reports come in: each is tallied once, and announcements place devices in their cohorts. (Steps 14 and 15.)

1. A window counts once by (device, epoch, sequence): the newest sequence tallied is kept, and an installation's windows
   come in order (it has one batch in flight, and the inbox keeps order).
2. A device is believed about its arm only when its bucket says the same; a claim that contradicts it counts nowhere.
   It is in a stage's cohort once, and treated in one stage alone. A share outside of 0 to 1 and predictions in the bins
   of another version are left out.
3. Late or early, a report counts in the window that is open when it is tallied: windows that are over never change.
4. In an experiment a device has one value a metric: the mean over its windows, each less what the control showed in
   the windows before. What changed is tallied (health/panel.py); windows before the control showed anything do not
   count.
5. Of every metric whose mean is tested, a device's window is tallied with what its windows before said: a device that
   says the same again is one device (health/pairs.py).
6. "About to activate" starts the clock that silence is judged by: a device that dies of an update never says more.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from whimbrel.errors import UntrustedInput
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import ExperimentRecord, Participation, Record, RolloutRecord
from whimbrel.flows.reports.batch import Gathered
from whimbrel.flows.rollouts.references import reference_of
from whimbrel.gate.guardrails import tested_means
from whimbrel.health.pairs import Pairs
from whimbrel.health.panel import LEAST_DEVICES, Panel, Value
from whimbrel.health.report import ERROR_RATE, Announcement, Batch, Cohort, Summary, Window
from whimbrel.health.shadow import Seen
from whimbrel.health.tally import Cell, age_bucket, cells_of
from whimbrel.model.documents import parse
from whimbrel.plan.measures import SHARES
from whimbrel.policy.bucket import bucket, device_key

SILENCE_PERIODS = 3  # reports a device may miss before it counts as silent
_LEVEL_WINDOWS = 12  # windows back in which the control's level is looked for: an hour

Trial = RolloutRecord | ExperimentRecord  # what devices may be cohorts of


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some messages."""

    windows: int
    duplicates: int
    announcements: int
    contradictions: int
    unreadable: int
    setbacks: int  # devices that failed or went back: the gate looks at once


def ingest(
    registry: RegistryPort,
    fleet: FleetPort,
    records: Iterable[Record],
    *,
    now: float,
    experiments: Sequence[ExperimentRecord] = (),
) -> Ingested:
    """Tally messages, in order, within one transaction. A message that cannot be read is counted and dropped.

    `experiments`: those that are live.
    """
    records = tuple(records)
    devices = {record.device_id for record in records}
    desk = _Desk(registry, fleet, now, experiments, devices=devices)
    for record in records:
        try:
            desk.take(record)
        except UntrustedInput:
            desk.unreadable += 1
    return desk.finish()


class _Desk:
    def __init__(
        self,
        registry: RegistryPort,
        fleet: FleetPort,
        now: float,
        experiments: Sequence[ExperimentRecord],
        *,
        devices: Iterable[str],
    ) -> None:
        self.registry, self.tallies, self.now = registry, fleet, now
        self.rollouts: dict[str, Trial] = {rollout.id: rollout for rollout in registry.rollouts(live=True)}
        self.rollouts |= {experiment.id: experiment for experiment in experiments}
        self.fleet = Gathered(fleet, rollouts=self.rollouts, devices=devices)
        self.levels: dict[str, dict[str, float]] = {}  # of experiments: the control's, by metric
        self.tested = {name: _tested(trial) for name, trial in self.rollouts.items()}
        models = {r.model: registry.model(r.model) for r in self.rollouts.values()}
        self.salts = {name: model.salt for name, model in models.items()}
        self.slice_labels = {name: frozenset(model.settings.slice_labels) for name, model in models.items()}
        self.cells: dict[str, list[Cell]] = defaultdict(list)
        self.windows = self.duplicates = self.announcements = self.contradictions = self.unreadable = 0
        self.setbacks = 0
        self.bins: dict[tuple[str, int], int] = {}

    def take(self, record: Record) -> None:
        if record.kind == "announce":
            self._announce(record, parse(Announcement, record.body, what="an announcement"))
        else:
            self._reports(record, parse(Batch, record.body, what="a batch of reports"))

    def finish(self) -> Ingested:
        self.fleet.write()
        for rollout, cells in self.cells.items():
            self.tallies.tally(rollout, cells)
        return Ingested(
            windows=self.windows,
            duplicates=self.duplicates,
            announcements=self.announcements,
            contradictions=self.contradictions,
            unreadable=self.unreadable,
            setbacks=self.setbacks,
        )

    def _reports(self, record: Record, batch: Batch) -> None:
        last = self.fleet.last_sequence(record.device_id, batch.epoch)
        fresh = [window for window in batch.windows if window.first > last]
        self.duplicates += len(batch.windows) - len(fresh)
        for window in fresh:
            self._window(record, window)
        if fresh:
            self.fleet.set_last_sequence(record.device_id, batch.epoch, fresh[-1].last)
        self.fleet.seen(record.device_id, at=record.at, labels=dict(batch.labels) if batch.labels else None)

    def _window(self, record: Record, window: Window) -> None:
        self.windows += 1
        self.fleet.runs(
            record.device_id,
            model=window.model,
            serial=window.serial,
            hardware_class=window.hardware_class,
            at=record.at,
        )
        believed: dict[str, list[Cohort]] = defaultdict(list)
        changes: dict[str, dict[int, dict[str, Panel]]] = defaultdict(dict)
        pairs: dict[str, dict[int, dict[str, Pairs]]] = defaultdict(dict)
        means = {name: seen.sum / seen.n for name, seen in _credible_metrics(window).items() if seen.n}
        for cohort in window.cohorts:
            rollout = self.rollouts.get(cohort.rollout)
            if rollout is None:
                continue  # it ended meanwhile
            twice = any(
                one.stage == cohort.stage or one.role == cohort.role == "treated" for one in believed[rollout.id]
            )
            if twice or not self._credible(rollout, record.device_id, cohort.stage, cohort.role):
                self.contradictions += 1
                continue
            believed[rollout.id].append(cohort)
            changes[rollout.id][cohort.stage], pairs[rollout.id][cohort.stage] = self._place(
                rollout,
                record,
                cohort.stage,
                cohort.role,
                window.hardware_class,
                slices=self._slices(rollout, window.slices),
                activated_at=record.at - cohort.age_s,
                reported=True,
                shadowed=bool((seen := _shadow_of(rollout, window, cohort)) and seen.inputs),
                tested={name: means[name] for name in sorted(self.tested[rollout.id] & means.keys())},
                compared=self._compared(rollout, window),
                before=cohort.before,
            )
        for identifier, cohorts in believed.items():
            rollout = self.rollouts[identifier]
            shadow = next((seen for each in cohorts if (seen := _shadow_of(rollout, window, each))), None)
            self.cells[identifier] += cells_of(
                msgspec.structs.replace(
                    self._sound(rollout, window, cohorts),
                    cohorts=tuple(cohorts),
                    slices=self._slices(rollout, window.slices),
                    shadow=shadow,
                ),
                rollout=identifier,
                window=rollout.window_at(self.now),
                hour_s=rollout.hour_s,
                changes=changes[identifier],
                pairs=pairs[identifier],
            )

    def _sound(self, rollout: Trial, window: Window, cohorts: list[Cohort]) -> Window:
        """The window without what cannot be: shares that are none, and bins of another version's reference.

        A device that went back to the baseline is counted in its arm, and sorts its predictions as the baseline does.
        """
        predictions = {}
        serials = {rollout.serial_of(cohort.role, cohort.stage) for cohort in cohorts}
        if window.predictions and serials == {window.serial}:
            bins = self._bins(rollout.model, serials.pop())
            predictions = {key: count for key, count in window.predictions.items() if key < bins}
        return msgspec.structs.replace(window, metrics=_credible_metrics(window), predictions=predictions)

    def _bins(self, model: str, serial: int) -> int:
        if (model, serial) not in self.bins:
            reference = reference_of(self.registry, model, serial)
            self.bins[model, serial] = len(reference.bin_shares) if reference else 0
        return self.bins[model, serial]

    def _compared(self, experiment: Trial, window: Window) -> dict[str, float]:
        """What a window tells of the metrics that an experiment compares, less the control's level."""
        if not isinstance(experiment, ExperimentRecord):
            return {}
        if experiment.id not in self.levels:
            self.levels[experiment.id] = _levels(self.tallies, experiment, now=self.now)
        means, levels = window.means(), self.levels[experiment.id]
        return {metric: means[metric] - level for metric, level in levels.items() if metric in means}

    def _announce(self, record: Record, said: Announcement) -> None:
        self.announcements += 1
        self.fleet.seen(record.device_id, at=record.at)
        if said.step in {"activated", "went_back", "committed"}:
            self.fleet.runs(
                record.device_id,
                model=said.model,
                serial=said.serial,
                hardware_class=said.hardware_class,
                at=record.at,
            )
        rollout = self.rollouts.get(said.rollout or "")
        if rollout is None:
            return
        if not self._credible(rollout, record.device_id, said.stage, said.role):
            self.contradictions += 1
            return
        starts = {"treated": {"activating", "activated", "shadowing"}, "control": {"placebo"}}[said.role]
        outcome = said.step if said.step in {"committed", "went_back", "failed"} else ""
        self.setbacks += outcome in {"went_back", "failed"}
        self._place(
            rollout,
            record,
            said.stage,
            said.role,
            said.hardware_class,
            slices=self._slices(rollout, said.slices),
            begun_at=record.at if said.step == "begun" and said.role == "treated" else None,
            activated_at=record.at if said.step in starts else None,
            outcome=outcome,
        )

    def _place(
        self,
        rollout: Trial,
        record: Record,
        stage: int,
        role: str,
        hardware_class: str,
        *,
        slices: dict[str, str],
        activated_at: float | None,
        begun_at: float | None = None,
        reported: bool = False,
        shadowed: bool = False,
        outcome: str = "",
        tested: Mapping[str, float] | None = None,
        compared: Mapping[str, float] | None = None,
        before: Mapping[str, float] | None = None,
    ) -> tuple[dict[str, Panel], dict[str, Pairs]]:
        """Write down what is new of a device's place; gives what its values add to the panels and the pairs."""
        held = self.fleet.participation(rollout.id, stage, record.device_id) or Participation(
            rollout=rollout.id,
            stage=stage,
            device_id=record.device_id,
            role="treated" if role == "treated" else "control",
            hardware_class=hardware_class,
            slices=slices,
            assigned_at=record.at,
        )
        values, changes, pairs = dict(held.values), {}, {}
        for metric, value in (tested or {}).items():
            past = values.get(metric, Value())
            if past.n:
                pairs[metric] = Pairs.of(value, before=past.n, total=past.total)
            if isinstance(rollout, RolloutRecord) or metric not in rollout.plan.compared:
                values[metric] = past.plus(value)
        for metric, value in (compared or {}).items():
            known = (before or {}).get(metric)
            values[metric], changes[metric] = values.get(metric, Value()).later(value, before=known)
        # What a device did is not undone by what it says later: a failure stays in the denominator.
        changed = msgspec.structs.replace(
            held,
            hardware_class=hardware_class or held.hardware_class,
            slices=slices or held.slices,
            begun_at=held.begun_at if held.begun_at is not None else begun_at,
            activated_at=held.activated_at if held.activated_at is not None else activated_at,
            reported_at=held.reported_at or (record.at if reported else None),
            shadowed_at=held.shadowed_at or (record.at if shadowed else None),
            outcome=held.outcome if held.outcome in {"went_back", "failed"} else outcome or held.outcome,
            values=values,
        )
        if changed != held or not reported:
            self.fleet.save_participation(changed)
        return changes, pairs

    def _slices(self, rollout: Trial, told: dict[str, str]) -> dict[str, str]:
        """Only the labels that were asked for: others would make as many cells as a device has ideas."""
        return {label: value for label, value in told.items() if label in self.slice_labels[rollout.model]}

    def _credible(self, rollout: Trial, device_id: str, stage: int, role: str) -> bool:
        if isinstance(rollout, ExperimentRecord):
            place = bucket(device_key(device_id), salt=self.salts[rollout.model])
            return rollout.holds(place, stage=stage, role=role)
        if stage >= len(rollout.shares):
            return False
        place = bucket(device_key(device_id), salt=self.salts[rollout.model])
        if role == "treated":
            # The first match among the treated arms has it: an earlier stage for everyone leaves it to no later one.
            first = rollout.plan.shadows if rollout.plan.stages[stage].shadow is None else stage
            taken = [rollout.shares[n] for n in range(first, stage) if rollout.plan.stages[n].selector.everyone]
            return max(taken, default=rollout.plan.range.start) <= place < rollout.shares[stage]
        # A device that has just moved from control to treated may still report as the control it was.
        return rollout.shares[stage] <= place < rollout.plan.range.end


def _shadow_of(rollout: Trial, window: Window, cohort: Cohort) -> Seen | None:
    """What a window says of this rollout's candidate in the shadow; None where it is about another."""
    seen = window.shadow
    if (
        seen is None
        or isinstance(rollout, ExperimentRecord)
        or seen.serial != rollout.target
        or cohort.role != "treated"
    ):
        return None
    return seen if rollout.plan.stages[cohort.stage].shadow is not None else None


def _tested(trial: Trial) -> frozenset[str]:
    """The metrics whose means some gate tests."""
    if isinstance(trial, RolloutRecord):
        return tested_means(trial.plan)
    return frozenset().union(*(tested_means(trial.plan.guard_plan(each)) for _, each in trial.arms))


def _credible_metrics(window: Window) -> dict[str, Summary]:
    """Without shares that are none."""
    return {
        name: seen
        for name, seen in window.metrics.items()
        if name not in SHARES or not seen.n or 0 <= seen.sum / seen.n <= 1
    }


def _levels(fleet: FleetPort, experiment: ExperimentRecord, *, now: float) -> dict[str, float]:
    """The control's mean of every metric in the newest closed windows that have enough of it: the time of day."""
    window = experiment.window_at(now)
    stage = experiment.arms[0][0] if experiment.arms else 0
    sums = {metric: [0.0, 0.0] for metric in experiment.plan.compared}
    cells = fleet.cells(experiment.id, before_window=window, from_window=max(0, window - _LEVEL_WINDOWS))
    newest_first: dict[int, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.role == "control" and cell.stage == stage:
            newest_first[-cell.window].append(cell)
    for _, group in sorted(newest_first.items()):
        for metric, sum_of in sums.items():
            if sum_of[0] >= LEAST_DEVICES:
                continue
            for cell in group:
                if metric in cell.metrics:
                    sum_of[0] += cell.metrics[metric].n
                    sum_of[1] += cell.metrics[metric].sum
                elif metric == ERROR_RATE:
                    sum_of[0] += cell.error_units
                    sum_of[1] += cell.error_share
    return {metric: total / n for metric, (n, total) in sums.items() if n >= LEAST_DEVICES}


def judge_silence(fleet: FleetPort, rollout: Trial, *, report_s: float, now: float) -> int:
    """Ask once after every device whose first report is due; returns how many were. Unit: an activated device."""
    deadline_s = SILENCE_PERIODS * report_s
    asked = fleet.due(rollout.id, activated_before=now - deadline_s)
    window = rollout.window_at(now)
    fleet.tally(
        rollout.id,
        [
            Cell(
                stage=entry.stage,
                window=window,
                role=entry.role,
                hardware_class=entry.hardware_class,
                slices=entry.slices,
                age_bucket=age_bucket(deadline_s, hour_s=rollout.hour_s),
                due=1,
                overdue=0 if entry.reported_at is not None else 1,
            )
            for entry in asked
        ],
    )
    fleet.save_participation(*(msgspec.structs.replace(entry, silence_judged=True) for entry in asked))
    return len(asked)
