"""What a model does about a decision: one test for each answer of `intend`, in the order in which it asks."""

from typing import Any

import msgspec
import pytest

from support.values import arm, file, line, policy, release
from whimbrel import limits
from whimbrel.device import events
from whimbrel.device.intent import (
    Follow,
    Intent,
    MemberVersions,
    Offer,
    Recall,
    Rest,
    Stay,
    Withdraw,
    change_to,
    destination,
    intend,
    is_tried,
    is_wanted,
    leave_with_set,
    missing_member,
    offered,
    treated_in,
    unmet,
)
from whimbrel.device.journal import Candidate, GoingBack, Journal, Refusal
from whimbrel.device.shadowing import Shadowing, shadowing_of
from whimbrel.device.slots import Content, Held, Pointer, SlotName
from whimbrel.device.states import PREPARING, RESTING, State
from whimbrel.model.release import Probe, Requirement, Variant
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Assignment, Beside, Decision, Profile
from whimbrel.policy.policy import Entry, Layer, Quarantine
from whimbrel.policy.shadow import Shadow

NOW = 1_000_000.0
TREATED = Assignment("r1", 0, "canary", "treated")
CONTROL = Assignment("r1", 0, "control", "control")
SHADOW = Shadow(sample_ppm=1000)
BESIDE = Beside(serial=2, shadow=SHADOW, rollout="r1", stage=0)
PREPARED = sorted(PREPARING)


def held(serial: int, slot: SlotName = "a") -> Held:
    contents = (Content(name="model.onnx", sha256="a" * 64),)
    return Held(slot=slot, serial=serial, version=f"2026.01.01.{serial}", entry="model.onnx", contents=contents)


def pointer(active: int | None = 1, fallback: int | None = None, *, trial: bool = False) -> Pointer:
    return Pointer(
        model="wake",
        active=held(active) if active else None,
        fallback=held(fallback, "b") if fallback else None,
        trial=trial,
    )


def candidate(serial: int = 2, **changes: Any) -> Candidate:
    values = {"serial": serial, "version": f"2026.01.01.{serial}", "slot": "b", "files": (file(),)}
    return Candidate(**values | {"policy_sequence": 1, "offered_at": NOW} | changes)


def journal(state: State = State.COMMITTED, **changes: Any) -> Journal:
    return Journal(model="wake", state=state, **changes)


def under_way(state: State = State.DOWNLOADING, serial: int = 2, **changes: Any) -> Journal:
    return journal(state, candidate=candidate(serial, **changes))


def runs(serial: int | None, *assignments: Assignment, beside: Beside | None = None, offer: Any = "run") -> Decision:
    return Decision(serial, offer, "the baseline", assignments, beside)


def intent(
    journal: Journal, pointer: Pointer, decision: Decision, *, now: float = NOW, prepare: bool = True, **documents: Any
) -> Intent:
    return intend(
        journal,
        pointer,
        decision,
        documents.get("policy", policy()),
        documents.get("line", line()),
        profile=Profile("dev-1", refused=frozenset(each.serial for each in journal.refused)),
        now=now,
        prepare=prepare,
    )


# --- 1: what is under way ---


@pytest.mark.parametrize("state", PREPARED)
def test_a_version_that_is_not_decided_any_more_is_withdrawn_in_every_state_of_its_preparation(state: State) -> None:
    assert intent(under_way(state, serial=3), pointer(), runs(2)) == Withdraw(ask_again=True)
    assert intent(under_way(state, serial=3), pointer(), runs(1)) == Withdraw(ask_again=True)
    assert intent(under_way(state, serial=3), pointer(), runs(None)) == Withdraw(ask_again=True)
    assert intent(under_way(state, serial=3), pointer(), runs(1, beside=BESIDE)) == Withdraw(ask_again=True)


