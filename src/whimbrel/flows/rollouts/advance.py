"""The gate is asked, and a rollout moves, holds or goes back. (Steps 16 and 17.)

1. Only closed windows are judged. Every move is one transaction: the rollout's row, its consequences (quarantine,
   baseline), and the audit entry with its evidence. The policy follows from the rows.
2. A person's move goes the same way, with the person as the actor.
3. A verdict is kept with what it looked at: the same windows must give it again, byte for byte (`replay`).
4. A stage in which none of a small fleet falls is judged by the devices of the stage before it.
5. A paused rollout is still judged: harm takes it back, or a slice of it; nothing else moves it.
6. What went back is quarantined, the fleet's or the slice's: it is never tried again by itself.
7. A plan that ends below 100%, or among some devices only, makes nothing everybody's baseline: it holds at its end.
8. What the gate would let go on may still have to wait: for people's approval of the next stage, for the end of a
   freeze, for a blast radius that is too small. Going back waits for nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping

import msgspec

from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord, VerdictRecord
from whimbrel.flows.rollouts.approvals import approvals_missing
from whimbrel.flows.rollouts.move import BACK, move
from whimbrel.flows.rollouts.references import references_of
from whimbrel.flows.rollouts.shares import next_over_the_cap, stage_of
from whimbrel.flows.wording import people_words, time_words
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.model.documents import encode, parse
from whimbrel.plan.rollout_states import NEXT, Event, State
from whimbrel.plan.schedule import frozen_until
from whimbrel.policy.bucket import bucket

_EVENTS = {
    "slice_back": Event.SLICE_BACK,
    "roll_back": Event.ROLL_BACK,
    "advance": Event.ADVANCE,
    "finish": Event.FINISH,
    "hold": Event.HOLD,
    "wait": None,
}
Ledgers = dict[str, Ledger]  # by rollout: what was folded already; forgetting one costs time, never a verdict


def verdict_for(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    """What the gate says of a rollout at `now`."""
    window = rollout.window_at(now)
    return _judged(registry, fleet, rollout, situation(registry, fleet, rollout, now=now), window=window, ledgers={})


def situation(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> GateInput:
    """What the gate looks at, but for the windows."""
    counts = fleet.counts(rollout.id, without=rollout.without)
    return GateInput(
        stage=rollout.stage,
        soaked_s=now - rollout.stage_since,
        counts=counts,
        hour_s=rollout.hour_s,
        cohort=_cohort(fleet, rollout, counts, salt=registry.model(rollout.model).salt),
        shares=rollout.shares,
        without=rollout.without,
        users_heard=(fleet.user_reports_heard_at(rollout.model) or 0.0) >= rollout.created_at,
    )


def _judged(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    seen: GateInput,
    *,
    window: int,
    ledgers: Ledgers,
) -> Verdict:
    ledger = ledgers.get(rollout.id)
    if ledger is None or ledger.without != frozenset(seen.without) or ledger.last >= window:
        ledger = Ledger(rollout.plan, without=seen.without, references=references_of(registry, rollout))
    cells = fleet.cells(rollout.id, before_window=window, from_window=ledger.last + 1)
    verdict = judge(rollout.plan, msgspec.structs.replace(seen, cells=cells), ledger)
    ledgers[rollout.id] = ledger
    return verdict


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """A stored verdict, and whether the stored windows gave it again, byte for byte."""

    at: float
    window: int
    move: str
    because: str
    sha256: str
    same: bool


def replay(registry: RegistryPort, fleet: FleetPort, identifier: str) -> list[Replayed]:
    """Ask the gate again about every verdict of a rollout, from the stored windows alone."""
    return [
        Replayed(
            at=kept.at,
            window=kept.window,
            move=kept.move,
            because=kept.because,
            sha256=kept.sha256,
            same=_digest(again) == kept.sha256,
        )
        for kept, again in asked_again(registry, fleet, identifier)
    ]


def asked_again(registry: RegistryPort, fleet: FleetPort, identifier: str) -> Iterator[tuple[VerdictRecord, Verdict]]:
    """Every stored verdict of a rollout, oldest first, with what the gate says again."""
    rollout, ledgers = registry.rollout(identifier), Ledgers()
    for kept in registry.verdicts(identifier):
        seen = parse(GateInput, kept.situation, what="a stored situation")
        yield kept, _judged(registry, fleet, rollout, seen, window=kept.window, ledgers=ledgers)


def _digest(verdict: Verdict) -> str:
    return hashlib.sha256(encode(verdict)).hexdigest()


def advance(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    *,
    now: float,
    ledgers: Ledgers | None = None,
) -> Verdict:
    """Ask the gate and do what it says. Returns the verdict. `ledgers`: kept between the windows of a rollout."""
    seen, window = situation(registry, fleet, rollout, now=now), rollout.window_at(now)
    verdict = _judged(registry, fleet, rollout, seen, window=window, ledgers={} if ledgers is None else ledgers)
    registry.write_verdict(
        VerdictRecord(
            rollout=rollout.id,
            at=now,
            window=window,
            situation=encode(seen),
            move=verdict.move,
            because=verdict.because,
            sha256=_digest(verdict),
        )
    )
    verdict, event = _held_back(registry, fleet, rollout, verdict, now=now)
    # One that a person paused goes back, and nowhere else; so does one whose signed policy is not out yet.
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
    """The verdict and what it does, or what keeps a rollout that may go on from doing so."""
    if verdict.move not in {"advance", "finish"}:
        return verdict, _EVENTS[verdict.move]

    def held(because: str, event: Event = Event.HOLD) -> tuple[Verdict, Event]:
        return Verdict("hold", f"{verdict.because}; {because}", verdict.evidence), event

    plan = rollout.plan
    if verdict.move == "finish" and not plan.reaches_everyone:
        return held("the plan ends before it reaches every device, so a person decides: finish or abort it")
    if verdict.move == "advance":
        if refused := next_over_the_cap(registry, fleet, rollout):
            return held(refused)
        if missing := approvals_missing(registry, rollout):
            name = plan.stages[rollout.stage + 1].name
            return held(f"stage {name} begins when {people_words(missing)} approved", Event.AWAIT_APPROVAL)
    if (until := frozen_until(plan.freeze, now)) is not None:
        waits = rollout.state is State.WAITING_FOR_APPROVAL
        return held(f"a freeze holds until {time_words(until)}", Event.AWAIT_APPROVAL if waits else Event.HOLD)
    return verdict, _EVENTS[verdict.move]


def _cohort(fleet: FleetPort, rollout: RolloutRecord, counts: Mapping[int, Counts], *, salt: int) -> int:
    stage = rollout.stage
    if rollout.plan.stages[stage].shadow is not None:
        return stage  # what was seen in the shadow of others speaks for nobody
    while stage > rollout.plan.shadows and not counts.get(stage, Counts()).assigned_t:
        places = ((bucket(key, salt=salt), labels) for key, labels in fleet.keys_and_labels())
        if any(stage_of(rollout.plan, rollout.shares, place, labels) == stage for place, labels in places):
            break  # somebody will report
        stage -= 1
    return stage
