"""What follows from each event: what the journal holds afterwards, what is told, and what is to be done next."""

from typing import Any

import msgspec
import pytest

from support.values import file
from whimbrel import limits
from whimbrel.device import effects, events
from whimbrel.device.journal import Candidate, GoingBack, Journal, Membership, Refusal
from whimbrel.device.shadowing import Shadowing
from whimbrel.device.slots import Content, Held
from whimbrel.device.states import State, transition
from whimbrel.device.step import announcement_of, effects_of, moved, say, step
from whimbrel.errors import IllegalTransition, InvariantBroken
from whimbrel.health.report import Announcement
from whimbrel.policy.shadow import Shadow

replace = msgspec.structs.replace
HELD = Held(slot="b", serial=2, version="v2", entry="model.onnx", contents=(Content(name="x", sha256="a" * 64),))
SHADOW = Shadowing(how=Shadow(sample_ppm=50_000))
COUNTED = {"rollout": "r", "stage": 3}
WITH = {"bytes_moved": 7, "moved_by": {"whole": 7}}
MEMBERS = (
    Membership(rollout="r", stage=3, role="control", assigned_at=1.0),
    Membership(rollout="r", stage=3, role="treated", assigned_at=1.0),
    Membership(rollout="r", stage=4, role="treated", assigned_at=1.0),
)


def candidate(**changes: Any) -> Candidate:
    values = {"serial": 2, "version": "v2", "slot": "b", "files": (file(),), "policy_sequence": 5, "offered_at": 1.0}
    return Candidate(**values | COUNTED | WITH | changes)


def journal(state: State, *, going_back: GoingBack | None = None, **changes: Any) -> Journal:
    """With a candidate, which `changes` are about."""
    return Journal(model="m", state=state, candidate=candidate(**changes), going_back=going_back)


def after(before: Journal, event: events.Event) -> Journal:
    return step(before, event)[0]


def told(name: Any, **changes: Any) -> Announcement:
    return Announcement(**{"model": "m", "step": name, "serial": 2} | COUNTED | WITH | changes)


# --- the way to the slot ---


def test_an_offer_is_a_candidate_that_nothing_happened_to() -> None:
    values: dict[str, Any] = {"serial": 2, "version": "v2", "slot": "b", "files": (file(),), "policy_sequence": 5}
    values |= {"shadow": SHADOW, "variant": "any"} | COUNTED
    got = after(Journal(model="m", state=State.COMMITTED, outbox=(told("begun"),)), events.Offered(at=4.0, **values))
    expected = Candidate(offered_at=4.0, **values)
    assert got == Journal(model="m", state=State.OFFERED, candidate=expected, outbox=(told("begun"),))


def test_an_override_is_noted_of_the_version_that_was_refused_and_of_no_other() -> None:
    refused = (
        Refusal(serial=2, reason="it crashed", policy_sequence=3),
        Refusal(serial=4, reason="it is slow", policy_sequence=3),
    )
    offered = events.Offered(
        serial=2, version="v2", slot="b", files=(file(),), policy_sequence=9, at=4.0, despite="it crashed"
    )
    got = after(Journal(model="m", refused=refused), offered)
    assert got.refused == (replace(refused[0], overridden_by=9), refused[1])
    because = "policy 9 overrides what was refused here: it crashed"
    assert got.outbox == (Announcement(model="m", step="assigned", serial=2, reason=because),)


def test_a_begin_is_told_in_a_rollout_alone() -> None:
    """The server learns from it how long treated devices take, so that controls wait as long."""
    assert after(journal(State.OFFERED), events.Begun()).outbox == (told("begun"),)
    assert after(journal(State.OFFERED, rollout=None), events.Begun()).outbox == ()


def test_what_was_moved_adds_up_by_the_way_that_it_was_for() -> None:
    more = moved(candidate(), 30, {"whole": 10, "delta": 20})
    assert (more.bytes_moved, more.moved_by) == (37, {"whole": 17, "delta": 20})
    fetched = after(journal(State.DOWNLOADING), events.Fetched(30, {"delta": 30}))
    assert fetched.candidate == candidate(bytes_moved=37, moved_by={"whole": 7, "delta": 30})


