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
    earlier = {(member.rollout, member.stage, member.role): member for member in journal.memberships}
    members: list[Membership] = []
    announcements: list[Announcement] = []
    for assignment in list(assignments)[: limits.STAGES]:
        member = earlier.get((assignment.rollout, assignment.stage, assignment.role))
        if member is None:
            known_before = {name: before[name] for name in assignment.before if name in before} if before else {}
            member = Membership(
                rollout=assignment.rollout,
                stage=assignment.stage,
                role=assignment.role,
                assigned_at=at,
                before=known_before,
            )
            announcements.append(_tell(journal, member, "assigned", serial))
        members.append(member)
    if tuple(members) == journal.memberships:
        return journal
    return _replace(journal, memberships=tuple(members), outbox=(*journal.outbox, *announcements)[-limits.OUTBOX :])


def entered(journal: Journal, pointer: Pointer, decision: Decision) -> list[Assignment]:
    """The decision's cohorts that this device is in: a treated device only from when there is something to try."""
    candidate = journal.candidate
    here = {pointer.serial, candidate.serial if candidate else None}
    tried = tried_serial(decision)
    members = {(member.rollout, member.stage) for member in journal.memberships}
    return [
        assignment
        for assignment in decision.assignments
        if assignment.role == "control" or tried in here or (assignment.rollout, assignment.stage) in members
    ]


def tried_serial(decision: Decision) -> int | None:
    """The serial that a cohort is about: what is tried in the shadow, else what is to run."""
    return decision.beside.serial if decision.beside is not None else decision.serial


def joined(journal: Journal, *, rollout: str | None, stage: int, role: Role, at: float) -> Journal:
    """The journal with the device counted from `at` on in this cohort; nothing, where it is counted already."""
    return _replace(
        journal,
        memberships=tuple(
            _replace(member, since=at)
            if (member.rollout, member.stage, member.role, member.since) == (rollout, stage, role, None)
            else member
            for member in journal.memberships
        ),
    )


def permitted(journal: Journal, member: Membership, *, at: float) -> Journal:
    """The journal of a control that could begin at `at`, were it treated; nothing, where it could before."""
    return _replace(
        journal,
        memberships=tuple(
            _replace(each, permitted_at=at) if each == member and each.permitted_at is None else each
            for each in journal.memberships
        ),
    )


def placebo_wait(member: Membership, delays_s: Sequence[float], *, model: str, device_id: str) -> float:
    """Seconds after `permitted_at` at which this control takes its placebo: the same however often it is asked."""
    occasion = f"{device_id}\n{model}/{member.rollout}/{member.stage}\nplacebo"
    return delay_at(delays_s, xxhash.xxh64_intdigest(occasion.encode(), seed=0) / 2**64)


def stand_in(journal: Journal, member: Membership, *, serial: int | None, at: float) -> Journal:
    """A control takes its placebo; a treated device that runs the version already is counted from now on."""
    name: Step = "placebo" if member.role == "control" else "activated"
    after = joined(journal, rollout=member.rollout, stage=member.stage, role=member.role, at=at)
    return _replace(after, outbox=(*after.outbox, _tell(journal, member, name, serial))[-limits.OUTBOX :])


def cohorts(journal: Journal, *, now: float) -> tuple[Cohort, ...]:
    """What a window says: the cohorts this device is counted in, and for how long."""
    return tuple(
        Cohort(
            rollout=member.rollout,
            stage=member.stage,
            role=member.role,
            age_s=min(1e10, max(0.0, now - since)),
            before=member.before,
        )
        for member in journal.memberships
        if (since := member.since) is not None
    )


def _tell(journal: Journal, member: Membership, name: Step, serial: int | None) -> Announcement:
    return Announcement(
        model=journal.model, step=name, serial=serial, rollout=member.rollout, stage=member.stage, role=member.role
    )