@pytest.mark.parametrize("state", [state for state in PREPARED if state is not State.SHADOWING])
def test_a_version_that_is_still_decided_follows_its_cohort(state: State) -> None:
    assert intent(under_way(state), pointer(), runs(2, TREATED)) == Follow(rollout="r1", stage=0)
    assert intent(under_way(state), pointer(), runs(2)) == Follow(rollout=None, stage=0)


def test_a_version_that_is_under_way_goes_on_also_where_only_the_active_slot_may_be_touched() -> None:
    assert intent(under_way(), pointer(), runs(2, TREATED), prepare=False) == Follow(rollout="r1", stage=0)


def test_what_is_tried_in_the_shadow_follows_the_policys_newest_words() -> None:
    before = Shadowing(how=Shadow(sample_ppm=5), absolute_tolerance=0.5, crashes=2)
    after = intent(under_way(State.SHADOWING, shadow=before), pointer(), runs(1, beside=BESIDE))
    assert after == Follow(
        rollout="r1", stage=0, shadow=Shadowing(how=SHADOW, absolute_tolerance=0.5, crashes=2), ends_shadow=False
    )


def test_what_was_tried_in_the_shadow_and_is_to_run_now_ends_its_shadow() -> None:
    now = intent(under_way(State.SHADOWING, shadow=Shadowing(how=SHADOW)), pointer(), runs(2, TREATED))
    assert now == Follow(rollout="r1", stage=0, shadow=None, ends_shadow=True)


def test_what_waited_for_its_shadow_and_is_to_run_now_has_no_shadow_to_end() -> None:
    now = intent(under_way(State.READY, shadow=Shadowing(how=SHADOW)), pointer(), runs(2, TREATED))
    assert now == Follow(rollout="r1", stage=0, shadow=None, ends_shadow=False)


def test_what_was_to_run_and_is_only_to_be_tried_now_is_withdrawn_and_offered_in_the_next_pass() -> None:
    assert intent(under_way(State.READY), pointer(), runs(1, beside=BESIDE)) == Withdraw(ask_again=False)


# --- 2 and 3: on the way back, and no version at all ---


def test_a_model_that_is_going_back_does_only_that() -> None:
    going_back = GoingBack(leaves=2, to=1, by_policy=True, reason="x")
    state = journal(State.GOING_BACK, going_back=going_back)
    assert intent(state, pointer(2, 1), runs(3)) == Rest()
    assert intent(state, pointer(2, 1), runs(None, offer="stop")) == Rest()


@pytest.mark.parametrize("state", sorted(RESTING))
def test_where_the_policy_offers_no_version_the_active_one_is_left(state: State) -> None:
    decision = runs(None, offer="stop")
    stop = Recall(to=None, leaves=2, because="the baseline", stopped_at=NOW)
    assert intent(journal(state), pointer(2, 1), decision) == stop
    assert intent(journal(state), pointer(None), decision) == Rest()


def test_a_version_that_the_line_forbids_is_left_for_good() -> None:
    forbids = line(revoked=(2,))
    left = intent(journal(), pointer(2, 1), runs(None, offer="stop"), line=forbids)
    assert left == Recall(to=None, leaves=2, because="the baseline")


def test_a_stop_by_the_policy_alone_is_honoured_for_a_week_of_a_month() -> None:
    stopped = msgspec.structs.replace(pointer(None), stopped=held(2))
    decision, since = runs(None, offer="stop"), msgspec.structs.replace(journal(), stopped_at=NOW)
    week, month = NOW + limits.STOP_MOST_S, NOW + limits.STOP_AGAIN_S
    assert intent(since, stopped, decision, now=week - 1) == Rest()
    lasted = "the policy has offered no version for 7 days, and only the publisher's line stops one for longer"
    assert intent(since, stopped, decision, now=week) == Recall(to=2, leaves=None, because=lasted)
    assert intent(since, pointer(2), decision, now=week) == Stay(f"a line that forbids serial 2: {lasted}")
    assert intent(since, pointer(2), decision, now=week - 1) == Recall(
        to=None, leaves=2, because="the baseline", stopped_at=NOW
    )
    assert isinstance(intent(since, pointer(2), decision, now=month - 1), Stay)
    again = intent(since, pointer(2), decision, now=month)
    assert again == Recall(to=None, leaves=2, because="the baseline", stopped_at=month)


