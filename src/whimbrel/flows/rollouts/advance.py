"""A rollout is judged, and moves, holds or goes back as the verdict says. (Steps 16 and 17.)

1. What the verdict says and what it leads to are one transaction (`judge`, `move`).
2. A paused rollout is still judged: harm takes it back, or a slice of it; nothing else moves it.
3. A plan that ends below 100%, or among some devices only, makes nothing everybody's baseline: it holds at its end.
4. A share that no enrolled device falls in is widened as soon as one is enrolled that it could be for: a rollout may
   begin before the only board of a desk has enrolled.
5. Of a set, each version has a gate of its own, and the verdict is one: what is worst for any of them happens to all. A
   rollout that moves with its lead's is judged there.
6. What the gate would let go on may still have to wait: for people's approval of the next stage, for the end of a
   freeze, for a blast radius that is too small, for a spike of enrolments to pass. Going back waits for nothing.
"""

import msgspec

from whimbrel.flows.audit import audit
from whimbrel.flows.devices.enrolment_spike import enrolment_spike
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.approvals import approvals_missing
from whimbrel.flows.rollouts.judge import RolloutLedgers, judge_set
from whimbrel.flows.rollouts.move import BACK, move
from whimbrel.flows.rollouts.rollout_set import save_set
from whimbrel.flows.rollouts.shares import next_over_the_cap, present_share, share_percent
from whimbrel.flows.wording import people_words, time_words
from whimbrel.gate.verdict import Move, Verdict
from whimbrel.plan.rollout_states import NEXT, Event, State
from whimbrel.plan.schedule import frozen_until

_WIDENED = frozenset({State.RUNNING, State.HOLDING})  # states of a stage that nobody has reported of
_EVENT_OF_VERDICT: dict[Move, Event | None] = {
    "slice_back": Event.SLICE_BACK,
    "roll_back": Event.ROLL_BACK,
    "advance": Event.ADVANCE,
    "finish": Event.FINISH,
    "hold": Event.HOLD,
    "wait": None,
}


def advance(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    *,
    now: float,
    ledgers: RolloutLedgers | None = None,
) -> Verdict:
    """Ask the gate and do what it says. Returns the verdict. `ledgers`: kept between the windows of a rollout."""
    if rollout.lead:
        return Verdict("wait", f"it is judged with {rollout.lead}", {})
    rollout = _widened(registry, fleet, rollout, now=now)
    verdict = judge_set(registry, fleet, rollout, now=now, ledgers={} if ledgers is None else ledgers)
    verdict, event = _held_back(registry, fleet, rollout, verdict, now=now)
    # A rollout that a person paused goes back, and nowhere else; so does one whose signed policy is not out yet.
    if event is None or (rollout.state in {State.PAUSED, State.ADVANCING} and event not in BACK):
        return verdict
    if NEXT.get((rollout.state, event)) is None:  # it holds or waits already, and the newest reason counts
        if verdict.because != rollout.because:
            save_set(registry, msgspec.structs.replace(rollout, because=verdict.because), before=rollout)
        return verdict
    move(
        registry,
        fleet,
        rollout,
        event,
        because=verdict.because,
        actor="gate",
        evidence=verdict.evidence,
        slices=verdict.classes,
        now=now,
    )
    return verdict


def _widened(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> RolloutRecord:
    """The rollout with a share that a device falls in, where none does and one could. Its stage soaks anew then."""
    if rollout.state not in _WIDENED or any(each.assigned_t for each in fleet.counts(rollout.id).values()):
        return rollout
    share = present_share(registry, fleet, rollout)
    if share <= rollout.shares[-1]:
        return rollout
    before, after = (share_percent(rollout.plan, each) for each in (rollout.shares[-1], share))
    because = (
        f"stage {rollout.plan.stages[rollout.stage].name} goes from {before:.3g}% to {after:.3g}%: nobody was in "
        "it, and now a device is"
    )
    wider = msgspec.structs.replace(rollout, shares=(*rollout.shares[:-1], share), stage_since=now, because=because)
    save_set(registry, wider, before=rollout)
    audit(registry, wider, actor="gate", action="widen", because=because, now=now, evidence={"shares": [*wider.shares]})
    return wider


def _held_back(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, verdict: Verdict, *, now: float
) -> tuple[Verdict, Event | None]:
    """The verdict and its event; or a verdict that holds, and why, where a rollout that may go on must still wait."""
    if verdict.move not in {"advance", "finish"}:
        return verdict, _EVENT_OF_VERDICT[verdict.move]

    def hold(because: str, event: Event = Event.HOLD) -> tuple[Verdict, Event]:
        return Verdict("hold", f"{verdict.because}; {because}", verdict.evidence), event

    plan = rollout.plan
    if spike := enrolment_spike(fleet.enrolment_rates(now=now)):
        return hold(spike.words)
    if verdict.move == "finish" and not plan.reaches_everyone:
        return hold(
            "the plan ends before it reaches every device, so a person decides: rollout finish or rollout abort"
        )
    if verdict.move == "advance":
        if too_many := next_over_the_cap(registry, fleet, rollout):
            return hold(too_many)
        if missing := approvals_missing(registry, rollout):
            name = plan.stages[rollout.stage + 1].name
            return hold(f"stage {name} begins when {people_words(missing)} approved", Event.AWAIT_APPROVAL)
    if (until := frozen_until(plan.freeze, now)) is not None:
        waits = rollout.state is State.WAITING_FOR_APPROVAL
        return hold(f"a freeze holds until {time_words(until)}", Event.AWAIT_APPROVAL if waits else Event.HOLD)
    return verdict, _EVENT_OF_VERDICT[verdict.move]
