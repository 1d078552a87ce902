"""Drafts, schedules, queues, freezes, approvals, and what follows when a rollout ends."""

from datetime import datetime

import pytest

from support.values import (
    HOUR,
    T0,
    Town,
    announce,
    cell,
    cohort,
    devices_in,
    plan,
    quarantined,
    reports,
    rollout,
    stage,
    town,
)
from support.values import window as report_window
from whimbrel.errors import Conflict, IllegalTransition, Refused
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.approvals import PendingApproval, pending_approval
from whimbrel.flows.rollouts.approve import approve, reject
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.progress import follow
from whimbrel.flows.rollouts.start import start_rollout
from whimbrel.gate.verdict import Verdict
from whimbrel.plan.governance import Approval, BlastRadius, OnFailure, OnSuccess
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.plan.schedule import Freeze, Schedule

# T0 is a Thursday, 2026-01-01T00:00Z.
FREEZE = Freeze(start="2026-01-01", end="2026-01-02")
THAW = datetime.fromisoformat("2026-01-03T00:00+00:00").timestamp()


def start(here: Town, said: Plan | None = None, *, now: float = T0, **changes: object) -> RolloutRecord:
    values = {"plan_text": "text", "tag": "abcdef", "hour_s": HOUR, "actor": "me"} | changes
    return start_rollout(here.registry, here.fleet, said or plan(), now=now, **values)


def turn(here: Town, identifier: str, *, now: float, published: bool = True) -> RolloutRecord:
    return follow(here.registry, here.fleet, here.registry.rollout(identifier), published=published, now=now)


def actions(here: Town, identifier: str) -> list[str]:
    return [entry.action for entry in reversed(here.registry.audit_log(rollout=identifier))]


def yes(here: Town, identifier: str, by: str, *, now: float = T0, note: str = "") -> RolloutRecord:
    return approve(here.registry, here.fleet, identifier, by=by, note=note, now=now)


def report_from(here: Town, *devices: str, stage: int = 0, at: float = T0 + 400) -> None:
    said = [announce(each, "activating", stage=stage) for each in devices]
    said += [reports(each, report_window(cohorts=(cohort(stage=stage),)), at=at) for each in devices]
    ingest(here.registry, here.fleet, said, now=at)


def judge_now(here: Town, *, now: float = T0 + 30 * HOUR) -> Verdict:
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=now)


# --- drafts ---


def test_a_draft_has_no_say_until_it_is_approved() -> None:
    with town() as here:
        draft = start(here, draft=True)
        assert (draft.state, draft.shares, draft.live) == (State.DRAFT, (), False)
        assert here.registry.rollouts(live=True) == []
        begun = yes(here, draft.id, "ada", now=T0 + 9)
        assert (begun.state, begun.shares, begun.stage_since) == (State.ADVANCING, (50_000,), T0 + 9)
        assert actions(here, draft.id) == ["draft", "approve", "start"]


def test_a_first_stage_that_asks_for_two_people_is_a_draft_until_both_agreed() -> None:
    with town() as here:
        said = plan(stage("a", 5, approval=Approval(count=2)), stage("b", 100))
        draft = start(here, said)
        assert (draft.state, draft.because) == (
            State.DRAFT,
            "written down by me; it begins when 2 people have approved",
        )
        assert yes(here, draft.id, "ada").state is State.DRAFT
        with pytest.raises(Refused, match="ada approved it already; 1 more must"):
            yes(here, draft.id, "ada")
        assert yes(here, draft.id, "bob").state is State.ADVANCING


def test_a_rejected_draft_ends() -> None:
    with town() as here:
        draft = start(here, draft=True)
        after = reject(here.registry, here.fleet, draft.id, by="ada", note="not on a Friday", now=T0 + 1)
        assert (after.state, after.because, after.ended_at) == (
            State.ABORTED,
            "rejected by ada: not on a Friday",
            T0 + 1,
        )
        with pytest.raises(IllegalTransition):
            yes(here, draft.id, "bob")


def test_a_draft_is_compared_with_the_baseline_of_its_beginning() -> None:
    with town(versions=3) as here:
        draft = start(here, plan(model_version="wake@3.0.0"), draft=True)
        here.registry.change_model("wake", baseline=2)
        assert (draft.baseline, yes(here, draft.id, "ada").baseline) == (1, 2)


