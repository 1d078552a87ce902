"""What the gate says of a rollout: now, at each stored verdict again, and for proof. (Step 16.)

1. A stage in which none of a small fleet falls is judged by the devices of the stage before it.
2. A device of a shadow stage speaks for no stage that serves.
3. Devices that may have been invented for the rollout's sake are judged apart, and hold it at most (`gate/unproven`).
4. Where a stage has soaked and no enrolled device can be its control, the gate also gets the past: what the stage's own
   devices told while they ran the version before (of a large fleet: what was told of it in the rollout's shadow
   stage), and what both versions were published with.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from whimbrel.flows.judging import Rejudged, ReplayedVerdict, judge_again, judge_and_store, judge_windows, replay
from whimbrel.flows.ports import FleetPort, RegistryPort, TallyPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.past import of_devices, past_cells
from whimbrel.flows.reports.proven import unproven_name
from whimbrel.flows.rollouts.rollout_set import members_of, set_of
from whimbrel.flows.rollouts.shares import DevicePlace, Devices, stage_of
from whimbrel.flows.versions import reference_of
from whimbrel.gate.estimates import estimates_of
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import drift_limits, watched
from whimbrel.gate.kill_switch import natural_rate
from whimbrel.gate.ledger import Ledger, References
from whimbrel.gate.totals import Totals
from whimbrel.gate.unproven import weigh_unproven
from whimbrel.gate.verdict import Counts, GateInput, Move, Past, Unproven, Verdict
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse
from whimbrel.model.release import Release
from whimbrel.model.selector import Selector

RolloutLedgers = dict[str, Ledger]  # by rollout: kept between windows


class RolloutGate:
    """The gate of one rollout. (flows/judging.Gate)"""

    def __init__(self, registry: RegistryPort, rollout: RolloutRecord, tally: TallyPort) -> None:
        """`tally`: where the windows of unproven devices are."""
        self.comparison = rollout
        self._registry, self._tally = registry, tally

    def new_ledger(self, gate_input: GateInput) -> Ledger:
        """A ledger that has folded nothing."""
        rollout = self.comparison
        return Ledger(rollout.plan, without=gate_input.without, references=references_of(self._registry, rollout))

    def fits(self, ledger: Ledger, gate_input: GateInput) -> bool:
        """Whether a kept ledger left out the slices that went back by now."""
        return ledger.without == frozenset(gate_input.without)

    def judge(self, gate_input: GateInput, ledger: Ledger, cells: Sequence[Cell]) -> Verdict:
        """The verdict, with `cells` folded into the ledger."""
        plan = self.comparison.plan
        verdict = judge(plan, msgspec.structs.replace(gate_input, cells=cells), ledger)
        unproven = gate_input.unproven
        if unproven is None:
            return verdict
        own = ledger.unproven
        if own is None or own.last >= unproven.window:
            own = ledger.unproven = self.new_ledger(gate_input)
        name = unproven_name(self.comparison.id)
        apart = self._tally.cells(name, before_window=unproven.window, from_window=own.last + 1)
        return weigh_unproven(plan, gate_input, verdict, own, apart)

    def parse_input(self, stored: bytes) -> GateInput:
        """An input as it was stored with its verdict."""
        return parse(GateInput, stored, what="a stored situation")


_WORST_FIRST: tuple[Move, ...] = ("roll_back", "slice_back", "hold", "wait", "advance", "finish")


def verdict_for(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    """What the gate says of a rollout and its set at `now`; nothing is changed."""
    return _of_set({each.model: _verdict_for_one(registry, fleet, each, now=now) for each in set_of(registry, rollout)})


def judge_set(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float, ledgers: RolloutLedgers
) -> Verdict:
    """The one verdict on a rollout and all that it carries; what each gate said is stored with its own rollout."""
    verdicts = {
        each.model: judge_rollout(registry, fleet, each, now=now, ledgers=ledgers)
        for each in [rollout, *members_of(registry, rollout)]
    }
    return _of_set(verdicts)


def _of_set(verdicts: Mapping[str, Verdict]) -> Verdict:
    """What is worst for any model of a set happens to all; where all may go on, each says so."""
    if len(verdicts) == 1:
        return next(iter(verdicts.values()))
    worst = min(verdicts.values(), key=lambda verdict: _WORST_FIRST.index(verdict.move))
    agreeing = [f"{model}: {each.because}" for model, each in verdicts.items() if each.move == worst.move]
    because = "; ".join(agreeing if worst.move in {"advance", "finish"} else agreeing[:1])
    return msgspec.structs.replace(worst, because=because)


def _verdict_for_one(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    gate = RolloutGate(registry, rollout, fleet)
    looked_at = gate_input(registry, fleet, rollout, now=now)
    return judge_windows(fleet, gate, looked_at, window=rollout.window_at(now), ledgers={})


def judge_rollout(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float, ledgers: RolloutLedgers
) -> Verdict:
    """What the gate says of a rollout at `now`, stored so that it can be asked for again."""
    looked_at = gate_input(registry, fleet, rollout, now=now)
    return judge_and_store(registry, fleet, RolloutGate(registry, rollout, fleet), looked_at, now=now, ledgers=ledgers)


def replay_rollout(registry: RegistryPort, fleet: FleetPort, identifier: str) -> list[ReplayedVerdict]:
    """Ask the gate again about every verdict of a rollout, from the stored windows alone."""
    return replay(registry, fleet, RolloutGate(registry, registry.rollout(identifier), fleet))


def rejudge_rollout(
    registry: RegistryPort, fleet: FleetPort, identifier: str
) -> Iterator[Rejudged[GateInput, Verdict]]:
    """Every stored verdict of a rollout, oldest first, with what the gate says again."""
    return judge_again(registry, fleet, RolloutGate(registry, registry.rollout(identifier), fleet))


def gate_input(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> GateInput:
    """What the gate looks at, except the windows."""
    counts = fleet.counts(rollout.id, without=rollout.without)
    soaked_s = now - rollout.stage_since
    unproven = fleet.unproven_counts(rollout.id)
    places = _Places(registry, fleet, rollout)
    cohort = _cohort(places, rollout, counts)
    judged = GateInput(
        stage=rollout.stage,
        soaked_s=soaked_s,
        counts=counts,
        hour_s=rollout.hour_s,
        cohort=cohort,
        shares=rollout.shares,
        without=rollout.without,
        users_heard=(fleet.user_reports_heard_at(rollout.model) or 0.0) >= rollout.created_at,
        natural_go_back=_natural_go_back(registry, fleet, rollout, [*counts.values(), *unproven.values()]),
        unproven=Unproven(counts=unproven, window=rollout.window_at(now)) if unproven else None,
    )
    if soaked_s < rollout.plan.stages[rollout.stage].duration_hours * rollout.hour_s:
        return judged
    heard, selector = counts.get(cohort, Counts()), rollout.plan.stages[cohort].selector
    return msgspec.structs.replace(
        judged,
        devices=None if heard.assigned_t or places.hides(selector) else places.in_stage(rollout, cohort),
        past=None
        if heard.assigned_c or places.has_control(rollout, cohort)
        else _past(registry, fleet, rollout, cohort, now=now),
    )


def _natural_go_back(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, counts: Sequence[Counts]
) -> float | None:
    """The share of devices that left the baseline by themselves; asked for once a device left the new version."""
    if rollout.baseline is None or not any(each.went_back_t for each in counts):
        return None
    went_back = activated = 0
    for other in registry.rollouts(model=rollout.model):
        if other.target == rollout.baseline and other.id != rollout.id:
            for each in fleet.counts(other.id).values():
                went_back, activated = went_back + each.went_back_t, activated + each.activated_t
    return natural_rate(went_back, activated) if activated else None


def references_of(registry: RegistryPort, rollout: RolloutRecord) -> References:
    """The predictions that both versions were released with, where the rollout's plan watches drift."""
    if not drift_limits(rollout.plan):
        return References()
    target = reference_of(registry, rollout.model, rollout.target)
    before = rollout.baseline
    baseline = None if before is None else reference_of(registry, rollout.model, before)
    return References(treated=target.bin_shares if target else None, control=baseline.bin_shares if baseline else None)


