"""A rollout is judged, and moves, holds or goes back as the verdict says. (Steps 16 and 17.)

1. What the verdict says and what it leads to are one transaction (`judge`, `move`).
2. A paused rollout is still judged: harm takes it back, or a slice of it; nothing else moves it.
3. A plan that ends below 100%, or among some devices only, makes nothing everybody's baseline: it holds at its end.
4. What the gate would let go on may still have to wait: for people's approval of the next stage, for the end of a
   freeze, for a blast radius that is too small. Going back waits for nothing.
"""

import msgspec

from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.approvals import approvals_missing
from whimbrel.flows.rollouts.judge import RolloutLedgers, judge_rollout
from whimbrel.flows.rollouts.move import BACK, move
from whimbrel.flows.rollouts.shares import next_over_the_cap
from whimbrel.flows.wording import people_words, time_words
from whimbrel.gate.verdict import Move, Verdict
from whimbrel.plan.rollout_states import NEXT, Event, State
from whimbrel.plan.schedule import frozen_until

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
    verdict = judge_rollout(registry, fleet, rollout, now=now, ledgers={} if ledgers is None else ledgers)
    verdict, event = _held_back(registry, fleet, rollout, verdict, now=now)
    # A rollout that a person paused goes back, and nowhere else; so does one whose signed policy is not out yet.
    if event is None or (rollout.state in {State.PAUSED, State.ADVANCING} and event not in BACK):
        return verdict
    if NEXT.get((rollout.state, event)) is None:  # it holds or waits already, and the newest reason counts
        if verdict.because != rollout.because:
            registry.save_rollout(msgspec.structs.replace(rollout, because=verdict.because), before=rollout)
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


def _held_back(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, verdict: Verdict, *, now: float
) -> tuple[Verdict, Event | None]:
    """The verdict and its event; or a verdict that holds, and why, where a rollout that may go on must still wait."""
    if verdict.move not in {"advance", "finish"}:
        return verdict, _EVENT_OF_VERDICT[verdict.move]

    def hold(because: str, event: Event = Event.HOLD) -> tuple[Verdict, Event]:
        return Verdict("hold", f"{verdict.because}; {because}", verdict.evidence), event

    plan = rollout.plan
    if verdict.move == "finish" and not plan.reaches_everyone:
        return hold("the plan ends before it reaches every device, so a person decides: finish or abort it")
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