def test_what_was_stopped_goes_on_only_where_it_may_run() -> None:
    stopped = msgspec.structs.replace(pointer(None), stopped=held(2))
    since, later = msgspec.structs.replace(journal(), stopped_at=NOW), NOW + limits.STOP_MOST_S
    decision = runs(None, offer="stop")
    assert intent(since, stopped, decision, now=later, line=line(revoked=(2,))) == Rest()
    refusing = msgspec.structs.replace(since, refused=(Refusal(serial=2, reason="slow", policy_sequence=1),))
    assert intent(refusing, stopped, decision, now=later) == Rest()
    assert intent(since, stopped, decision, now=later, line=line(minimum_serial=2)) != Rest()
    assert intent(since, stopped, decision, now=later, line=line(minimum_serial=3)) == Rest()


def test_what_was_stopped_goes_on_where_the_policy_stops_nothing_any_more() -> None:
    stopped = msgspec.structs.replace(pointer(None), stopped=held(2))
    goes_on = Recall(to=2, leaves=None, because="the policy stops nothing any more")
    assert intent(journal(), stopped, runs(None, offer="keep")) == goes_on
    assert intent(journal(), stopped, runs(None, offer="keep"), line=line(revoked=(2,))) == Rest()


def test_the_time_that_signed_documents_prove_ends_a_stop_and_not_a_clock_that_was_set_back() -> None:
    since, decision = msgspec.structs.replace(journal(), stopped_at=NOW), runs(None, offer="stop")

    def at(later: float | None) -> Intent:
        times: dict[str, Any] = {"now": NOW, "trusted_now": later}
        return intend(since, pointer(2), decision, policy(), line(), profile=Profile("dev-1"), prepare=True, **times)

    assert (
        at(None)
        == at(NOW + limits.STOP_MOST_S - 1)
        == Recall(to=None, leaves=2, because="the baseline", stopped_at=NOW)
    )
    assert isinstance(at(NOW + limits.STOP_MOST_S), Stay)


def test_what_was_stopped_is_here_at_once_where_it_is_decided_again() -> None:
    stopped = msgspec.structs.replace(pointer(None), stopped=held(2))
    assert intent(journal(), stopped, runs(2)) == Recall(to=2, leaves=None, because="the baseline")
    assert intent(journal(), stopped, runs(3)) == Offer(3)


def test_where_the_policy_says_keep_the_active_version_stays() -> None:
    assert intent(journal(), pointer(2, 1), runs(None, offer="keep")) == Rest()


# --- 4: the decided version is active ---


def test_a_device_that_runs_what_is_decided_rests() -> None:
    assert intent(journal(), pointer(1), runs(1, CONTROL)) == Rest()


@pytest.mark.parametrize("state", sorted(RESTING))
def test_another_version_is_tried_beside_the_active_one_when_nothing_is_under_way(state: State) -> None:
    tries = Offer(serial=2, rollout="r1", stage=0, beside=BESIDE)
    assert intent(journal(state), pointer(1), runs(1, TREATED, beside=BESIDE)) == tries


def test_nothing_is_tried_beside_a_version_that_is_on_trial_itself_or_where_nothing_may_be_prepared() -> None:
    decision = runs(1, TREATED, beside=BESIDE)
    assert intent(under_way(State.ON_TRIAL, serial=1), pointer(1, trial=True), decision) == Rest()
    assert intent(journal(), pointer(1), decision, prepare=False) == Rest()


def test_what_failed_in_the_shadow_is_not_tried_again_without_a_new_policy() -> None:
    refused = journal(State.QUARANTINED, refused=(Refusal(serial=2, reason="it crashes", policy_sequence=1),))
    assert intent(refused, pointer(1), runs(1, beside=BESIDE)) == Stay(
        "a new policy: serial 2 failed here again (it crashes)"
    )


