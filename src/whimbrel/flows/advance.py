"""The gate is asked, and a rollout moves, holds or goes back. (Steps 16 and 17.)

1. Only closed windows are judged. Every move is one transaction: the rollout's row, its consequences (quarantine,
   baseline), and the audit entry with its evidence. The policy follows from the rows.
2. A person's move goes the same way, with the person as the actor.
3. A stage in which none of a small fleet falls is judged by the devices of the stage before it.
4. A paused rollout is still judged: harm takes it back, nothing else moves it.
5. A plan that ends below 100%, or among some devices only, makes nothing everybody's baseline: it holds at its end.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import AuditRecord, QuarantineRecord, RolloutRecord
from whimbrel.flows.start import share_for
from whimbrel.rollout.bucket import BUCKETS, bucket
from whimbrel.rollout.gate import Counts, Situation, Verdict, judge
from whimbrel.rollout.states import Event, State, transition

PersonMove = Literal["pause", "resume", "finish", "abort", "rollback"]

_PERSON = {
    "pause": Event.PAUSE,
    "resume": Event.RESUME,
    "finish": Event.FINISH,
    "abort": Event.ABORT,
    "rollback": Event.ROLL_BACK,
}


def verdict_for(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    """What the gate says of a rollout at `now`."""
    counts = fleet.counts(rollout.id)
    return judge(
        rollout.plan,
        Situation(
            stage=rollout.stage,
            soaked_s=now - rollout.stage_since,
            cells=fleet.cells(rollout.id, before_window=rollout.window_at(now)),
            counts=counts,
            hour_s=rollout.hour_s,
            cohort=_cohort(fleet, rollout, counts, salt=registry.model(rollout.model).salt),
        ),
    )


def advance(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> Verdict:
    """Ask the gate and do what it says. Returns the verdict."""
    verdict = verdict_for(registry, fleet, rollout, now=now)
    if verdict.move == "finish" and not rollout.plan.reaches_everyone:
        verdict = Verdict(
            "hold",
            f"{verdict.because}; the plan ends before it reaches every device, so a person decides: finish or abort it",
            verdict.evidence,
        )
    event = {
        "roll_back": Event.ROLL_BACK,
        "advance": Event.ADVANCE,
        "finish": Event.FINISH,
        "hold": Event.HOLD,
        "wait": None,
    }[verdict.move]
    if rollout.state is State.PAUSED and event is not Event.ROLL_BACK:
        return verdict
    if event is Event.HOLD and rollout.state is State.HOLDING:
        if verdict.because != rollout.because:
            registry.save_rollout(msgspec.structs.replace(rollout, because=verdict.because), before=rollout)
        return verdict
    if event is not None:
        _move(
            registry, fleet, rollout, event, because=verdict.because, actor="gate", evidence=verdict.evidence, now=now
        )
    return verdict


def _cohort(fleet: FleetPort, rollout: RolloutRecord, counts: Mapping[int, Counts], *, salt: int) -> int:
    stage = rollout.stage
    while stage > 0 and not counts.get(stage, Counts()).assigned_t:
        places = ((bucket(key, salt=salt), labels) for key, labels in fleet.keys_and_labels())
        if any(_treated_in(rollout, place, labels) == stage for place, labels in places):
            break  # somebody will report
        stage -= 1
    return stage


def _treated_in(rollout: RolloutRecord, place: int, labels: Mapping[str, str]) -> int | None:
    for stage, share in enumerate(rollout.shares):
        if place < share and rollout.plan.stages[stage].selector.matches(labels):
            return stage
    return None


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
) -> RolloutRecord:
    after = msgspec.structs.replace(rollout, state=transition(rollout.state, event), because=because)
    if event is Event.ADVANCE:
        stage = rollout.stage + 1
        salt = registry.model(rollout.model).salt
        share = max(rollout.shares[-1], share_for(fleet, rollout.plan, stage=stage, salt=salt))
        after = msgspec.structs.replace(after, stage=stage, stage_since=now, shares=(*rollout.shares, share))
    if not after.live:
        after = msgspec.structs.replace(after, ended_at=now)
    registry.save_rollout(after, before=rollout)
    if event is Event.FINISH:
        registry.change_model(rollout.model, baseline=rollout.target)
        registry.change_version(rollout.model, rollout.target, good=True)
        registry.set_alias(rollout.model, "champion", rollout.target)
    if event is Event.ROLL_BACK:
        registry.quarantine(
            QuarantineRecord(
                namespace=registry.namespace, model=rollout.model, serial=rollout.target, at=now, because=because
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
            evidence={"stage": after.stage, "share": after.shares[-1] / BUCKETS, **evidence},
        )
    )
    return after
