"""What should a model do about a decision? `intend(journal, pointer, decision, policy, line, ...) -> Intent`: pure.

The first answer that holds, in this order:
1. What is under way goes on while the decision names it, perhaps in another cohort; else it is withdrawn.
2. A model that is going back does only that.
3. Where no version is allowed the model leaves the active one, if the policy says so: for good, where the line
   forbids it, and else for a bounded time (stopping.py). Then it goes on with what it left.
4. Where the active version is the decided one, another may be tried beside it.
5. A trial that goes on is not disturbed: a newer version would cost the fallback while the active one is unproven.
6. What the other slot holds is here at once: the model goes back to it where it is decided, and where the active
   version may run no longer.
7. Else the decided version is offered; one that failed here only where a newer policy overrides that.

The shell (`agent/installation.py`) turns an intent into events; what needs a release is asked with `offered` and
`missing_member`.
"""

from collections.abc import Iterable, Mapping

import msgspec

from whimbrel import limits
from whimbrel.device import events
from whimbrel.device.journal import Candidate, Journal, Refusal
from whimbrel.device.shadowing import Shadowing, shadowing_of
from whimbrel.device.slots import Pointer, SlotName
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.device.stopping import LASTED, began, is_honoured
from whimbrel.model.release import Line, Release, Requirement, Variant
from whimbrel.policy.decide import Assignment, Beside, Decision, Profile, objection
from whimbrel.policy.policy import Policy


class Rest(msgspec.Struct, frozen=True):
    """Nothing is to be done."""


class Stay(msgspec.Struct, frozen=True):
    """The model stays as it is, and this is what it waits for."""

    because: str


class Withdraw(msgspec.Struct, frozen=True):
    """What is under way is given up. `ask_again`: there may be something else to do in the same pass."""

    ask_again: bool


class Follow(msgspec.Struct, frozen=True):
    """The same version, in the cohort that the decision names now. `ends_shadow`: it is to run, and was only tried."""

    rollout: str | None
    stage: int
    shadow: Shadowing | None = None
    ends_shadow: bool = False


class Recall(msgspec.Struct, frozen=True):
    """Go back to what the other slot holds (`to`), or to no version (None)."""

    to: int | None
    leaves: int | None
    because: str
    stopped_at: float | None = None


class Offer(msgspec.Struct, frozen=True):
    """Take `serial`, in this cohort, or (`beside`) only try it. `despite`: why it was refused here before."""

    serial: int
    rollout: str | None = None
    stage: int = 0
    despite: str = ""
    beside: Beside | None = None


Intent = Rest | Stay | Withdraw | Follow | Recall | Offer


def intend(
    journal: Journal,
    pointer: Pointer,
    decision: Decision,
    policy: Policy,
    line: Line,
    *,
    profile: Profile,
    now: float,
    prepare: bool,
    trusted_now: float | None = None,
) -> Intent:
    """The intent of a model whose decision is `decision`. `prepare` False: only what concerns the active slot.

    `trusted_now`: the time that signed documents prove, where it is later than the clock's `now`.
    """
    wanted, active, candidate = decision.serial, pointer.serial, journal.candidate
    beside = decision.beside if wanted is not None and wanted == active else None
    if journal.state in PREPARING and candidate is not None:
        if candidate.serial != (beside.serial if beside is not None else wanted):
            return Withdraw(ask_again=True)
        return _follow(journal.state, candidate, decision, policy)
    if journal.state is State.GOING_BACK:
        return Rest()
    if wanted is None:
        return _without_version(journal, pointer, decision, line, now=now if trusted_now is None else trusted_now)
    if wanted == active:
        if beside is None or not prepare or journal.state not in RESTING:
            return Rest()
        return _offer(journal, policy, beside.serial, counted=beside, beside=beside)
    return _change(journal, pointer, decision, policy, line, wanted=wanted, profile=profile, now=now, prepare=prepare)


def _without_version(journal: Journal, pointer: Pointer, decision: Decision, line: Line, *, now: float) -> Intent:
    """The policy names no version that may run here."""
    active, stopped = pointer.serial, pointer.stopped
    holds = decision.offer == "stop" and is_honoured(journal.stopped_at, now=now)
    if active is not None:
        if decision.offer == "stop" and not line.allows(active):
            return Recall(to=None, leaves=active, because=decision.because)
        if holds:
            at = began(journal.stopped_at, now=now)
            return Recall(to=None, leaves=active, because=decision.because, stopped_at=at)
        return Stay(f"a line that forbids serial {active}: {LASTED}") if decision.offer == "stop" else Rest()
    if stopped is None or holds or not line.allows(stopped.serial) or _refusal_of(journal, stopped.serial) is not None:
        return Rest()
    because = LASTED if decision.offer == "stop" else "the policy stops nothing any more"
    return Recall(to=stopped.serial, leaves=None, because=because)


def _follow(state: State, candidate: Candidate, decision: Decision, policy: Policy) -> Withdraw | Follow:
    beside = decision.beside if candidate.serial != decision.serial else None
    if beside is not None:
        if candidate.shadow is None:
            return Withdraw(ask_again=False)  # it was to be run, and is only to be tried now
        shadow = msgspec.structs.replace(candidate.shadow, how=beside.shadow)
        return Follow(rollout=beside.rollout, stage=beside.stage, shadow=shadow)
    treated = treated_in(decision, policy)
    return Follow(
        rollout=treated.rollout if treated else None,
        stage=treated.stage if treated else 0,
        ends_shadow=state is State.SHADOWING,
    )