def test_a_draft_whose_version_was_taken_back_meanwhile_does_not_begin() -> None:
    with town() as here:
        draft = start(here, draft=True)
        here.registry.quarantine(quarantined(2, because="it crashes"))
        with pytest.raises(Refused, match="taken back before"):
            yes(here, draft.id, "ada")
        assert here.registry.rollout(draft.id).state is State.DRAFT


def test_an_override_of_a_draft_lifts_the_quarantine_when_it_begins() -> None:
    with town() as here:
        here.registry.quarantine(quarantined(2, because="it crashes"))
        draft = start(here, draft=True, override="it was the camera driver")
        assert len(here.registry.quarantines("wake")) == 1
        yes(here, draft.id, "ada")
        assert here.registry.quarantines("wake") == []
        assert actions(here, draft.id) == ["draft", "approve", "override", "start"]


# --- time ---


def test_a_scheduled_rollout_begins_at_its_time() -> None:
    with town() as here:
        said = plan(schedule=Schedule(start_at="2026-01-01T09:00", zone="Europe/Oslo"))
        one = start(here, said)
        assert (one.state, one.because) == (State.SCHEDULED, "it begins at 2026-01-01 08:00 UTC")
        assert turn(here, one.id, now=T0 + 8 * HOUR - 1).state is State.SCHEDULED
        assert turn(here, one.id, now=T0 + 8 * HOUR).state is State.ADVANCING
        assert actions(here, one.id) == ["schedule", "start"]
        assert here.registry.audit_log(rollout=one.id)[0].actor == "controller"


def test_nothing_begins_in_a_freeze() -> None:
    with town() as here:
        one = start(here, plan(freeze=(FREEZE,)))
        assert (one.state, one.because) == (
            State.SCHEDULED,
            "a freeze holds until 2026-01-03 00:00 UTC; it begins then",
        )
        assert turn(here, one.id, now=THAW - 1).state is State.SCHEDULED
        assert turn(here, one.id, now=THAW).state is State.ADVANCING


def test_a_scheduled_rollout_that_may_not_begin_ends_with_the_reason() -> None:
    with town() as here:
        one = start(here, plan(schedule=Schedule(start_at="2026-01-01T09:00")))
        here.registry.change_version("wake", 2, retired=True)
        after = turn(here, one.id, now=T0 + 10 * HOUR)
        assert (after.state, after.ended_at) == (State.ABORTED, T0 + 10 * HOUR)
        assert "it could not begin: wake 2026.01.01.2 is retired" in after.because
        assert actions(here, one.id) == ["schedule", "fail_to_begin"]


def test_a_freeze_keeps_a_stage_and_never_a_way_back() -> None:
    later = T0 + 30 * HOUR  # still in the freeze
    frozen = plan(stage("a", 5), stage("b", 100), freeze=(FREEZE,))
    with town(running=rollout(state=State.SOAKING, plan=frozen)) as here:
        report_from(here, *devices_in(0, 50_000, 3))
        assert "a freeze holds until 2026-01-03 00:00 UTC" in judge_now(here, now=later).because
        assert here.registry.rollout("r1").state is State.HOLDING
        with pytest.raises(Refused, match="a freeze holds until"):
            move_by_person(here.registry, here.fleet, "r1", "finish", because="", actor="me", now=later)
        judge_now(here, now=THAW)
        assert (here.registry.rollout("r1").state, here.registry.rollout("r1").stage) == (State.ADVANCING, 1)
    with town(running=rollout(state=State.SOAKING, plan=frozen)) as here:
        harm = [
            cell(role, w, n=n, crashed=bad)
            for w in range(6)
            for role, n, bad in (("treated", 100, 20), ("control", 1900, 19))
        ]
        here.fleet.tally("r1", harm)
        assert judge_now(here, now=later).move == "roll_back"
        assert here.registry.rollout("r1").state is State.ROLLING_BACK


# --- the queue, and several at once ---