# --- 5: a trial ---


def test_a_trial_that_goes_on_is_not_disturbed_by_a_newer_version() -> None:
    trial = under_way(State.ON_TRIAL, serial=2)
    assert intent(trial, pointer(2, 1, trial=True), runs(3)) == Stay("the end of the trial of serial 2")
    assert intent(trial, pointer(2, 1, trial=True), runs(3), prepare=False) == Stay("the end of the trial of serial 2")


def test_a_trial_that_nobody_ends_gives_way_to_its_fallback() -> None:
    trial = under_way(State.ON_TRIAL, serial=2)
    at_last = NOW + limits.TRIAL_MOST_S
    assert isinstance(intent(trial, pointer(2, 1, trial=True), runs(3), now=at_last), Stay)
    late = intent(trial, pointer(2, 1, trial=True), runs(3), now=at_last + 1)
    assert late == Recall(to=1, leaves=2, because="the baseline")


def test_a_trial_of_a_version_that_may_not_run_any_more_ends_at_once() -> None:
    trial = under_way(State.ON_TRIAL, serial=2)
    ends = Recall(to=1, leaves=2, because="the baseline")
    assert intent(trial, pointer(2, 1, trial=True), runs(3), line=line(revoked=(2,))) == ends
    quarantine = (Quarantine(serial=2),)
    assert intent(trial, pointer(2, 1, trial=True), runs(3), policy=policy(quarantine=quarantine)) == ends


def test_a_trial_gives_way_to_the_version_before_when_that_is_decided() -> None:
    trial = under_way(State.ON_TRIAL, serial=2)
    assert intent(trial, pointer(2, 1, trial=True), runs(1)) == Recall(to=1, leaves=2, because="the baseline")


def test_a_first_trial_that_ends_without_a_fallback_gives_way_to_an_offer() -> None:
    trial = under_way(State.ON_TRIAL, serial=2)
    assert intent(trial, pointer(2, trial=True), runs(3), line=line(revoked=(2,))) == Offer(serial=3)


def test_a_trial_ends_with_an_offer_where_the_line_forbids_the_version_before() -> None:
    trial = under_way(State.ON_TRIAL, serial=2)
    assert intent(trial, pointer(2, 1, trial=True), runs(3), line=line(revoked=(1, 2))) == Offer(serial=3)


# --- 6: the other slot ---


def test_what_the_other_slot_holds_is_taken_back_without_a_download() -> None:
    back = Recall(to=1, leaves=2, because="the baseline")
    assert intent(journal(), pointer(2, 1), runs(1)) == back
    assert intent(journal(), pointer(2, 1), runs(1), prepare=False) == back


def test_an_arms_version_has_the_way_of_an_update_although_the_other_slot_holds_it() -> None:
    assert intent(journal(), pointer(1, 2), runs(2, TREATED)) == Offer(serial=2, rollout="r1", stage=0)


def test_a_version_that_may_run_no_longer_gives_way_to_the_other_slots_until_the_decided_one_is_here() -> None:
    assert intent(journal(), pointer(2, 1), runs(3), line=line(revoked=(2,))) == Recall(
        to=1, leaves=2, because="the baseline"
    )


def test_the_other_slots_version_is_no_better_where_it_may_not_run_either_or_the_active_one_may() -> None:
    assert intent(journal(), pointer(2, 1), runs(3), line=line(revoked=(1, 2))) == Offer(serial=3)
    assert intent(journal(), pointer(2, 1), runs(3)) == Offer(serial=3)


def test_a_device_without_an_active_version_is_offered_one_whatever_the_other_slot_holds() -> None:
    assert intent(journal(State.IDLE), pointer(None, 1), runs(3)) == Offer(serial=3)


# --- 7: offers ---