def _change(
    journal: Journal,
    pointer: Pointer,
    decision: Decision,
    policy: Policy,
    line: Line,
    *,
    wanted: int,
    profile: Profile,
    now: float,
    prepare: bool,
) -> Intent:
    """Another version than the active one is decided, and nothing is under way but perhaps a trial."""
    active, fallback = pointer.serial, pointer.fallback
    treated = treated_in(decision, policy)
    on_trial = journal.state is State.ON_TRIAL
    is_fallback = fallback is not None and fallback.serial == wanted and treated is None
    may_run = active is not None and objection(policy, line, profile, active) is None
    if on_trial and not is_fallback and may_run and _is_young(journal.candidate, now):
        return Stay(f"the end of the trial of serial {active}")
    stopped = pointer.stopped
    if active is None and stopped is not None and stopped.serial == wanted and treated is None:
        return Recall(to=wanted, leaves=None, because=decision.because)
    if fallback is not None:
        ends_trial = on_trial and line.allows(fallback.serial)
        is_better = active is not None and not may_run and objection(policy, line, profile, fallback.serial) is None
        if is_fallback or ends_trial or is_better:
            return Recall(to=fallback.serial, leaves=active, because=decision.because)
    return _offer(journal, policy, wanted, counted=treated) if prepare else Rest()


def _is_young(candidate: Candidate | None, now: float) -> bool:
    return candidate is not None and now - candidate.offered_at <= limits.TRIAL_MOST_S


def _offer(
    journal: Journal,
    policy: Policy,
    serial: int,
    *,
    counted: Beside | Assignment | None,
    beside: Beside | None = None,
) -> Stay | Offer:
    refusal = _refusal_of(journal, serial)
    if refusal is not None and policy.sequence <= refusal.policy_sequence:
        return Stay(f"a new policy: serial {serial} failed here again ({refusal.reason})")
    return Offer(
        serial=serial,
        rollout=counted.rollout if counted else None,
        stage=counted.stage if counted else 0,
        despite=refusal.reason if refusal else "",
        beside=beside,
    )


def _refusal_of(journal: Journal, serial: int) -> Refusal | None:
    return next((refusal for refusal in journal.refused if refusal.serial == serial), None)


def treated_in(decision: Decision, policy: Policy) -> Assignment | None:
    """The cohort that a decided version is tried in: None for a control, and for a device that fell back."""
    for assignment in decision.assignments:
        if assignment.role != "treated":
            continue
        for entry in (entry for layer in policy.layers for entry in layer.entries):
            if entry.rollout == assignment.rollout and any(
                (arm.role, arm.stage, arm.serial) == ("treated", assignment.stage, decision.serial)
                for arm in entry.arms
            ):
                return assignment
    return None


def offered(
    offer: Offer, release: Release, variant: Variant, *, slot: SlotName, policy_sequence: int, at: float
) -> events.Offered:
    """The event that follows from an offer, when the build for this device is known."""
    return events.Offered(
        serial=offer.serial,
        version=release.version,
        slot=slot,
        files=variant.files,
        policy_sequence=policy_sequence,
        at=at,
        rollout=offer.rollout,
        stage=offer.stage,
        despite=offer.despite,
        shadow=shadowing_of(offer.beside.shadow, variant) if offer.beside is not None else None,
        variant=variant.name,
    )


def is_wanted(candidate: Candidate, decision: Decision | None) -> bool:
    """Whether a version that is ready is still the one to activate."""
    return decision is not None and decision.serial == candidate.serial


def is_tried(candidate: Candidate, pointer: Pointer, decision: Decision | None) -> bool:
    """Whether a version that is ready is still the one to try beside the active one."""
    beside = decision.beside if decision is not None and decision.serial == pointer.serial else None
    return beside is not None and beside.serial == candidate.serial


# --- a set: models that change together ---


class MemberVersions(msgspec.Struct, frozen=True):
    """Another model of this device: the serial that it runs, and the one that it is on its way to."""

    active: int | None
    destination: int | None


def destination(journal: Journal, decision: Decision | None) -> int | None:
    """The serial that a model is on its way to, or will be."""
    candidate = journal.candidate
    if journal.state in PREPARING and candidate is not None:
        return candidate.serial
    if decision is None or decision.serial is None:
        return None
    refusal = _refusal_of(journal, decision.serial)
    return None if refusal is not None and refusal.overridden_by is None else decision.serial


def change_to(journal: Journal, active: int | None, decision: Decision | None, policy: Policy | None) -> int | None:
    """The serial that a model is decided to change to; None where it stays, also as that failed here again."""
    if decision is None or decision.serial is None or decision.serial == active:
        return None
    refusal = _refusal_of(journal, decision.serial)
    stays = refusal is not None and (policy is None or policy.sequence <= refusal.policy_sequence)
    return None if stays else decision.serial


def missing_member(release: Release, members: Mapping[str, MemberVersions]) -> Stay | None:
    """Why a version that requires others cannot be taken yet: one of them neither runs nor comes."""
    for required in release.requires:
        member = members.get(required.model)
        if member is None or required.serial not in {member.active, member.destination}:
            return Stay(f"{required.model} at serial {required.serial}, which serial {release.serial} requires")
    return None


def unmet(requires: Iterable[Requirement], active: Mapping[str, int | None]) -> tuple[Requirement, ...]:
    """What a running version requires of models that this device has, and that run something else."""
    return tuple(each for each in requires if each.model in active and active[each.model] != each.serial)


def leave_with_set(pointer: Pointer, left: Requirement) -> Recall:
    """Go back as well: `left` says which version another model of the set does not run any more."""
    return Recall(
        to=pointer.fallback.serial if pointer.fallback else None,
        leaves=pointer.serial,
        because=f"{left.model} left serial {left.serial}, which serial {pointer.serial} requires",
    )