def test_a_queued_rollout_begins_when_the_way_is_free() -> None:
    with town(versions=3, running=rollout(state=State.SOAKING)) as here:
        one = start(here, plan(model_version="wake@3.0.0", on_running="queue"), now=T0 + 1)
        assert (one.state, one.because) == (
            State.QUEUED,
            "rollout r1 of wake is soaking; it begins when the way is free",
        )
        assert turn(here, one.id, now=T0 + 2).state is State.QUEUED
        finished = move_by_person(here.registry, here.fleet, "r1", "finish", because="", actor="me", now=T0 + 3)
        assert finished.because == "finish by me"
        begun = turn(here, one.id, now=T0 + 4)
        assert (begun.state, begun.baseline) == (State.ADVANCING, 2)


def test_the_queue_has_an_order() -> None:
    with town(versions=4, running=rollout(state=State.SOAKING)) as here:
        first = start(here, plan(model_version="wake@3.0.0", on_running="queue"), now=T0 + 1)
        second = start(here, plan(model_version="wake@4.0.0", on_running="queue"), now=T0 + 2)
        assert first.id in second.because or "r1" in second.because
        with pytest.raises(Conflict, match="end that one first"):
            start(here, plan(model_version="wake@4.0.0"), now=T0 + 3, tag="other")
        move_by_person(here.registry, here.fleet, "r1", "abort", because="", actor="me", now=T0 + 3)
        assert turn(here, second.id, now=T0 + 4).state is State.QUEUED
        assert turn(here, first.id, now=T0 + 4).state is State.ADVANCING
        assert turn(here, second.id, now=T0 + 4).state is State.QUEUED


def test_two_rollouts_of_one_model_run_on_ranges_that_do_not_meet() -> None:
    low = plan(stage("a", 10), stage("b", 100), range_percent=(0, 50))
    with town(versions=3, running=rollout(plan=low, shares=(50_000,))) as here:
        with pytest.raises(Conflict, match="r1 of wake is running"):
            start(here, plan(model_version="wake@3.0.0", range_percent=(49, 100)))
        high = start(here, plan(stage("a", 10), model_version="wake@3.0.0", range_percent=(50, 100)))
        assert (high.state, high.shares) == (State.ADVANCING, (550_000,))
        assert len(here.registry.rollouts(live=True)) == 2


def test_a_device_is_counted_in_the_rollout_of_its_range_alone() -> None:
    low = plan(stage("a", 10), stage("b", 100), range_percent=(0, 50))
    with town(versions=3, running=rollout(plan=low, shares=(50_000,))) as here:
        (beyond,) = devices_in(500_000, 1_000_000, 1)
        said = reports(beyond, report_window(cohorts=(cohort("control"),)))
        assert ingest(here.registry, here.fleet, [said], now=T0 + 400).contradictions == 1
        assert here.cells() == []


def test_rollouts_of_several_models_do_not_meet() -> None:
    from support.values import model

    with town(running=rollout()) as here:
        here.registry.add_model(model(name="sleep"))
        for serial in (1, 2):
            here.publish(serial, model="sleep")
        assert start(here, plan(model_version="sleep@2.0.0")).state is State.ADVANCING


def test_a_device_that_enrols_later_falls_into_the_rollout_by_its_bucket() -> None:
    with town(running=rollout(state=State.RUNNING)) as here:
        treated, control = *devices_in(0, 50_000, 1), *devices_in(50_000, 1_000_000, 1)
        here.enrol(treated, control)
        said = [announce(treated, "assigned"), announce(control, "assigned", role="control")]
        assert ingest(here.registry, here.fleet, said, now=T0 + 400).contradictions == 0
        counts = here.fleet.counts("r1")[0]
        assert (counts.assigned_t, counts.assigned_c) == (1, 1)


# --- approvals of a stage ---


def waiting(here: Town) -> RolloutRecord:
    report_from(here, *devices_in(0, 50_000, 3))
    judge_now(here)
    return here.registry.rollout("r1")


TWO = plan(stage("a", 5), stage("b", 100, approval=Approval(count=2, note="look at the errors")))


