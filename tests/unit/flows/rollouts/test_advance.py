"""The gate's verdict becomes a move, whole, with its audit entry."""

from collections.abc import Mapping

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
    reports,
    rollout,
    seen,
    shadow_plan,
    stage,
    town,
    window,
)
from whimbrel.errors import Conflict
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import RolloutLedgers, replay_rollout
from whimbrel.flows.rollouts.move import move_by_person
from whimbrel.flows.rollouts.progress import follow
from whimbrel.gate.verdict import Verdict
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS

LATER = T0 + 30 * HOUR


def report_from(here: Town, devices: list[str], *, role: str = "treated", stage: int = 0, n: int = 1) -> None:
    from support.values import cohort

    said = [announce(d, "activating" if role == "treated" else "placebo", role=role, stage=stage) for d in devices]
    said += [reports(d, window(n, cohorts=(cohort(role, stage=stage),))) for d in devices]
    ingest(here.registry, here.fleet, said, now=T0 + 400)


def judge_now(here: Town, *, now: float = LATER) -> Verdict:
    """As a controller's round does: the gate is asked, the policy is out, and what follows by itself is done."""
    verdict = advance(here.registry, here.fleet, here.registry.rollout("r1"), now=now)
    follow(here.registry, here.fleet, here.registry.rollout("r1"), published=True, now=now)
    return verdict


def harmed(here: Town) -> None:
    here.fleet.tally(
        "r1",
        [c for w in range(6) for c in (cell("treated", w, n=100, crashed=20), cell("control", w, n=1900, crashed=19))],
    )


def now_is(here: Town) -> RolloutRecord:
    return here.registry.rollout("r1")


def test_proven_harm_takes_it_back_quarantines_it_and_writes_the_evidence() -> None:
    with town(running=rollout()) as here:
        harmed(here)
        verdict = judge_now(here)
        assert (now_is(here).state, now_is(here).ended_at) == (State.ROLLED_BACK, LATER)
        (refused,) = here.registry.quarantines("wake")
        assert (refused.serial, refused.because) == (2, verdict.because)
        after, entry = here.registry.audit_log()
        assert (after.actor, after.action) == ("controller", "rolled_back")
        assert (entry.actor, entry.action) == ("gate", "roll_back")
        assert entry.evidence["guardrails"]["crash"] > entry.evidence["log_e_needed"]
        assert here.registry.model("wake").baseline == 1


def test_a_healthy_stage_moves_to_the_next() -> None:
    with town(running=rollout()) as here:
        report_from(here, devices_in(0, 50_000, 3))
        assert judge_now(here).move == "advance"
        after = now_is(here)
        assert (after.state, after.stage, after.shares, after.stage_since) == (
            State.RUNNING,
            1,
            (50_000, 250_000),
            LATER,
        )


def test_a_share_never_shrinks_where_the_first_was_raised() -> None:
    with town(running=rollout(shares=(400_000,))) as here:
        report_from(here, devices_in(0, 50_000, 3))
        judge_now(here)
        assert now_is(here).shares == (400_000, 400_000)


def test_the_last_stage_makes_the_target_the_baseline_and_champion() -> None:
    with town(running=rollout(plan=plan(stage("all", 100)), shares=(900_000,))) as here:
        report_from(here, devices_in(0, 50_000, 3))
        assert judge_now(here).move == "finish"
        assert now_is(here).state is State.COMPLETED
        assert here.registry.model("wake").baseline == 2
        assert here.registry.version("wake", 2).good
        assert here.registry.aliases("wake") == {"champion": 2}


def test_only_closed_windows_are_judged() -> None:
    with town(running=rollout()) as here:
        harmed(here)
        assert judge_now(here, now=T0 + 10).move == "wait"
        assert now_is(here).state is State.RUNNING


def test_a_stage_that_soaked_without_reports_holds_once_and_says_why() -> None:
    with town(running=rollout()) as here:
        assert judge_now(here).move == "hold"
        assert judge_now(here).move == "hold"
        assert now_is(here).state is State.HOLDING
        assert [entry.action for entry in here.registry.audit_log()] == ["hold"]