@pytest.mark.parametrize("state", sorted(RESTING))
def test_a_decided_version_is_offered_in_its_cohort_or_in_none(state: State) -> None:
    assert intent(journal(state), pointer(1), runs(2, TREATED)) == Offer(serial=2, rollout="r1", stage=0)
    assert intent(journal(state), pointer(1), runs(3, CONTROL)) == Offer(serial=3)
    assert intent(journal(state), pointer(None), runs(1)) == Offer(serial=1)


def test_nothing_is_offered_where_only_the_active_slot_may_be_touched() -> None:
    assert intent(journal(), pointer(1), runs(2, TREATED), prepare=False) == Rest()


@pytest.mark.parametrize("sequence", [4, 5])
def test_what_failed_here_again_waits_for_a_new_policy(sequence: int) -> None:
    refused = journal(State.QUARANTINED, refused=(Refusal(serial=2, reason="no answer", policy_sequence=5),))
    documents = {"policy": policy(sequence=sequence, overrides=(2,))}
    assert intent(refused, pointer(1), runs(2), **documents) == Stay(
        "a new policy: serial 2 failed here again (no answer)"
    )


def test_what_failed_here_is_taken_again_where_a_newer_policy_overrides_that_and_the_reason_goes_along() -> None:
    refused = journal(State.QUARANTINED, refused=(Refusal(serial=2, reason="no answer", policy_sequence=5),))
    documents = {"policy": policy(sequence=6, overrides=(2,))}
    assert intent(refused, pointer(1), runs(2), **documents) == Offer(serial=2, despite="no answer")


# --- the cohort of a decided version ---


def test_a_cohort_is_the_one_whose_arm_names_the_decided_serial() -> None:
    assert treated_in(runs(2, TREATED), policy()) == TREATED
    assert treated_in(runs(2, CONTROL, TREATED), policy()) == TREATED


def test_a_control_and_a_device_that_fell_back_are_treated_in_no_cohort() -> None:
    assert treated_in(runs(1, CONTROL), policy()) is None
    assert treated_in(runs(1, TREATED), policy()) is None  # the arm's version may not run here
    assert treated_in(runs(2, Assignment("other", 0, "canary", "treated")), policy()) is None
    assert treated_in(runs(2, Assignment("r1", 1, "canary", "treated")), policy()) is None
    assert treated_in(runs(2), policy()) is None


def test_a_cohort_is_found_in_any_layer() -> None:
    entry = Entry(rollout="r2", arms=(arm("treated", 0, BUCKETS, serial=7, stage=3),))
    layers = (*policy().layers, Layer(salt=1, entries=(entry,)))
    own = Assignment("r2", 3, "canary", "treated")
    assert treated_in(runs(7, TREATED, own), policy(layers=layers)) == own


# --- from an offer to an event ---


def test_an_offer_becomes_the_event_that_names_the_build_for_this_device() -> None:
    small = Variant(name="small", files=(file("b" * 64),))
    event = offered(
        Offer(serial=2, rollout="r1", stage=3, despite="no answer"),
        release(2),
        small,
        slot="b",
        policy_sequence=9,
        at=NOW,
    )
    assert event == events.Offered(
        serial=2,
        version="2026.01.01.2",
        slot="b",
        files=small.files,
        policy_sequence=9,
        at=NOW,
        rollout="r1",
        stage=3,
        despite="no answer",
        variant="small",
    )


def test_an_offer_of_a_shadow_says_what_its_own_probe_allows() -> None:
    probe = Probe(inputs={"x": [1.0]}, outputs={"y": [1.0]}, absolute_tolerance=0.25, relative_tolerance=0.5)
    variant = Variant(name="any", files=(file(),), probe=probe)
    event = offered(Offer(serial=2, beside=BESIDE), release(2), variant, slot="b", policy_sequence=9, at=NOW)
    assert event.shadow == shadowing_of(SHADOW, variant) == Shadowing(SHADOW, 0.25, 0.5)


# --- before it is swapped in ---