def test_a_stage_waits_for_the_people_it_asks_for() -> None:
    with town(running=rollout(state=State.SOAKING, plan=TWO)) as here:
        held = waiting(here)
        assert (held.state, held.stage) == (State.WAITING_FOR_APPROVAL, 0)
        assert "stage b begins when 2 people have approved" in held.because
        later = T0 + 31 * HOUR
        assert yes(here, "r1", "ada", now=later).state is State.WAITING_FOR_APPROVAL
        assert pending_approval(here.registry, here.registry.rollout("r1"), now=later) == PendingApproval(
            stage="b", wanted=2, missing=1, by=("ada",), note="look at the errors", frozen_until=None
        )
        after = yes(here, "r1", "bob", now=later)
        assert (after.state, after.stage, after.because) == (State.ADVANCING, 1, "approved by ada, bob")
        assert actions(here, "r1") == ["await_approval", "approve", "approve", "advance"]


def test_nobody_approves_what_is_still_judged() -> None:
    with town(running=rollout(state=State.SOAKING, plan=TWO)) as here, pytest.raises(IllegalTransition):
        yes(here, "r1", "ada")


def test_an_approval_holds_for_the_evidence_it_was_given_on() -> None:
    with town(running=rollout(state=State.SOAKING, plan=TWO)) as here:
        waiting(here)
        yes(here, "r1", "ada", now=T0 + 31 * HOUR)
        doubtful = [announce(each, "activating") for each in devices_in(0, 50_000, 9)]  # and only three report
        ingest(here.registry, here.fleet, doubtful, now=T0 + 31 * HOUR)
        judge_now(here, now=T0 + 32 * HOUR)
        assert here.registry.rollout("r1").state is State.HOLDING
        report_from(here, *devices_in(0, 50_000, 9), at=T0 + 33 * HOUR)
        judge_now(here, now=T0 + 34 * HOUR)
        held = here.registry.rollout("r1")
        assert held.state is State.WAITING_FOR_APPROVAL
        pending = pending_approval(here.registry, held, now=T0 + 34 * HOUR)
        assert pending is not None
        assert (pending.by, pending.missing) == ((), 2)


def test_a_rejected_stage_is_paused_where_it_is() -> None:
    with town(running=rollout(state=State.SOAKING, plan=TWO)) as here:
        waiting(here)
        after = reject(here.registry, here.fleet, "r1", by="ada", note="", now=T0 + 31 * HOUR)
        assert (after.state, after.stage, after.live) == (State.PAUSED, 0, True)


def test_what_was_approved_in_a_freeze_goes_on_when_it_ends() -> None:
    frozen = plan(stage("a", 5), stage("b", 100, approval=Approval()), freeze=(FREEZE,))
    with town(running=rollout(state=State.SOAKING, plan=frozen)) as here:
        waiting(here)
        assert yes(here, "r1", "ada", now=T0 + 31 * HOUR).state is State.WAITING_FOR_APPROVAL
        judge_now(here, now=T0 + 32 * HOUR)
        assert turn(here, "r1", now=T0 + 32 * HOUR).state is State.WAITING_FOR_APPROVAL
        assert turn(here, "r1", now=THAW).state is State.ADVANCING


def test_a_stage_that_would_pass_the_blast_radius_is_not_entered() -> None:
    near = devices_in(0, 400_000, 5)
    said = plan(
        stage("nz", 40, regions=("NZ",)), stage("all", 50), stage("rest", 100), blast_radius=BlastRadius(devices=2)
    )
    with town(running=rollout(state=State.SOAKING, plan=said, shares=(400_000,))) as here:
        here.enrol(*near[:2], labels={"region": "NZ"})
        here.enrol(*near[2:], labels={"region": "AU"})
        report_from(here, *near[:2])
        judge_now(here)
        held = here.registry.rollout("r1")
        assert (held.state, held.stage) == (State.HOLDING, 0)
        assert "5 devices would be on the new version, and the plan's blast radius is 2" in held.because


def test_a_doubt_waits_until_the_longest_bake_is_over() -> None:
    with town(running=rollout(state=State.RUNNING, plan=plan(stage("a", 5, max_hours=40), stage("b", 100)))) as here:
        assert judge_now(here, now=T0 + 30 * HOUR).move == "wait"
        assert here.registry.rollout("r1").state is State.RUNNING
        assert judge_now(here, now=T0 + 40 * HOUR).move == "hold"
        assert here.registry.rollout("r1").state is State.HOLDING