def test_wrong_bytes_are_counted_and_what_was_held_of_them_is_forgotten() -> None:
    wrong = events.Corrupt("wrong hash", at=1000.0, bytes_moved=3, moved_by={"whole": 3})
    before = journal(State.VERIFYING, held=HELD, install_attempts=1)
    expected = candidate(bytes_moved=10, moved_by={"whole": 10}, install_attempts=2, again_at=1060.0)
    assert after(before, wrong).candidate == expected
    assert after(journal(State.VERIFYING), wrong).candidate == replace(expected, install_attempts=1, again_at=1000.0)


def test_a_probe_is_begun_so_often_and_then_it_failed() -> None:
    most = limits.PROBE_ATTEMPTS
    assert effects_of(journal(State.STAGED, probe_attempts=most - 1)) == (effects.Then(events.ProbeBegun()),)
    assert after(journal(State.STAGED, probe_attempts=most - 1), events.ProbeBegun()).candidate == candidate(
        probe_attempts=most
    )
    reason = f"the device stopped {most} times while it probed this version"
    assert effects_of(journal(State.STAGED, probe_attempts=most)) == (effects.Then(events.InstallFailed(reason)),)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.STAGED, events.InstallFailed("no answer")),
        (State.PROBING, events.ProbeFailed("no answer")),
        (State.SHADOWING, events.ShadowFailed("no answer")),
    ],
)
def test_what_failed_is_refused_and_told_in_its_cohort_with_the_reason(state: State, event: events.Event) -> None:
    others = (Refusal(serial=2, reason="before", policy_sequence=1), Refusal(serial=4, reason="x", policy_sequence=2))
    got = after(replace(journal(state), refused=others), event)
    assert got.candidate is None
    assert got.refused == (others[1], Refusal(serial=2, reason="no answer", policy_sequence=5))
    assert got.outbox == (told("failed", reason="no answer"),)


def test_a_device_remembers_the_newest_of_what_it_refuses() -> None:
    full = tuple(Refusal(serial=n + 10, reason="x", policy_sequence=1) for n in range(limits.REFUSED))
    refused = after(replace(journal(State.PROBING), refused=full), events.ProbeFailed("y")).refused
    assert [each.serial for each in refused] == [*range(11, limits.REFUSED + 10), 2]


def test_a_reason_is_cut_where_an_announcement_would_not_hold_it_and_the_oldest_words_are_dropped() -> None:
    long = "x" * (limits.REASON_CHARS + 1)
    assert announcement_of(journal(State.PROBING), "failed", reason=long).reason == long[:-1]
    assert announcement_of(Journal(model="m"), "failed", reason=long, serial=4) == Announcement(
        model="m", step="failed", serial=4, reason=long[:-1]
    )
    assert announcement_of(journal(State.PROBING), "went_back", serial=4).serial == 4
    full = tuple(told("begun", serial=n) for n in range(1, limits.OUTBOX + 1))
    assert say(Journal(model="m", outbox=full), told("failed")).outbox == (*full[1:], told("failed"))


# --- active ---


@pytest.mark.parametrize(
    ("state", "event", "name"),
    [(State.READY, events.Activated(at=9.0), "activated"), (State.READY, events.ShadowBegun(at=9.0), "shadowing")],
)
def test_a_treated_device_is_counted_in_its_own_cohort_from_then_on(
    state: State, event: events.Event, name: str
) -> None:
    got = after(replace(journal(state, held=HELD), memberships=MEMBERS), event)
    assert [each.since for each in got.memberships] == [None, 9.0, None]
    assert got.outbox == (told(name),)
    assert got.candidate == candidate(held=HELD)


def test_sessions_of_a_trial_add_up() -> None:
    got = after(journal(State.ON_TRIAL, held=HELD, healthy_sessions=1), events.SessionsSeen(healthy=1, failed=2))
    assert got.candidate == candidate(held=HELD, healthy_sessions=2, failed_sessions=2)