def test_a_version_that_is_ready_is_wanted_while_the_decision_names_it() -> None:
    assert is_wanted(candidate(2), runs(2))
    assert not is_wanted(candidate(2), runs(1, beside=BESIDE))
    assert not is_wanted(candidate(2), runs(None))
    assert not is_wanted(candidate(2), None)


def test_a_version_that_is_ready_is_tried_while_the_decision_names_it_beside_the_active_one() -> None:
    assert is_tried(candidate(2), pointer(1), runs(1, beside=BESIDE))
    assert not is_tried(candidate(2), pointer(3), runs(1, beside=BESIDE))  # the active version is another by now
    assert not is_tried(candidate(3), pointer(1), runs(1, beside=BESIDE))
    assert not is_tried(candidate(2), pointer(1), runs(1))
    assert not is_tried(candidate(2), pointer(1), None)


# --- a set ---


@pytest.mark.parametrize("state", PREPARED)
def test_a_model_is_on_its_way_to_its_candidate_whatever_is_decided(state: State) -> None:
    assert destination(under_way(state, serial=2), runs(3)) == 2
    assert destination(under_way(state, serial=2), None) == 2


def test_a_model_at_rest_will_be_on_its_way_to_what_is_decided() -> None:
    assert destination(journal(), runs(3)) == 3
    assert destination(journal(), runs(None)) is None
    assert destination(journal(), None) is None
    assert destination(under_way(State.ON_TRIAL, serial=2), runs(3)) == 3


def test_a_model_changes_to_what_is_decided_unless_it_runs_that_or_it_failed_here_under_this_policy() -> None:
    assert change_to(journal(), 1, runs(3), policy()) == 3
    assert change_to(journal(), 3, runs(3), policy()) is None
    assert change_to(journal(), 1, runs(None), policy()) is None
    assert change_to(journal(), 1, None, None) is None
    refused = journal(refused=(Refusal(serial=3, reason="x", policy_sequence=4),))
    assert change_to(refused, 1, runs(3), policy(sequence=4)) is None
    assert change_to(refused, 1, runs(3), policy(sequence=5)) == 3


def test_a_model_does_not_go_to_what_failed_here_unless_that_was_overridden() -> None:
    refused = Refusal(serial=3, reason="x", policy_sequence=1)
    assert destination(journal(refused=(refused,)), runs(3)) is None
    assert destination(journal(refused=(refused,)), runs(2)) == 2
    again = Refusal(serial=3, reason="x", policy_sequence=1, overridden_by=2)
    assert destination(journal(refused=(again,)), runs(3)) == 3


def test_a_version_waits_for_a_member_of_its_set_that_neither_runs_nor_comes() -> None:
    encoder = release(2, requires=(Requirement(model="decoder", serial=5),))
    missing = Stay("decoder at serial 5, which serial 2 requires")
    assert missing_member(encoder, {}) == missing
    assert missing_member(encoder, {"decoder": MemberVersions(active=4, destination=None)}) == missing
    assert missing_member(encoder, {"decoder": MemberVersions(active=5, destination=None)}) is None
    assert missing_member(encoder, {"decoder": MemberVersions(active=4, destination=5)}) is None
    assert missing_member(release(2), {}) is None


def test_what_a_running_version_lacks_is_what_other_models_left() -> None:
    requires = (Requirement(model="decoder", serial=5), Requirement(model="gone", serial=1))
    assert unmet(requires, {"decoder": 5}) == ()
    assert unmet(requires, {"decoder": 4}) == requires[:1]
    assert unmet(requires, {"decoder": None}) == requires[:1]


def test_a_model_leaves_with_its_set_and_says_why() -> None:
    left = Requirement(model="decoder", serial=5)
    assert leave_with_set(pointer(2, 1), left) == Recall(
        to=1, leaves=2, because="decoder left serial 5, which serial 2 requires"
    )
    assert leave_with_set(pointer(2), left).to is None
