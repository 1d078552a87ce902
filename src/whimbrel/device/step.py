"""What does a device do when something happens? `step(journal, event) -> (journal, effects)`: pure.

The shell saves the journal before it performs the effects. After a restart it asks `effects_of` for what is still to be
done; the same answer as the step gave, so nothing else needs to be remembered.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.device import effects, events
from whimbrel.device.cohorts import joined
from whimbrel.device.journal import Candidate, GoingBack, Journal, Refusal
from whimbrel.device.slots import Held
from whimbrel.device.states import State, transition
from whimbrel.errors import InvariantBroken
from whimbrel.health.report import Announcement, Step, WayName

_replace = msgspec.structs.replace


def step(journal: Journal, event: events.Event) -> tuple[Journal, tuple[effects.Effect, ...]]:
    """The journal after `event`, to be saved, and then what to do. Raises `IllegalTransition`."""
    state = transition(journal.state, event)
    change = _CHANGES.get(type(event))
    after = _replace(change(journal, event) if change else journal, state=state)
    return after, effects_of(after)


def effects_of(journal: Journal) -> tuple[effects.Effect, ...]:
    """What a model in this state is about to do; empty at rest."""
    match journal.state:
        case State.IDLE | State.QUARANTINED:
            return ()
        case State.COMMITTED:
            return (effects.Commit(),)
        case State.GOING_BACK:
            return (effects.SwapBack(_going_back(journal)),)
    candidate = _candidate(journal)
    match journal.state:
        case State.OFFERED:
            return (effects.AwaitConditions(candidate),)
        case State.DOWNLOADING:
            return (effects.Fetch(candidate),)
        case State.VERIFYING:
            return (effects.Stage(candidate),)
        case State.STAGED:
            if candidate.probe_attempts >= limits.PROBE_ATTEMPTS:
                reason = f"the device stopped {candidate.probe_attempts} times while it probed this version"
                return (effects.Then(events.InstallFailed(reason)),)
            return (effects.Then(events.ProbeBegun()),)
        case State.PROBING:
            return (effects.RunProbe(candidate),)
        case State.READY:
            return (effects.Activate(candidate) if candidate.shadow is None else effects.BeginShadow(candidate),)
        case State.SHADOWING:
            return (_judge_shadow(candidate),)
        case State.ON_TRIAL:
            return (effects.PointTo(_held(candidate)), *_judge(candidate))
    raise InvariantBroken(f"nothing is known to be done in state {journal.state!r}")


def _judge(candidate: Candidate) -> tuple[effects.Effect, ...]:
    if candidate.failed_sessions >= limits.TRIAL_FAILED_SESSIONS:
        reason = f"{candidate.failed_sessions} sessions crashed or failed, after {candidate.healthy_sessions} healthy"
        return (effects.Then(events.TrialFailed(reason)),)
    if candidate.healthy_sessions >= limits.TRIAL_HEALTHY_SESSIONS:
        return (effects.Then(events.TrialPassed()),)
    return ()


def _judge_shadow(candidate: Candidate) -> effects.Effect:
    crashes = candidate.shadow.crashes if candidate.shadow is not None else 0
    if crashes >= limits.SHADOW_CRASHES:
        return effects.Then(events.ShadowFailed(f"it ended its process {crashes} times while it was only tried"))
    return effects.KeepShadow(candidate)


def say(journal: Journal, announcement: Announcement) -> Journal:
    """The journal with one more thing to tell; the oldest is dropped when too many wait."""
    return _replace(journal, outbox=(*journal.outbox, announcement)[-limits.OUTBOX :])


def announcement_of(journal: Journal, name: Step, *, reason: str = "", serial: int | None = None) -> Announcement:
    """What to tell of the candidate, in the cohort it is treated in (or in none)."""
    candidate = journal.candidate
    if candidate is None:
        return Announcement(model=journal.model, step=name, serial=serial, reason=reason[: limits.REASON_CHARS])
    return Announcement(
        model=journal.model,
        step=name,
        serial=serial if serial is not None else candidate.serial,
        rollout=candidate.rollout,
        stage=candidate.stage,
        reason=reason[: limits.REASON_CHARS],
        bytes_moved=candidate.bytes_moved,
        moved_by=candidate.moved_by,
    )


def moved(candidate: Candidate, bytes_moved: int, moved_by: Mapping[WayName, int]) -> Candidate:
    """The candidate, with that many bytes more."""
    sums = dict(candidate.moved_by)
    for way, count in moved_by.items():
        sums[way] = sums.get(way, 0) + count
    return _replace(candidate, bytes_moved=candidate.bytes_moved + bytes_moved, moved_by=sums)


def _offered(journal: Journal, event: events.Offered) -> Journal:
    candidate = Candidate(
        serial=event.serial,
        version=event.version,
        slot=event.slot,
        files=event.files,
        policy_sequence=event.policy_sequence,
        offered_at=event.at,
        rollout=event.rollout,
        stage=event.stage,
        shadow=event.shadow,
        variant=event.variant,
    )
    after = _replace(journal, candidate=candidate)
    if not event.despite:
        return after
    refused = tuple(
        _replace(refusal, overridden_by=event.policy_sequence) if refusal.serial == event.serial else refusal
        for refusal in journal.refused
    )
    reason = f"policy {event.policy_sequence} overrides what was refused here: {event.despite}"
    return say(_replace(after, refused=refused), announcement_of(after, "assigned", reason=reason))


def _withdrawn(journal: Journal, _: events.Withdrawn) -> Journal:
    return _replace(journal, candidate=None)


def _begun(journal: Journal, _: events.Begun) -> Journal:
    if _candidate(journal).rollout is None:
        return journal  # no control waits for it
    return say(journal, announcement_of(journal, "begun"))


def _fetched(journal: Journal, event: events.Fetched) -> Journal:
    candidate = _candidate(journal)
    return _replace(journal, candidate=moved(candidate, event.bytes_moved, event.moved_by))


def _corrupt(journal: Journal, event: events.Corrupt) -> Journal:
    candidate = _candidate(journal)
    attempts = candidate.install_attempts + 1
    return _replace(
        journal,
        candidate=_replace(
            moved(candidate, event.bytes_moved, event.moved_by),
            install_attempts=attempts,
            again_at=event.at + wait_after_wrong_bytes_s(attempts),
            held=None,
        ),
    )


def wait_after_wrong_bytes_s(attempts: int) -> float:
    """How long a device waits after so many attempts whose bytes were wrong: the first is repeated at once."""
    if attempts <= 1:
        return 0.0
    return min(limits.WRONG_BYTES_FIRST_S * 2.0 ** min(attempts - 2, 32), limits.WRONG_BYTES_MOST_S)


def _staged(journal: Journal, event: events.Staged) -> Journal:
    return _replace(journal, candidate=_replace(_candidate(journal), held=event.held))


def _probe_begun(journal: Journal, _: events.ProbeBegun) -> Journal:
    candidate = _candidate(journal)
    return _replace(journal, candidate=_replace(candidate, probe_attempts=candidate.probe_attempts + 1))


def _failed(journal: Journal, event: events.InstallFailed | events.ProbeFailed | events.ShadowFailed) -> Journal:
    candidate = _candidate(journal)
    announced = say(journal, announcement_of(journal, "failed", reason=event.reason))
    return _replace(_refuse(announced, candidate.serial, event.reason), candidate=None)


def _activated(journal: Journal, event: events.Activated) -> Journal:
    candidate = _candidate(journal)
    announced = say(journal, announcement_of(journal, "activated"))
    return joined(announced, rollout=candidate.rollout, stage=candidate.stage, role="treated", at=event.at)


def _shadow_begun(journal: Journal, event: events.ShadowBegun) -> Journal:
    candidate = _candidate(journal)
    announced = say(journal, announcement_of(journal, "shadowing"))
    return joined(announced, rollout=candidate.rollout, stage=candidate.stage, role="treated", at=event.at)


def _shadow_seen(journal: Journal, event: events.ShadowSeen) -> Journal:
    candidate = _candidate(journal)
    shadow = candidate.shadow
    if shadow is None:
        return journal
    return _replace(
        journal, candidate=_replace(candidate, shadow=_replace(shadow, crashes=shadow.crashes + event.crashed))
    )


def _shadow_ended(journal: Journal, _: events.ShadowEnded) -> Journal:
    return _replace(journal, candidate=_replace(_candidate(journal), shadow=None))


def _sessions_seen(journal: Journal, event: events.SessionsSeen) -> Journal:
    candidate = _candidate(journal)
    return _replace(
        journal,
        candidate=_replace(
            candidate,
            healthy_sessions=candidate.healthy_sessions + event.healthy,
            failed_sessions=candidate.failed_sessions + event.failed,
        ),
    )


def _trial_passed(journal: Journal, _: events.TrialPassed) -> Journal:
    return _replace(say(journal, announcement_of(journal, "committed")), candidate=None)


def _trial_failed(journal: Journal, event: events.TrialFailed) -> Journal:
    going_back = GoingBack(leaves=_candidate(journal).serial, to=None, by_policy=False, reason=event.reason)
    return _replace(journal, going_back=going_back)


def _left_by_itself(journal: Journal, event: events.LeftByItself) -> Journal:
    going_back = GoingBack(
        leaves=event.leaves, to=event.to, by_policy=False, reason=event.reason, policy_sequence=event.policy_sequence
    )
    return _replace(journal, going_back=going_back)


def _recalled(journal: Journal, event: events.Recalled) -> Journal:
    going_back = GoingBack(leaves=event.leaves, to=event.to, by_policy=True, reason=event.reason)
    stopped_at = journal.stopped_at if event.stopped_at is None else event.stopped_at
    return _replace(journal, candidate=None, going_back=going_back, stopped_at=stopped_at)


def _went_back(journal: Journal, event: events.WentBack) -> Journal:
    going_back = _going_back(journal)
    announced = _runs_now(say(journal, _counted(journal, going_back)), event.to)
    if going_back.leaves is not None:
        announced = _refuse(announced, going_back.leaves, going_back.reason, sequence=going_back.policy_sequence)
    return _replace(announced, candidate=None, going_back=None)


def _returned(journal: Journal, _: events.Returned) -> Journal:
    return _replace(_runs_now(journal, _going_back(journal).to), candidate=None, going_back=None)


def _emptied(journal: Journal, _: events.Emptied) -> Journal:
    return _replace(_runs_now(journal, None), candidate=None, going_back=None)


def _fallback_lost(journal: Journal, _: events.FallbackLost) -> Journal:
    return _replace(journal, candidate=None, going_back=None)


def _runs_now(journal: Journal, serial: int | None) -> Journal:
    """The journal with what to tell of the version that runs now, in no cohort: the one before, or none."""
    return say(journal, Announcement(model=journal.model, step="activated", serial=serial))


def _counted(journal: Journal, going_back: GoingBack) -> Announcement:
    """What to tell of a version that was left: in its cohort, also long after it was committed there."""
    told = announcement_of(journal, "went_back", reason=going_back.reason, serial=going_back.leaves)
    member = next(
        (each for each in reversed(journal.memberships) if each.since is not None and each.serial == going_back.leaves),
        None,
    )
    if journal.candidate is not None or member is None or going_back.leaves is None:
        return told
    return _replace(told, rollout=member.rollout, stage=member.stage, role=member.role)


def _refuse(journal: Journal, serial: int, reason: str, *, sequence: int = 0) -> Journal:
    sequence = journal.candidate.policy_sequence if journal.candidate else sequence
    others = tuple(refusal for refusal in journal.refused if refusal.serial != serial)
    refusal = Refusal(serial=serial, reason=reason, policy_sequence=sequence)
    return _replace(journal, refused=(*others, refusal)[-limits.REFUSED :])


def _candidate(journal: Journal) -> Candidate:
    if journal.candidate is None:
        raise InvariantBroken(f"{journal.model} is {journal.state.value} without a candidate")
    return journal.candidate


def _held(candidate: Candidate) -> Held:
    if candidate.held is None:
        raise InvariantBroken(f"serial {candidate.serial} is on trial and was never staged")
    return candidate.held


def _going_back(journal: Journal) -> GoingBack:
    if journal.going_back is None:
        raise InvariantBroken(f"{journal.model} is going back and does not say where to")
    return journal.going_back


_CHANGES: dict[type[events.Event], Callable[[Journal, Any], Journal]] = {
    events.Offered: _offered,
    events.Withdrawn: _withdrawn,
    events.Begun: _begun,
    events.Fetched: _fetched,
    events.Corrupt: _corrupt,
    events.InstallFailed: _failed,
    events.Staged: _staged,
    events.ProbeBegun: _probe_begun,
    events.ProbeFailed: _failed,
    events.Activated: _activated,
    events.ShadowBegun: _shadow_begun,
    events.ShadowSeen: _shadow_seen,
    events.ShadowFailed: _failed,
    events.ShadowEnded: _shadow_ended,
    events.SessionsSeen: _sessions_seen,
    events.TrialPassed: _trial_passed,
    events.TrialFailed: _trial_failed,
    events.LeftByItself: _left_by_itself,
    events.Recalled: _recalled,
    events.WentBack: _went_back,
    events.Returned: _returned,
    events.Emptied: _emptied,
    events.FallbackLost: _fallback_lost,
}
