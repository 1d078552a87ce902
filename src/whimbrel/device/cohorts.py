"""Which cohorts is this device counted in, and since when? Pure changes of the journal, in any state.

1. A device says once that it was assigned, before it acts.
2. A treated device is counted from its activation, a control from its placebo, by the device's own clock.
3. A placebo takes as long as an update: the same conditions, and then a delay drawn from the treated devices' own.
   Where the policy tells that delay late, the placebo is dated back to when it was due.
4. A cohort that the decision no longer names is forgotten: no window tells of it.
5. What the device was like before is noted when it is assigned, and never again: the rest may be the arm's doing.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import xxhash

from whimbrel import limits
from whimbrel.device.journal import Journal, Membership
from whimbrel.device.slots import Pointer
from whimbrel.health.report import Announcement, Cohort, Role, Step
from whimbrel.policy.decide import Assignment, Decision
from whimbrel.policy.delays import delay_at

_replace = msgspec.structs.replace


def assigned(
    journal: Journal,
    assignments: Iterable[Assignment],
    *,
    serial: int | None,
    at: float,
    before: Mapping[str, float] | None = None,
) -> Journal:
    """The journal with exactly these memberships; new ones are announced. `before`: the metrics' means until now."""
    earlier = {(each.rollout, each.stage, each.role): each for each in journal.memberships}
    memberships: list[Membership] = []
    announcements: list[Announcement] = []
    for assignment in list(assignments)[: limits.STAGES]:
        membership = earlier.get((assignment.rollout, assignment.stage, assignment.role))
        if membership is None:
            known_before = {name: before[name] for name in assignment.before if name in before} if before else {}
            membership = Membership(
                rollout=assignment.rollout,
                stage=assignment.stage,
                role=assignment.role,
                assigned_at=at,
                before=known_before,
                serial=serial,
            )
            announcements.append(_tell(journal, membership, "assigned", serial))
        memberships.append(membership)
    if tuple(memberships) == journal.memberships:
        return journal
    return _replace(journal, memberships=tuple(memberships), outbox=(*journal.outbox, *announcements)[-limits.OUTBOX :])


def entered(journal: Journal, pointer: Pointer, decision: Decision) -> list[Assignment]:
    """The decision's cohorts that this device is in: a treated device only from when there is something to try."""
    candidate = journal.candidate
    here = {pointer.serial, candidate.serial if candidate else None}
    tried = tried_serial(decision)
    entered_before = {(membership.rollout, membership.stage) for membership in journal.memberships}
    return [
        assignment
        for assignment in decision.assignments
        if assignment.role == "control" or tried in here or (assignment.rollout, assignment.stage) in entered_before
    ]


def tried_serial(decision: Decision) -> int | None:
    """The serial that a cohort is about: what is tried in the shadow, else what is to run."""
    return decision.beside.serial if decision.beside is not None else decision.serial


def joined(journal: Journal, *, rollout: str | None, stage: int, role: Role, at: float) -> Journal:
    """The journal with the device counted from `at` on in this cohort; nothing, where it is counted already."""
    return _replace(
        journal,
        memberships=tuple(
            _replace(membership, since=at)
            if (membership.rollout, membership.stage, membership.role, membership.since) == (rollout, stage, role, None)
            else membership
            for membership in journal.memberships
        ),
    )


def permitted(journal: Journal, membership: Membership, *, at: float) -> Journal:
    """The journal of a control that could begin at `at`, were it treated; unchanged, where it could before."""
    return _replace(
        journal,
        memberships=tuple(
            _replace(each, permitted_at=at)
            if each == membership and (each.permitted_at is None or at < each.permitted_at)
            else each
            for each in journal.memberships
        ),
    )


def placebo_wait(membership: Membership, delays_s: Sequence[float], *, model: str, device_id: str) -> float:
    """Seconds after `permitted_at` at which this control takes its placebo: the same however often it is asked."""
    occasion = f"{device_id}\n{model}/{membership.rollout}/{membership.stage}\nplacebo"
    return delay_at(delays_s, xxhash.xxh64_intdigest(occasion.encode(), seed=0) / 2**64)


def stand_in(journal: Journal, membership: Membership, *, serial: int | None, at: float) -> Journal:
    """A control takes its placebo; a treated device that runs the version already is counted from now on."""
    name: Step = "placebo" if membership.role == "control" else "activated"
    after = joined(journal, rollout=membership.rollout, stage=membership.stage, role=membership.role, at=at)
    return _replace(after, outbox=(*after.outbox, _tell(journal, membership, name, serial))[-limits.OUTBOX :])


def cohorts(journal: Journal, *, now: float) -> tuple[Cohort, ...]:
    """What a window says: the cohorts this device is counted in, and for how long."""
    return tuple(
        Cohort(
            rollout=membership.rollout,
            stage=membership.stage,
            role=membership.role,
            age_s=min(1e10, max(0.0, now - since)),
            before=membership.before,
        )
        for membership in journal.memberships
        if (since := membership.since) is not None
    )


def _tell(journal: Journal, membership: Membership, name: Step, serial: int | None) -> Announcement:
    return Announcement(
        model=journal.model,
        step=name,
        serial=serial,
        rollout=membership.rollout,
        stage=membership.stage,
        role=membership.role,
    )