@pytest.mark.parametrize(
    ("healthy", "failed", "verdict"),
    [
        (limits.TRIAL_HEALTHY_SESSIONS - 1, limits.TRIAL_FAILED_SESSIONS - 1, None),
        (limits.TRIAL_HEALTHY_SESSIONS, limits.TRIAL_FAILED_SESSIONS - 1, events.TrialPassed()),
        (2, limits.TRIAL_FAILED_SESSIONS, events.TrialFailed("3 sessions crashed or failed, after 2 healthy")),
        (9, 8, events.TrialFailed("8 sessions crashed or failed, after 9 healthy")),
    ],
)
def test_a_trial_ends_at_its_very_limits_and_says_with_which_figures(
    healthy: int, failed: int, verdict: events.Event | None
) -> None:
    on_trial = journal(State.ON_TRIAL, held=HELD, healthy_sessions=healthy, failed_sessions=failed)
    then = () if verdict is None else (effects.Then(verdict),)
    assert effects_of(on_trial) == (effects.PointTo(HELD), *then)


def test_a_trial_that_passed_is_told_and_its_candidate_is_one_no_more() -> None:
    got = after(journal(State.ON_TRIAL, held=HELD), events.TrialPassed())
    assert got == Journal(model="m", state=State.COMMITTED, outbox=(told("committed"),))
    assert effects_of(got) == (effects.Commit(),)


def test_crashes_in_the_shadow_add_up_and_end_it_at_the_very_limit() -> None:
    most = limits.SHADOW_CRASHES
    before = journal(State.SHADOWING, shadow=replace(SHADOW, crashes=1))
    got = after(before, events.ShadowSeen(crashed=most - 2))
    assert got.candidate == candidate(shadow=replace(SHADOW, crashes=most - 1))
    assert effects_of(got) == (effects.KeepShadow(candidate(shadow=replace(SHADOW, crashes=most - 1))),)
    reason = f"it ended its process {most} times while it was only tried"
    assert effects_of(after(got, events.ShadowSeen(crashed=1))) == (effects.Then(events.ShadowFailed(reason)),)


def test_crashes_of_a_shadow_that_there_is_no_more_change_nothing() -> None:
    assert after(journal(State.SHADOWING), events.ShadowSeen(crashed=9)) == journal(State.SHADOWING)
    assert effects_of(journal(State.SHADOWING)) == (effects.KeepShadow(candidate()),)


def test_a_shadow_that_ends_leaves_its_candidate_ready_to_run() -> None:
    got = after(journal(State.SHADOWING, shadow=SHADOW), events.ShadowEnded())
    assert got == journal(State.READY)


# --- back ---


def test_a_trial_that_failed_goes_back_by_itself_with_its_reason() -> None:
    got = after(journal(State.ON_TRIAL, held=HELD), events.TrialFailed("it crashed"))
    back = GoingBack(leaves=2, to=None, by_policy=False, reason="it crashed")
    assert got == journal(State.GOING_BACK, held=HELD, going_back=back)
    assert effects_of(got) == (effects.SwapBack(back),)


def test_a_model_that_leaves_by_itself_notes_the_policy_that_was_known() -> None:
    left = events.LeftByItself(leaves=2, to=1, reason="it crashed", policy_sequence=7)
    back = GoingBack(leaves=2, to=1, by_policy=False, reason="it crashed", policy_sequence=7)
    assert after(Journal(model="m", state=State.COMMITTED), left).going_back == back
    went = after(replace(Journal(model="m", state=State.GOING_BACK), going_back=back), events.WentBack(to=1))
    assert went.refused == (Refusal(serial=2, reason="it crashed", policy_sequence=7),)
    of_trial = after(journal(State.GOING_BACK, going_back=back), events.WentBack(to=1))
    assert of_trial.refused == (Refusal(serial=2, reason="it crashed", policy_sequence=5),)  # the candidate's own


@pytest.mark.parametrize(("before", "said", "kept"), [(None, None, None), (4.0, None, 4.0), (4.0, 9.0, 9.0)])
def test_a_recall_goes_back_by_the_policy_and_notes_since_when_it_offers_nothing(
    before: float | None, said: float | None, kept: float | None
) -> None:
    recalled = events.Recalled(to=1, leaves=2, reason="the baseline", stopped_at=said)
    got = after(replace(journal(State.ON_TRIAL), stopped_at=before), recalled)
    back = GoingBack(leaves=2, to=1, by_policy=True, reason="the baseline")
    assert got == Journal(model="m", state=State.GOING_BACK, going_back=back, stopped_at=kept)