class _Places:
    """The places of the devices that follow a rollout's model, read once, and only where somebody asks."""

    def __init__(self, registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord) -> None:
        self._registry, self._fleet, self._rollout = registry, fleet, rollout

    @functools.cached_property
    def _able(self) -> list[DevicePlace]:
        """Those that the version may run on."""
        return list(Devices.of_rollout(self._registry, self._fleet, self._rollout).places())

    @functools.cached_property
    def _all(self) -> list[DevicePlace]:
        model = self._registry.model(self._rollout.model)
        salt = self._rollout.salt if self._rollout.salt is not None else model.salt
        return list(Devices(self._fleet, model.name, salt=salt).places())

    def hides(self, selector: Selector) -> bool:
        """Whether a selector asks for labels that stay on the devices, so that nobody here knows whom it means."""
        return not selector.labels <= frozenset(self._registry.model(self._rollout.model).settings.report_labels)

    def in_stage(self, rollout: RolloutRecord, stage: int) -> int:
        """How many devices take the version in `stage`: in the shadow, or to be served by it."""
        plan, shares = rollout.plan, rollout.shares
        if plan.stages[stage].shadow is not None:
            selector = plan.stages[stage].selector
            return sum(plan.range.start <= at < shares[stage] and selector.matches(labels) for at, labels in self._able)
        return sum(stage_of(plan, shares, at, labels) == stage for at, labels in self._able)

    def has_control(self, rollout: RolloutRecord, stage: int) -> bool:
        """Whether any device can be a control of `stage`, as far as is known here: a doubt is for a control."""
        if rollout.baseline is None:
            return False  # a first version
        start, end = rollout.shares[-1], rollout.plan.range.end
        selector = rollout.plan.stages[stage].selector
        hides = self.hides(selector)
        return any(start <= at < end and (hides or selector.matches(labels)) for at, labels in self._all)


