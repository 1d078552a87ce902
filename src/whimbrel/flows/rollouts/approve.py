"""Who agrees that a rollout begins, or that its next stage does? People, each of whom counts once.

1. A draft waits for the first stage's approvals, or for one. A stage that asks for approvals is waited for when the
   gate would let the one before it go on.
2. Whoever started the rollout is none of those whom a stage asks for: they are other people.
3. An approval holds for the evidence that it was given on: a doubt in between, and everybody is asked again.
4. A person who rejects a draft ends it; one who rejects a stage pauses the rollout where it is.
"""

from typing import Literal

import msgspec

from whimbrel.errors import Refused
from whimbrel.flows.accounts.second_person import check_other_person
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import ApprovalRecord, RolloutRecord
from whimbrel.flows.rollouts.approvals import (
    approvals_missing,
    approvals_wanted,
    approved_by,
    needs_another_person,
    stage_to_approve,
)
from whimbrel.flows.rollouts.move import move
from whimbrel.flows.rollouts.rollout_set import lead_of
from whimbrel.flows.rollouts.shares import next_over_the_cap
from whimbrel.flows.rollouts.start import begin_or_wait
from whimbrel.plan.rollout_states import Event, State, transition
from whimbrel.plan.schedule import frozen_until

Consent = Literal["approve", "reject"]


def approve(
    registry: RegistryPort, fleet: FleetPort, identifier: str, *, by: str, note: str, now: float
) -> RolloutRecord:
    """One person agrees; the last one that is needed sets it going.

    `by`: the account that signed in. Raises `Refused` for one who agreed before, or who started it.
    """
    lead = lead_of(registry, registry.rollout(identifier))
    registry.model(lead.model, lock=True)  # two at once: the second sees the first
    rollout = registry.rollout(lead.id)
    transition(rollout.state, Event.APPROVE)
    stage = stage_to_approve(rollout)
    if needs_another_person(rollout, stage=stage):
        check_other_person(rollout.started_by, by, what=f"stage {rollout.plan.stages[stage].name}")
    before = approved_by(registry, rollout, stage=stage)
    if by in before:
        raise Refused(
            f"{by} approved it already; {approvals_missing(registry, rollout)} more must, and each person counts once"
        )
    registry.add_approval(ApprovalRecord(rollout=rollout.id, stage=stage, by=by, note=note, at=now))
    wanted = approvals_wanted(rollout.plan, stage=stage)
    because = f"{len(before) + 1} of {wanted}, for stage {rollout.plan.stages[stage].name}{f': {note}' if note else ''}"
    audit(registry, rollout, actor=by, action=Event.APPROVE.value, because=because, now=now, evidence={"stage": stage})
    return go_on(registry, fleet, rollout, actor=by, now=now) or rollout


def go_on(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, actor: str, now: float
) -> RolloutRecord | None:
    """Begin, or enter the next stage, where all have agreed and no freeze holds; None where it still waits."""
    if approvals_missing(registry, rollout):
        return None
    if rollout.state is State.DRAFT:
        if not rollout.started_by:  # a machine wrote it down: who sets it going is who starts it
            rollout = msgspec.structs.replace(rollout, started_by=actor)
        return begin_or_wait(registry, fleet, rollout, actor=actor, now=now)
    if rollout.state is not State.WAITING_FOR_APPROVAL or frozen_until(rollout.plan.freeze, now) is not None:
        return None
    if next_over_the_cap(registry, fleet, rollout):
        return None  # the gate's next verdict says so, and holds
    names = ", ".join(sorted(approved_by(registry, rollout, stage=rollout.stage + 1)))
    because = f"approved by {names}"
    return move(registry, fleet, rollout, Event.ADVANCE, because=because, actor=actor, evidence={}, now=now)


def reject(
    registry: RegistryPort, fleet: FleetPort, identifier: str, *, by: str, note: str, now: float
) -> RolloutRecord:
    """A person says no: a draft ends, a rollout that waits is paused. Raises `IllegalTransition` otherwise."""
    rollout = lead_of(registry, registry.rollout(identifier))
    because = f"rejected by {by}{f': {note}' if note else ''}"
    return move(registry, fleet, rollout, Event.REJECT, because=because, actor=by, evidence={}, now=now)