def going(**changes: Any) -> GoingBack:
    return GoingBack(**{"leaves": 2, "to": 1, "by_policy": True, "reason": "x"} | changes)


@pytest.mark.parametrize(
    ("event", "state", "runs"),
    [
        (events.Returned(), State.COMMITTED, (1,)),
        (events.Emptied(), State.IDLE, (None,)),
        (events.FallbackLost(), State.IDLE, ()),
    ],
)
def test_what_runs_after_a_recall_is_told_in_no_cohort(
    event: events.Event, state: State, runs: tuple[int | None, ...]
) -> None:
    got = after(Journal(model="m", state=State.GOING_BACK, going_back=going(), memberships=MEMBERS), event)
    assert got.outbox == tuple(Announcement(model="m", step="activated", serial=serial) for serial in runs)
    assert (got.state, got.going_back, got.candidate, got.refused) == (state, None, None, ())


def test_a_model_that_had_nothing_and_went_back_refuses_nothing() -> None:
    back = going(leaves=None, to=None, by_policy=False)
    got = after(Journal(model="m", state=State.GOING_BACK, going_back=back, memberships=MEMBERS), events.WentBack())
    assert got.refused == ()
    assert [(each.step, each.serial, each.rollout) for each in got.outbox] == [
        ("went_back", None, None),
        ("activated", None, None),
    ]


def test_what_was_left_is_told_in_the_newest_cohort_that_it_counts_in() -> None:
    members = (
        Membership(rollout="r", stage=1, role="treated", assigned_at=0, since=1, serial=2),
        Membership(rollout="x", stage=2, role="treated", assigned_at=0, since=1, serial=2),
        Membership(rollout="y", stage=3, role="treated", assigned_at=0, serial=2),  # it does not count there yet
        Membership(rollout="z", stage=3, role="treated", assigned_at=0, since=1, serial=4),
    )
    back = Journal(model="m", state=State.GOING_BACK, going_back=going(by_policy=False), memberships=members)
    assert after(back, events.WentBack(to=1)).outbox[0] == Announcement(
        model="m", step="went_back", serial=2, rollout="x", stage=2, reason="x"
    )
    none = replace(back, memberships=members[2:])
    assert after(none, events.WentBack(to=1)).outbox[0] == Announcement(
        model="m", step="went_back", serial=2, reason="x"
    )


# --- what is to be done ---


@pytest.mark.parametrize(
    ("state", "effect"),
    [
        (State.OFFERED, effects.AwaitConditions),
        (State.DOWNLOADING, effects.Fetch),
        (State.VERIFYING, effects.Stage),
        (State.PROBING, effects.RunProbe),
        (State.READY, effects.Activate),
    ],
)
def test_every_state_of_the_preparation_has_one_thing_to_do(state: State, effect: Any) -> None:
    assert effects_of(journal(state)) == (effect(candidate()),)


def test_at_rest_nothing_is_to_be_done() -> None:
    assert effects_of(Journal(model="m")) == effects_of(Journal(model="m", state=State.QUARANTINED)) == ()


def test_a_journal_that_lacks_what_its_state_needs_is_our_fault_and_says_what_is_missing() -> None:
    for broken, words in (
        (Journal(model="m", state=State.PROBING), "m is probing without a candidate"),
        (journal(State.ON_TRIAL), "serial 2 is on trial and was never staged"),
        (Journal(model="m", state=State.GOING_BACK), "m is going back and does not say where to"),
    ):
        with pytest.raises(InvariantBroken) as caught:
            effects_of(broken)
        assert str(caught.value) == words


def test_a_pair_outside_of_the_table_is_refused_with_what_the_state_can_take() -> None:
    with pytest.raises(IllegalTransition) as caught:
        transition(State.OFFERED, events.TrialPassed())
    assert str(caught.value) == "a model that is offered cannot take TrialPassed; it can take: Begun, Withdrawn"