def _cohort(places: _Places, rollout: RolloutRecord, counts: Mapping[int, Counts]) -> int:
    """The stage whose devices speak for the present one."""
    stage = rollout.stage
    if rollout.plan.stages[stage].shadow is not None:
        return stage  # what was seen in the shadow of others speaks for nobody
    while stage > rollout.plan.shadows and not counts.get(stage, Counts()).assigned_t:
        if places.in_stage(rollout, stage):
            break  # somebody will report
        stage -= 1
    return stage


def _past(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, stage: int, *, now: float) -> Past:
    """What stands in for the control of a stage that can have none."""
    target = _release(registry, rollout.model, rollout.target)
    before = next((each for each in registry.versions(rollout.model) if each.serial == rollout.baseline), None)
    if before is None:
        return Past(target_released=target.metrics)
    by_device = past_cells(fleet, rollout.model, before.serial, now=now)
    placed = fleet.participations([rollout.id], sorted(by_device))
    treated = {each.device_id for each in placed if each.role == "treated" and each.stage == stage and each.proven}
    totals = Totals()
    for cell in of_devices(by_device, treated) or _told_in_the_shadow(fleet, rollout, now=now):
        totals.add(cell)
    criteria = rollout.plan.criteria(rollout.stage)
    told = estimates_of({"past": totals}, criteria, watched=[row.name for row in watched(rollout.plan)])["past"]
    return Past(
        version=before.semantic_version,
        device_windows=int(totals["at_risk"]),
        estimates={name: value for name, value in told.items() if not isinstance(value, dict)},
        released=_release(registry, rollout.model, before.serial).metrics,
        target_released=target.metrics,
    )


def _told_in_the_shadow(fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> list[Cell]:
    """What devices told of the version before while they tried the new one beside it, and those beside them."""
    if not rollout.plan.shadows or rollout.stage < rollout.plan.shadows:
        return []
    cells = fleet.cells(rollout.id, before_window=rollout.window_at(now))
    return [cell for cell in cells if cell.stage < rollout.plan.shadows]


def _release(registry: RegistryPort, model: str, serial: int) -> Release:
    return parse(Release, registry.release_bytes(model, serial), what="a stored release")