def test_a_holding_rollout_says_its_newest_reason() -> None:
    with town(running=rollout(state=State.HOLDING, because="old")) as here:
        judge_now(here)
        assert "there is no device of stage canary" in now_is(here).because


def test_a_holding_rollout_still_advances_when_reports_come() -> None:
    with town(running=rollout(state=State.HOLDING)) as here:
        report_from(here, devices_in(0, 50_000, 3))
        judge_now(here)
        assert (now_is(here).state, now_is(here).stage) == (State.RUNNING, 1)


def test_a_paused_rollout_does_not_advance() -> None:
    with town(running=rollout(state=State.PAUSED)) as here:
        report_from(here, devices_in(0, 50_000, 3))
        assert judge_now(here).move == "advance"
        assert (now_is(here).state, now_is(here).stage) == (State.PAUSED, 0)


def test_harm_takes_a_paused_rollout_back() -> None:
    with town(running=rollout(state=State.PAUSED)) as here:
        harmed(here)
        judge_now(here)
        assert now_is(here).state is State.ROLLED_BACK


# --- people ---


def move(here: Town, wanted: str) -> RolloutRecord:
    return move_by_person(here.registry, here.fleet, "r1", wanted, because="I say so", actor="me", now=LATER)


def test_pause_and_resume() -> None:
    with town(running=rollout()) as here:
        assert move(here, "pause").state is State.PAUSED
        assert move(here, "resume").state is State.RUNNING
        assert [(e.actor, e.action, e.because) for e in here.registry.audit_log()] == [
            ("me", "resume", "I say so"),
            ("me", "pause", "I say so"),
        ]


def test_an_abort_quarantines_nothing_and_a_rollback_does() -> None:
    with town(running=rollout()) as here:
        assert move(here, "abort").state is State.ABORTED
        assert here.registry.quarantines("wake") == []
    with town(running=rollout()) as here:
        assert move(here, "rollback").state is State.ROLLING_BACK
        assert [entry.serial for entry in here.registry.quarantines("wake")] == [2]


def test_somebody_who_was_first_is_not_overwritten() -> None:
    with town(running=rollout()) as here:
        before = now_is(here)
        move(here, "pause")
        harmed(here)
        with pytest.raises(Conflict, match="moved by somebody else"):
            advance(here.registry, here.fleet, before, now=LATER)
        assert now_is(here).state is State.PAUSED
        assert here.registry.quarantines("wake") == []


# --- small fleets ---


def test_a_stage_that_no_device_falls_in_asks_for_no_reports_of_its_own() -> None:
    """One device on a desk: it is in the canary, nobody is left for the later stages, and they held for ever."""
    with town(running=rollout()) as here:
        (only,) = devices_in(0, 50_000, 1)
        here.enrol(only)
        report_from(here, [only])
        for moment, expected in ((LATER, 1), (LATER + 50 * HOUR, 2)):
            assert judge_now(here, now=moment).move == "advance"
            assert now_is(here).stage == expected
        assert judge_now(here, now=LATER + 60 * HOUR).move == "finish"


def test_a_later_stage_that_devices_fall_in_waits_for_their_reports() -> None:
    with town(running=rollout()) as here:
        here.enrol(*devices_in(0, 50_000, 1), *devices_in(50_000, 250_000, 1))
        report_from(here, devices_in(0, 50_000, 1))
        judge_now(here)
        assert judge_now(here, now=LATER + 50 * HOUR).move == "hold"


def test_a_fleet_in_which_nobody_ever_reported_holds_however_empty_its_stages_are() -> None:
    with town(running=rollout()) as here:
        here.enrol(*devices_in(900_000, BUCKETS, 1))
        assert judge_now(here).move == "wait"  # its share grows to the only device
        assert judge_now(here, now=LATER + 30 * HOUR).move == "hold"


def test_a_plan_that_ends_below_everybody_waits_for_a_person() -> None:
    with town(running=rollout(plan=plan(stage("some", 25)), shares=(250_000,))) as here:
        report_from(here, devices_in(0, 50_000, 3))
        assert judge_now(here).move == "hold"
        assert (now_is(here).state, here.registry.model("wake").baseline) == (State.HOLDING, 1)
        assert move(here, "finish").state is State.COMPLETED
        assert here.registry.model("wake").baseline == 2


