"""What moves, waits, is refused or goes back, with its whole sentence, its evidence and its entry in the audit log."""

from typing import Any

import msgspec
import pytest

from support.people_of_flows import by_person, refusal, start
from support.values import (
    HOUR,
    T0,
    plan,
    quarantined,
    rollout,
    selector,
    stage,
    town,
)
from whimbrel.errors import Conflict, Refused
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.records import ApprovalRecord
from whimbrel.flows.rollouts.approvals import PendingApproval, pending_approval
from whimbrel.flows.rollouts.move import move
from whimbrel.flows.rollouts.progress import devices_left, follow
from whimbrel.plan.governance import Approval, OnFailure, OnSuccess
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import Event, State
from whimbrel.plan.schedule import Freeze, Schedule
from whimbrel.policy.shadow import ShadowStage

FREEZE = Freeze(start="2026-01-01", end="2026-01-02")  # T0 lies in it; it ends with the 3rd


# --- it begins, waits, or is refused ---


def test_what_is_written_down_when_a_rollout_begins() -> None:
    with town() as here:
        begun = start(here, plan(stage("a", 2.5), stage("b", 100)))
        assert (begun.id, begun.because, begun.started_by, begun.delays, begun.created_at, begun.state_since) == (
            "wake-2-abcdef",
            "started by me",
            "me",
            (3 * HOUR,),
            T0,
            T0,
        )
        (entry,) = here.registry.audit_log()
        assert entry.because == "2026.01.01.2 (2.0.0) to 2.5% of the devices"
        assert entry.evidence == {"shares": [25_000], "salt": 42, "baseline": 1}


def test_a_part_of_the_buckets_is_told_as_so_much_of_all_devices() -> None:
    with town() as here:
        start(here, plan(stage("a", 10), stage("b", 100), range_percent=(50, 100)))
        assert here.registry.audit_log()[0].because == "2026.01.01.2 (2.0.0) to 5% of the devices"


def test_a_draft_says_how_many_must_approve() -> None:
    with town() as here:
        draft = start(here, draft=True)
        said = "written down by me; it begins when one person has approved"
        (entry,) = here.registry.audit_log()
        assert (draft.because, entry.because, entry.action, entry.evidence) == (said, said, "draft", {"approvals": 1})


@pytest.mark.parametrize(("draft", "counts"), [(False, [0, 2]), (True, [0, 1])])
def test_what_a_machine_starts_needs_two_people_later(draft: bool, counts: list[int]) -> None:
    with town() as here:
        settings = msgspec.structs.replace(here.registry.model("wake").settings, second_person_above_percent=10.0)
        here.registry.change_model("wake", settings=settings)
        begun = start(here, plan(stage("a", 5), stage("b", 100)), started_by="", draft=draft)
        assert [0 if each.approval is None else each.approval.count for each in begun.plan.stages] == counts
        whole = start(here, plan(stage("b", 100), on_running="queue"), started_by="", draft=draft, tag="whole")
        assert [each.approval.count for each in whole.plan.stages if each.approval] == [2]


@pytest.mark.parametrize(
    ("said", "changes", "sentence"),
    [
        (
            plan(),
            {"retired": True},
            "wake 2026.01.01.2 is retired; publish a new version",
        ),
        (
            plan(model_version="wake@1.0.0"),
            {},
            "wake 2026.01.01.1 is the baseline already: every device is meant to run it",
        ),
        (
            plan(stage(size_bytes_max=101), stage("all", 100, size_bytes_max=99)),
            {},
            "the largest variant of wake 2026.01.01.2 has 100 bytes, and the plan's size_bytes_max is 99; publish a "
            "smaller build, or raise the limit",
        ),
        (
            plan(stage(drift_psi_max=0.25)),
            {},
            "the plan watches drift, and wake 2026.01.01.2 was published without a reference of its predictions; "
            "publish it with one in its card (reference: ...), or take drift out of the plan",
        ),
    ],
)
def test_what_may_not_be_rolled_out_says_what_to_do(said: Plan, changes: dict[str, Any], sentence: str) -> None:
    with town() as here:
        here.registry.change_version("wake", 2, **changes or {"good": False})
        assert refusal(Refused, start, here, said) == sentence
        assert here.registry.rollouts() == []


def test_a_size_that_the_plan_just_allows_is_taken() -> None:
    with town() as here:
        assert start(here, plan(stage(size_bytes_max=100), stage("all", 100))).live


def test_a_version_that_was_taken_back_is_refused_with_the_newest_reason() -> None:
    with town() as here:
        here.registry.quarantine(quarantined(2, because="old", selector=selector(hardware="pi3")))
        here.registry.quarantine(quarantined(2, because="it crashes", at=T0 + 1))
        assert refusal(Refused, start, here) == (
            "wake 2026.01.01.2 was taken back before (it crashes); publish a new version, or offer it again with a "
            "reason (--override)"
        )