# --- what devices say moves it on ---


def test_a_stage_runs_when_its_policy_is_out_and_soaks_when_a_device_reports() -> None:
    with town(running=rollout(state=State.ADVANCING)) as here:
        assert turn(here, "r1", now=T0 + 1, published=False).state is State.ADVANCING
        assert turn(here, "r1", now=T0 + 1).state is State.RUNNING
        assert turn(here, "r1", now=T0 + 2).state is State.RUNNING
        report_from(here, *devices_in(0, 50_000, 1))
        assert turn(here, "r1", now=T0 + 500).state is State.SOAKING
        assert actions(here, "r1") == []


def test_it_has_gone_back_when_every_device_in_reach_is_off_it() -> None:
    with town(running=rollout(state=State.SOAKING)) as here:
        for device, at in (("near", T0), ("lost", T0 - 10 * HOUR)):
            here.fleet.note_running(RunningVersion(device_id=device, model="wake", serial=2, hardware_class="", at=at))
        going = move_by_person(here.registry, here.fleet, "r1", "rollback", because="no", actor="me", now=T0 + 1)
        assert (going.state, going.ended_at, going.live) == (State.ROLLING_BACK, T0 + 1, False)
        assert turn(here, "r1", now=T0 + 2, published=False).state is State.ROLLING_BACK
        assert turn(here, "r1", now=T0 + 2).state is State.ROLLING_BACK
        here.fleet.note_running(RunningVersion(device_id="near", model="wake", serial=1, hardware_class="", at=T0 + 3))
        after = turn(here, "r1", now=T0 + 4)
        assert (after.state, after.ended_at) == (State.ROLLED_BACK, T0 + 1)
        assert actions(here, "r1") == ["roll_back", "rolled_back"]


def test_a_device_that_fell_silent_on_it_is_not_waited_for() -> None:
    with town(running=rollout(state=State.ROLLING_BACK, ended_at=T0)) as here:
        here.fleet.note_running(RunningVersion(device_id="near", model="wake", serial=2, hardware_class="", at=T0))
        assert turn(here, "r1", now=T0 + 900).state is State.ROLLING_BACK
        assert turn(here, "r1", now=T0 + 901).state is State.ROLLED_BACK


# --- what follows ---


def test_success_does_what_the_plan_says() -> None:
    said = plan(stage("all", 100), on_success=OnSuccess(alias="stable", retire_previous=True))
    with town(running=rollout(state=State.SOAKING, plan=said, shares=(900_000,))) as here:
        move_by_person(here.registry, here.fleet, "r1", "finish", because="", actor="me", now=T0)
        assert here.registry.aliases("wake") == {"champion": 2, "stable": 2}
        assert here.registry.version("wake", 1).retired
        assert actions(here, "r1") == ["finish", "alias", "retire"]


def test_a_version_that_another_rollout_needs_is_not_retired() -> None:
    low = plan(stage("a", 10), range_percent=(0, 50), on_success=OnSuccess(retire_previous=True))
    with town(versions=3, running=rollout(plan=low, shares=(50_000,))) as here:
        other = start(here, plan(stage("a", 10), model_version="wake@3.0.0", range_percent=(50, 100)))
        move_by_person(here.registry, here.fleet, "r1", "finish", because="", actor="me", now=T0)
        assert not here.registry.version("wake", 1).retired
        note = here.registry.audit_log(rollout="r1")[0]
        assert (note.action, note.because) == ("not retired", f"serial 1 is part of rollout {other.id}")


def test_failure_does_what_the_plan_says() -> None:
    said = plan(on_failure=OnFailure(alias="bad", retire_target=True, abort_queued=True))
    with town(versions=3, running=rollout(plan=said)) as here:
        behind = start(here, plan(model_version="wake@3.0.0", on_running="queue"), now=T0 + 1)
        move_by_person(here.registry, here.fleet, "r1", "rollback", because="no", actor="me", now=T0 + 2)
        assert here.registry.aliases("wake") == {"bad": 2}
        assert here.registry.version("wake", 2).retired
        assert here.registry.rollout(behind.id).state is State.ABORTED
        assert actions(here, behind.id) == ["queue", "abort"]
