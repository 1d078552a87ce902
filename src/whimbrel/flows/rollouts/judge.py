"""What the gate says of a rollout: now, at each stored verdict again, and for proof. (Step 16.)

1. A stage in which none of a small fleet falls is judged by the devices of the stage before it.
2. A device of a shadow stage speaks for no stage that serves.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from whimbrel.flows.judging import Rejudged, ReplayedVerdict, judge_again, judge_and_store, judge_windows, replay
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.shares import Devices, stage_of
from whimbrel.flows.versions import reference_of
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import drift_limits
from whimbrel.gate.ledger import Ledger, References
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.tally import Cell
from whimbrel.model.documents import parse

RolloutLedgers = dict[str, Ledger]  # by rollout: kept between windows


class RolloutGate:
    """The gate of one rollout. (flows/judging.Gate)"""

    def __init__(self, registry: RegistryPort, rollout: RolloutRecord) -> None:
        self.comparison = rollout
        self._registry = registry

    def new_ledger(self, gate_input: GateInput) -> Ledger:
        """A ledger that has folded nothing."""
        rollout = self.comparison
        return Ledger(rollout.plan, without=gate_input.without, references=references_of(self._registry, rollout))

    def fits(self, ledger: Ledger, gate_input: GateInput) -> bool:
        """Whether a kept ledger left out the slices that went back by now."""
        return ledger.without == frozenset(gate_input.without)

    def judge(self, gate_input: GateInput, ledger: Ledger, cells: Sequence[Cell]) -> Verdict:
        """The verdict, with `cells` folded into the ledger."""
        return judge(self.comparison.plan, msgspec.structs.replace(gate_input, cells=cells), ledger)

    def parse_input(self, stored: bytes) -> GateInput:
        """An input as it was stored with its verdict."""
        return parse(GateInput, stored, what="a stored situation")


def verdict_for(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    """What the gate says of a rollout at `now`; nothing is changed."""
    gate = RolloutGate(registry, rollout)
    looked_at = gate_input(registry, fleet, rollout, now=now)
    return judge_windows(fleet, gate, looked_at, window=rollout.window_at(now), ledgers={})


def judge_rollout(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float, ledgers: RolloutLedgers
) -> Verdict:
    """What the gate says of a rollout at `now`, stored so that it can be asked for again."""
    looked_at = gate_input(registry, fleet, rollout, now=now)
    return judge_and_store(registry, fleet, RolloutGate(registry, rollout), looked_at, now=now, ledgers=ledgers)


def replay_rollout(registry: RegistryPort, fleet: FleetPort, identifier: str) -> list[ReplayedVerdict]:
    """Ask the gate again about every verdict of a rollout, from the stored windows alone."""
    return replay(registry, fleet, RolloutGate(registry, registry.rollout(identifier)))


def rejudge_rollout(
    registry: RegistryPort, fleet: FleetPort, identifier: str
) -> Iterator[Rejudged[GateInput, Verdict]]:
    """Every stored verdict of a rollout, oldest first, with what the gate says again."""
    return judge_again(registry, fleet, RolloutGate(registry, registry.rollout(identifier)))


def gate_input(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> GateInput:
    """What the gate looks at, except the windows."""
    counts = fleet.counts(rollout.id, without=rollout.without)
    return GateInput(
        stage=rollout.stage,
        soaked_s=now - rollout.stage_since,
        counts=counts,
        hour_s=rollout.hour_s,
        cohort=_cohort(registry, fleet, rollout, counts),
        shares=rollout.shares,
        without=rollout.without,
        users_heard=(fleet.user_reports_heard_at(rollout.model) or 0.0) >= rollout.created_at,
    )


def references_of(registry: RegistryPort, rollout: RolloutRecord) -> References:
    """The predictions that both versions were released with, where the rollout's plan watches drift."""
    if not drift_limits(rollout.plan):
        return References()
    target = reference_of(registry, rollout.model, rollout.target)
    before = rollout.baseline
    baseline = None if before is None else reference_of(registry, rollout.model, before)
    return References(treated=target.bin_shares if target else None, control=baseline.bin_shares if baseline else None)


def _cohort(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, counts: Mapping[int, Counts]) -> int:
    """The stage whose devices speak for the present one."""
    stage = rollout.stage
    if rollout.plan.stages[stage].shadow is not None:
        return stage  # what was seen in the shadow of others speaks for nobody
    while stage > rollout.plan.shadows and not counts.get(stage, Counts()).assigned_t:
        plan, shares = rollout.plan, rollout.shares
        devices = Devices.of_version(registry, fleet, rollout.model, rollout.target)
        if any(stage_of(plan, shares, place, labels) == stage for place, labels in devices.places()):
            break  # somebody will report
        stage -= 1
    return stage