def test_a_first_version_in_the_shadow_names_its_stage() -> None:
    with town(versions=1) as here:
        here.registry.change_model("wake", baseline=None)
        tried = plan(stage("look", 5, shadow=ShadowStage()), stage("all", 100), model_version="wake@1.0.0")
        assert refusal(Refused, start, here, tried) == (
            "stage look tries the version beside the one that serves, and no version of wake serves yet; begin with a "
            "stage that serves"
        )


def test_what_is_in_its_way_is_named_with_what_to_do() -> None:
    with town(versions=3, running=rollout(state=State.WAITING_FOR_APPROVAL)) as here:
        asked = plan(model_version="wake@3.0.0")
        assert refusal(Conflict, start, here, asked) == (
            "rollout r1 of wake is waiting for approval; end that one first (rollout finish, abort or rollback), or "
            "let this one wait for it (on_running: queue)"
        )
        queued = start(here, msgspec.structs.replace(asked, on_running="queue"))
        assert (queued.state, queued.because) == (
            State.QUEUED,
            "rollout r1 of wake is waiting for approval; it begins when the way is free",
        )
        entry = here.registry.audit_log()[0]
        assert (entry.action, entry.because, entry.evidence) == ("queue", queued.because, {})


def test_a_newer_reason_to_wait_is_written_and_the_same_is_not_told_again() -> None:
    with town() as here:
        one = start(here, plan(freeze=(FREEZE,)))
        told = len(here.registry.audit_log())
        again = follow(here.registry, here.fleet, one, published=True, now=T0 + HOUR)
        assert again == one
        assert len(here.registry.audit_log()) == told
        entry = here.registry.audit_log()[0]
        assert (entry.action, entry.because) == (
            "schedule",
            "a freeze holds until 2026-01-03 00:00 UTC; it begins then",
        )


def test_what_could_not_begin_ends_with_the_whole_reason() -> None:
    with town() as here:
        one = start(here, plan(schedule=Schedule(start_at="2026-01-01T09:00")))
        here.registry.change_version("wake", 2, retired=True)
        ended = follow(here.registry, here.fleet, one, published=True, now=T0 + 9 * HOUR)
        said = "it could not begin: wake 2026.01.01.2 is retired; publish a new version"
        assert (ended.state, ended.because, ended.ended_at, ended.state_since) == (
            State.ABORTED,
            said,
            T0 + 9 * HOUR,
            T0 + 9 * HOUR,
        )
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.because) == ("controller", "fail_to_begin", said)


# --- moves ---


def test_a_move_is_written_with_its_stage_and_share() -> None:
    half = plan(stage("a", 10), stage("b", 100), range_percent=(50, 100))
    with town(running=rollout(plan=half, shares=(550_000,), state_since=T0)) as here:
        paused = by_person(here, "pause")
        assert (paused.because, paused.state_since, paused.ended_at) == ("pause by ada", T0 + 9, None)
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.because, entry.evidence) == (
            "ada",
            "pause",
            "pause by ada",
            {"stage": 0, "share": 0.05},
        )


def test_a_slice_that_goes_back_leaves_the_state_and_its_time() -> None:
    with town(running=rollout(state_since=T0 + 3, without=("b",))) as here:
        after = move(
            here.registry,
            here.fleet,
            here.registry.rollout("r1"),
            Event.SLICE_BACK,
            because="harm",
            actor="gate",
            evidence={"x": 1},
            slices=("c", "a"),
            now=T0 + 9,
        )
        assert (after.without, after.state, after.state_since) == (("a", "b", "c"), State.RUNNING, T0 + 3)
        (refused,) = here.registry.quarantines("wake")
        assert [refused.selector.matches({"hardware": each}) for each in ("a", "b", "c")] == [True, False, True]
        assert here.registry.audit_log()[0].evidence == {"stage": 0, "share": 0.05, "x": 1}


def test_nothing_is_finished_in_a_freeze_and_everything_else_moves() -> None:
    with town(running=rollout(plan=plan(freeze=(FREEZE,)))) as here:
        assert refusal(Refused, by_person, here, "finish") == (
            "a freeze holds until 2026-01-03 00:00 UTC; until then there are rollout pause, abort and rollback"
        )
        assert by_person(here, "pause").state is State.PAUSED
        assert by_person(here, "rollback").state is State.ROLLING_BACK


def test_who_agreed_to_an_earlier_stage_counts_when_it_is_finished() -> None:
    with town(running=rollout(started_by="ada")) as here:
        settings = msgspec.structs.replace(here.registry.model("wake").settings, second_person_above_percent=10.0)
        here.registry.change_model("wake", settings=settings)
        assert refusal(Refused, by_person, here, "finish") == (
            "ada started it, and what passes 10% of this model's devices needs the approval of another person"
        )
        here.registry.add_approval(ApprovalRecord(rollout="r1", stage=0, by="bob", note="", at=T0))
        assert by_person(here, "finish").state is State.COMPLETED