# --- one slice, replay, and what was taken back ---


def one_bad_class(here: Town, *, windows: range = range(8)) -> None:
    here.fleet.tally(
        "r1",
        [
            cell(role, w, n=n, crashed=(n // 4 if (name, role) == ("c0", "treated") else n // 100), hardware_class=name)
            for w in windows
            for name in ("c0", "c1", "c2", "c3")
            for role, n in (("treated", 100), ("control", 1900))
        ],
    )


def test_one_bad_class_goes_back_alone_and_the_rest_goes_on() -> None:
    with town(running=rollout()) as here:
        one_bad_class(here)
        verdict = judge_now(here, now=T0 + 8 * 300)
        assert (verdict.move, verdict.classes) == ("slice_back", ("c0",))
        assert (now_is(here).state, now_is(here).without) == (State.RUNNING, ("c0",))
        (refused,) = here.registry.quarantines("wake")
        assert refused.selector.matches({"hardware": "c0"})
        assert not refused.selector.matches({"hardware": "c1"})
        (entry,) = here.registry.audit_log()
        assert (entry.action, entry.evidence["bad_classes"]) == ("slice_back", ["c0"])
        assert "harm is proven in c0 (crash rate 25.00% against 1.00% in the control) and nowhere else" in entry.because


def by_os(here: Town, bad: Mapping[tuple[str, str], int], *, windows: range = range(8)) -> None:
    """Two boards, each with three operating systems; `bad`: the crash rate in percent of those on the new version."""
    here.fleet.tally(
        "r1",
        [
            cell(
                role,
                w,
                n=n,
                hardware_class=board,
                slices={"os": os},
                crashed=n * (bad.get((board, os), 1) if role == "treated" else 1) // 100,
            )
            for w in windows
            for board in ("pi4", "pi5")
            for os in ("a", "b", "c")
            for role, n in (("treated", 100), ("control", 1900))
        ],
    )


def test_an_operating_system_goes_back_alone_on_all_hardware() -> None:
    with town(running=rollout()) as here:
        by_os(here, {("pi4", "b"): 25, ("pi5", "b"): 25})
        verdict = judge_now(here, now=T0 + 8 * 300)
        assert (verdict.move, verdict.classes) == ("slice_back", ("os=b",))
        assert now_is(here).without == ("os=b",)
        (refused,) = here.registry.quarantines("wake")
        assert refused.selector.matches({"hardware": "pi4", "os": "b"})
        assert not refused.selector.matches({"hardware": "b", "os": "a"})
        by_os(here, {("pi4", "b"): 25, ("pi5", "b"): 25}, windows=range(8, 20))
        assert judge_now(here, now=T0 + 20 * 300).move == "wait"
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_half_of_the_fleet_is_no_slice() -> None:
    """Harm everywhere was named first in the class of most devices, and only these went back."""
    with town(running=rollout()) as here:
        sizes = {"common": 300, "b": 100, "c": 100, "d": 100}
        here.fleet.tally(
            "r1",
            [
                cell(
                    role,
                    w,
                    n=n * times,
                    hardware_class=name,
                    crashed=n // 12 if (name, role) == ("common", "treated") else n * times // 100,
                )
                for w in range(8)
                for name, n in sizes.items()
                for role, times in (("treated", 1), ("control", 19))
            ],
        )
        assert judge_now(here, now=T0 + 8 * 300).move == "roll_back"


def test_of_two_labels_that_explain_the_harm_the_smaller_slice_goes_back() -> None:
    """The bad board has an operating system of its own: the board's label would do, and so would the other one."""
    with town(running=rollout()) as here:
        here.fleet.tally(
            "r1",
            [
                cell(
                    role,
                    w,
                    n=n,
                    hardware_class=board,
                    slices={"os": os},
                    crashed=n // 4 if (board, role) == ("pi5", "treated") else n // 100,
                )
                for w in range(8)
                for board, os in (("pi3", "a"), ("pi4", "a"), ("nano", "b"), ("orin", "b"), ("pi5", "c"), ("pi6", "c"))
                for role, n in (("treated", 100), ("control", 1900))
            ],
        )
        assert judge_now(here, now=T0 + 8 * 300).classes == ("pi5",)


def test_a_slice_that_went_back_is_judged_no_more() -> None:
    with town(running=rollout()) as here:
        one_bad_class(here)
        judge_now(here, now=T0 + 8 * 300)
        one_bad_class(here, windows=range(8, 20))
        assert judge_now(here, now=T0 + 20 * 300).move == "wait"
        assert len(here.registry.quarantines("wake")) == 1


def test_devices_of_the_slice_that_go_back_are_no_kill_switch_for_the_rest() -> None:
    with town(running=rollout(without=("c0",))) as here:
        names = devices_in(0, 50_000, 4)
        told = [announce(d, step, hardware_class="c0") for d in names for step in ("activated", "went_back")]
        ingest(here.registry, here.fleet, told, now=T0 + 400)
        assert judge_now(here, now=T0 + 600).move == "wait"


def test_harm_everywhere_takes_everything_back_and_no_slice() -> None:
    with town(running=rollout()) as here:
        here.fleet.tally(
            "r1",
            [
                cell(role, w, n=n, crashed=n // 5 if role == "treated" else n // 100, hardware_class=name)
                for w in range(8)
                for name in ("c0", "c1", "c2", "c3")
                for role, n in (("treated", 100), ("control", 1900))
            ],
        )
        assert judge_now(here).move == "roll_back"


def test_every_verdict_is_given_again_by_the_stored_windows() -> None:
    with town(running=rollout()) as here:
        ledgers: RolloutLedgers = {}
        for w in range(12):
            one_bad_class(here, windows=range(w, w + 1))
            advance(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + (w + 1) * 300, ledgers=ledgers)
        answers = replay_rollout(here.registry, here.fleet, "r1")
        assert len(answers) == 12
        assert all(each.same for each in answers)
        assert "slice_back" in {each.move for each in answers}


def test_a_window_that_was_changed_afterwards_is_found_by_the_replay() -> None:
    with town(running=rollout()) as here:
        one_bad_class(here)
        judge_now(here, now=T0 + 8 * 300)
        here.fleet.tally("r1", [cell("treated", 3, n=1, hardware_class="c1")])
        assert [each.same for each in replay_rollout(here.registry, here.fleet, "r1")] == [False]


# --- the shadow ---


def in_shadow(here: Town, *, agreed: float = 100, n: int = 3) -> None:
    devices = devices_in(0, 500_000, n)
    ingest(here.registry, here.fleet, [announce(d, "shadowing", role="treated") for d in devices], now=T0 + 20)
    for w in range(1, 9):
        told = window(w, serial=1, cohorts=(cohort(),), shadow=seen(agreed=agreed))
        ingest(here.registry, here.fleet, [reports(d, told) for d in devices], now=T0 + 300 * w)


def test_a_candidate_that_agrees_in_the_shadow_is_served_to_the_share_of_the_next_stage() -> None:
    with town(running=rollout(plan=shadow_plan(), shares=(500_000,))) as here:
        in_shadow(here)
        assert judge_now(here).move == "advance"
        assert (now_is(here).stage, now_is(here).shares) == (1, (500_000, 50_000))
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_a_candidate_that_disagrees_is_quarantined_and_never_served() -> None:
    with town(running=rollout(plan=shadow_plan(), shares=(500_000,))) as here:
        in_shadow(here, agreed=70)
        assert judge_now(here, now=T0 + 3000).move == "roll_back"
        assert now_is(here).state is State.ROLLED_BACK
        (refused,) = here.registry.quarantines("wake")
        assert "70.00% of the inputs" in refused.because
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_a_served_stage_without_devices_is_not_judged_by_the_shadow() -> None:
    with town(running=rollout(plan=shadow_plan(), stage=1, shares=(500_000, 1))) as here:
        in_shadow(here)
        verdict = judge_now(here)
        assert (verdict.move, now_is(here).stage) == ("hold", 1)
        assert "so nobody can take the version" in verdict.because
