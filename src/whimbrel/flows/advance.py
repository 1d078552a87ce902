"""The gate is asked, and a rollout moves, holds or goes back. (Steps 16 and 17.)

1. Only closed windows are judged. Every move is one transaction: the rollout's row, its consequences (quarantine,
   baseline), and the audit entry with its evidence. The policy follows from the rows.
2. A person's move goes the same way, with the person as the actor.
3. A verdict is kept with what it looked at: the same windows must give it again, byte for byte (`replay`).
4. A stage in which none of a small fleet falls is judged by the devices of the stage before it.
5. A paused rollout is still judged: harm takes it back, or a slice of it; nothing else moves it.
6. What went back is quarantined, the fleet's or the slice's: it is never tried again by itself.
7. A plan that ends below 100%, or among some devices only, makes nothing everybody's baseline: it holds at its end.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from whimbrel.flows.drift import references_of
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import AuditRecord, QuarantineRecord, RolloutRecord, VerdictRecord
from whimbrel.flows.shares import share_for, stage_of
from whimbrel.health.slices import slice_of
from whimbrel.model.documents import encode, parse
from whimbrel.model.selector import EVERYONE, Expression, Selector
from whimbrel.rollout.bucket import BUCKETS, bucket
from whimbrel.rollout.gate import Counts, Situation, Verdict, judge
from whimbrel.rollout.ledger import Ledger
from whimbrel.rollout.states import Event, State, transition

PersonMove = Literal["pause", "resume", "finish", "abort", "rollback"]

_PERSON = {
    "pause": Event.PAUSE,
    "resume": Event.RESUME,
    "finish": Event.FINISH,
    "abort": Event.ABORT,
    "rollback": Event.ROLL_BACK,
}


Ledgers = dict[str, Ledger]  # by rollout: what was folded already; forgetting one costs time, never a verdict


def verdict_for(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    """What the gate says of a rollout at `now`."""
    window = rollout.window_at(now)
    return _judged(registry, fleet, rollout, situation(registry, fleet, rollout, now=now), window=window, ledgers={})


def situation(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Situation:
    """What the gate looks at, but for the windows."""
    counts = fleet.counts(rollout.id, without=rollout.without)
    return Situation(
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
    seen: Situation,
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
        seen = parse(Situation, kept.situation, what="a stored situation")
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
    if verdict.move == "finish" and not rollout.plan.reaches_everyone:
        verdict = Verdict(
            "hold",
            f"{verdict.because}; the plan ends before it reaches every device, so a person decides: finish or abort it",
            verdict.evidence,
        )
    event = {
        "slice_back": Event.SLICE_BACK,
        "roll_back": Event.ROLL_BACK,
        "advance": Event.ADVANCE,
        "finish": Event.FINISH,
        "hold": Event.HOLD,
        "wait": None,
    }[verdict.move]
    if rollout.state is State.PAUSED and event not in {Event.ROLL_BACK, Event.SLICE_BACK}:
        return verdict
    if event is Event.HOLD and rollout.state is State.HOLDING:
        if verdict.because != rollout.because:
            registry.save_rollout(msgspec.structs.replace(rollout, because=verdict.because), before=rollout)
        return verdict
    if event is not None:
        _move(
            registry, fleet, rollout, event, because=verdict.because, actor="gate", evidence=verdict.evidence,
            classes=verdict.classes, now=now,
        )  # fmt: skip
    return verdict


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


def move_by_person(
    registry: RegistryPort,
    fleet: FleetPort,
    identifier: str,
    move: PersonMove,
    *,
    because: str,
    actor: str,
    now: float,
) -> RolloutRecord:
    """Pause, resume, abort or roll back. Raises `IllegalTransition` where the rollout's state does not allow it."""
    rollout = registry.rollout(identifier)
    return _move(registry, fleet, rollout, _PERSON[move], because=because, actor=actor, evidence={}, now=now)


def _move(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    event: Event,
    *,
    because: str,
    actor: str,
    evidence: dict[str, object],
    now: float,
    classes: tuple[str, ...] = (),
) -> RolloutRecord:
    after = msgspec.structs.replace(rollout, state=transition(rollout.state, event), because=because)
    if event is Event.SLICE_BACK:
        after = msgspec.structs.replace(after, without=tuple(sorted({*rollout.without, *classes})))
    if event is Event.ADVANCE:
        stage = rollout.stage + 1
        salt = registry.model(rollout.model).salt
        share = share_for(fleet, rollout.plan, stage=stage, salt=salt, shares=rollout.shares)
        after = msgspec.structs.replace(after, stage=stage, stage_since=now, shares=(*rollout.shares, share))
    if not after.live:
        after = msgspec.structs.replace(after, ended_at=now)
    registry.save_rollout(after, before=rollout)
    if event is Event.FINISH:
        registry.change_model(rollout.model, baseline=rollout.target)
        registry.change_version(rollout.model, rollout.target, good=True)
        registry.set_alias(rollout.model, "champion", rollout.target)
    if event in {Event.ROLL_BACK, Event.SLICE_BACK}:
        hardware = registry.model(rollout.model).settings.hardware_label
        registry.quarantine(
            QuarantineRecord(
                namespace=registry.namespace,
                model=rollout.model,
                serial=rollout.target,
                at=now,
                because=because,
                selector=_selector(classes, hardware=hardware) if classes else EVERYONE,
            )
        )
    registry.write_audit(
        AuditRecord(
            namespace=registry.namespace,
            at=now,
            actor=actor,
            action=event.value,
            because=because,
            model=rollout.model,
            rollout=rollout.id,
            evidence={"stage": after.stage, "share": (after.shares[-1] - after.plan.range.start) / BUCKETS, **evidence},
        )
    )
    return after


def _selector(slices: tuple[str, ...], *, hardware: str) -> Selector:
    """The devices of some slices of one label."""
    named = [slice_of(each) for each in slices]
    return Selector(
        match_expressions=(
            Expression(key=named[0][0] or hardware, operator="In", values=tuple(value for _, value in named)),
        )
    )