def test_what_follows_a_move_is_told_by_the_rollout_itself() -> None:
    said = plan(
        on_success=OnSuccess(alias="stable", retire_previous=True),
        on_failure=OnFailure(alias="bad", retire_target=True, abort_queued=True),
    )
    with town(running=rollout(plan=said)) as here:
        by_person(here, "finish")
        told = [(each.actor, each.action, each.because) for each in here.registry.audit_log()[:2]]
        assert told == [
            ("rollout r1", "retire", "serial 1, the baseline before"),
            ("rollout r1", "alias", "stable names the new baseline"),
        ]
    with town(versions=3, running=rollout(plan=said)) as here:
        behind = start(here, plan(model_version="wake@3.0.0", on_running="queue"))
        by_person(here, "rollback")
        told = [(each.actor, each.action, each.because) for each in here.registry.audit_log()[:3]]
        ended = "r1 was taken back, and its plan says that what queues behind it ends"
        assert told == [
            ("rollout r1", "abort", ended),
            ("rollout r1", "retire", "serial 2, which was taken back"),
            ("rollout r1", "alias", "bad names the version that was taken back"),
        ]
        after = here.registry.rollout(behind.id)
        assert (after.because, after.ended_at, after.state_since) == (ended, T0 + 9, T0 + 9)


def test_what_cannot_be_retired_says_what_needs_it() -> None:
    said = plan(stage("a", 10), range_percent=(0, 50), on_failure=OnFailure(retire_target=True))
    other = rollout(id="r2", plan=plan(stage("a", 10), range_percent=(50, 100)), shares=(550_000,))
    with town(running=rollout(plan=said, shares=(50_000,))) as here:
        here.registry.add_rollout(other, plan_text="")
        by_person(here, "rollback")
        entry = here.registry.audit_log()[0]
        assert (entry.action, entry.because) == ("not retired", "serial 2 is part of rollout r2")
        assert not here.registry.version("wake", 2).retired
    with town(running=rollout(plan=said, shares=(50_000,))) as here:
        here.registry.change_model("wake", baseline=2)
        by_person(here, "rollback")
        assert here.registry.audit_log()[0].because == "serial 2 is part of the baseline"
    none = plan(on_success=OnSuccess(retire_previous=True))
    with town(running=rollout(plan=none)) as here:
        here.registry.change_model("wake", baseline=2)  # there is none before it
        by_person(here, "finish")
        assert not here.registry.version("wake", 2).retired


def test_who_is_asked_is_told_with_the_note_and_the_freeze() -> None:
    said = plan(stage("a", 5), stage("b", 100, approval=Approval(count=2, note="look")), freeze=(FREEZE,))
    with town(running=rollout(state=State.WAITING_FOR_APPROVAL, plan=said, state_since=T0, started_by="eve")) as here:
        for stage_, by, at in ((1, "ada", T0 + 5), (1, "bob", T0 - 1), (0, "cy", T0 + 5), (1, "eve", T0 + 5)):
            here.registry.add_approval(ApprovalRecord(rollout="r1", stage=stage_, by=by, note="", at=at))
        waiting = here.registry.rollout("r1")
        assert pending_approval(here.registry, waiting, now=T0 + 6) == PendingApproval(
            stage="b", wanted=2, missing=1, by=("ada",), note="look", frozen_until="2026-01-03 00:00 UTC"
        )
        running = msgspec.structs.replace(waiting, state=State.RUNNING)
        assert pending_approval(here.registry, running, now=T0 + 6) is None


def test_a_way_back_takes_as_long_as_the_last_device_in_reach() -> None:
    with town(running=rollout(state=State.ROLLING_BACK, ended_at=T0, state_since=T0)) as here:
        reach = 3 * 300.0
        for device, at in (("in reach", T0), ("out of reach", T0 - 1)):
            here.fleet.note_running(RunningVersion(device_id=device, model="wake", serial=2, hardware_class="", at=at))
        row = here.registry.rollout("r1")
        assert devices_left(here.registry, here.fleet, row, now=T0 + reach) == 1
        assert devices_left(here.registry, here.fleet, row, now=T0 + reach - 1) == 2
        assert devices_left(here.registry, here.fleet, row, now=T0 + reach + 0.1) == 0
        follow(here.registry, here.fleet, row, published=True, now=T0 + reach + 1.23456)
        entry = here.registry.audit_log()[0]
        assert (entry.actor, entry.action, entry.evidence) == ("controller", "rolled_back", {"took_s": 901.235})
        assert entry.because == "started; every device that was heard from is off it"
