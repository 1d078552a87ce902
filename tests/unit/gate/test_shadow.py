"""May a candidate that was only tried beside the active version serve?"""

import functools
import random

import pytest

from support.shadows import SHADOWED as COUNTS
from support.shadows import shadow_verdict as ask
from support.values import (
    HOUR,
    cell,
    devices_in,
    line,
    model,
    plan,
    rollout,
    seen,
    shadow_plan,
    shadowed,
    stage,
    version,
)
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.render_policy import render_policy
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.shadow_ledger import candidate_alpha, serving_part, shadow_part
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.shadow import ShadowSums, Units
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Rollback
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.decide import Decision, Profile, decide
from whimbrel.policy.policy import Policy
from whimbrel.policy.shadow import ShadowStage


def worse(agreed: float = 70, **more: object) -> ShadowSums:
    return seen(100, agreed=agreed, **more)


# --- the plan ---


def test_a_shadow_stage_is_read_from_a_file() -> None:
    text = """
rollout:
  model_version: wake@2.0.0
  stages:
    - {name: shadow, target_percent: 20, duration_hours: 6, shadow: {sample_percent: 10, agreement_min: 0.95}}
    - {name: general, target_percent: 100}
"""
    asked = read_plan(text, what="plan.yaml").stages[0].shadow
    assert asked == ShadowStage(sample_percent=10, agreement_min=0.95)
    assert asked.order.sample_ppm == 100_000


def test_a_shadow_stage_after_one_that_serves_is_refused() -> None:
    with pytest.raises(ValueError, match="shadow first"):
        plan(stage(), stage("shadow", 50, shadow=ShadowStage()), stage("general", 100))


def test_a_plan_that_serves_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="add one that serves"):
        plan(stage("shadow", 50, shadow=ShadowStage()))


def test_shares_grow_among_shadow_stages_and_among_those_that_serve() -> None:
    assert shadow_plan(percent=50).shadows == 1
    with pytest.raises(ValueError, match="a share only grows"):
        plan(stage("one", 50, shadow=ShadowStage()), stage("two", 20, shadow=ShadowStage()), stage("general", 100))


def test_the_budgets_of_both_parts_add_up_to_the_plans() -> None:
    whole = plan(stage("a", 5, shadow=ShadowStage()), stage("b", 9, shadow=ShadowStage()), stage("general", 100))
    parts = serving_part(whole).alpha + shadow_part(whole).alpha + 2 * candidate_alpha(whole)
    assert parts == pytest.approx(whole.alpha)


def test_what_a_shadow_stage_asks_of_the_app_holds_for_the_stages_that_serve() -> None:
    whole = plan(stage("a", 5, shadow=ShadowStage(), error_rate_max=0.2), stage("general", 100))
    assert serving_part(whole).criteria(0).error_rate_max == 0.2


def test_devices_that_refuse_the_candidate_themselves_stop_it() -> None:
    """Both devices of a small shadow refused it after three deaths each, told no more, and the stage held for ever."""
    two = dict.fromkeys(("assigned_t", "assigned_c", "activated_t", "placebo_c", "reported_t", "reported_c"), 2)
    verdict = ask(counts=Counts(**two, shadowed_t=2, gave_up_t=2, failed_t=2))
    assert verdict.move == "roll_back"
    assert "2 of 2 devices that tried it refused it themselves" in verdict.because
    assert ask(counts=Counts(**two, shadowed_t=2, gave_up_t=1, failed_t=1)).move != "roll_back"
    assert ask(counts=Counts(**two, shadowed_t=1, gave_up_t=1, failed_t=1)).move == "roll_back"


# --- the policy and the decision ---


def rendered(record: RolloutRecord) -> Policy:
    return render_policy(model(), versions=[version(1), version(2)], rollouts=[record], quarantine=[], sequence=1)


def decided(policy: Policy, start: int, end: int, **more: object) -> Decision:
    return decide(policy, line(), Profile(devices_in(start, end, 1)[0], **more))


IN_SHADOW = rendered(rollout(plan=shadow_plan(), shares=(500_000,)))
SERVING = rendered(rollout(plan=shadow_plan(), stage=1, shares=(500_000, 50_000)))


def test_a_device_in_the_shadow_runs_the_baseline_and_learns_what_to_try() -> None:
    decision = decided(IN_SHADOW, 0, 500_000)
    assert (decision.serial, decision.offer) == (1, "run")
    assert decision.beside is not None
    assert (decision.beside.serial, decision.beside.shadow.sample_ppm) == (2, 50_000)
    assert [(each.role, each.stage) for each in decision.assignments] == [("treated", 0)]


def test_the_rest_is_a_control_with_nothing_beside() -> None:
    decision = decided(IN_SHADOW, 500_000, BUCKETS)
    assert (decision.serial, decision.beside) == (1, None)
    assert [(each.role, each.stage) for each in decision.assignments] == [("control", 0)]


def test_after_the_shadow_a_smaller_share_is_served_and_nobody_shadows() -> None:
    assert (decided(SERVING, 0, 50_000).serial, decided(SERVING, 0, 50_000).beside) == (2, None)
    later = decided(SERVING, 50_000, 500_000)
    assert (later.serial, later.beside) == (1, None)
    assert [(each.role, each.stage) for each in later.assignments] == [("control", 1)]


def test_a_candidate_that_failed_on_a_device_is_not_tried_there_again_and_the_device_stays_counted() -> None:
    decision = decided(IN_SHADOW, 0, 500_000, refused=frozenset({2}))
    assert (decision.serial, decision.beside) == (1, None)
    assert decision.assignments != ()
    assert "refused by this device" in decision.because


def test_two_shadow_stages_have_one_cohort_each() -> None:
    two = plan(stage("a", 5, shadow=ShadowStage()), stage("b", 50, shadow=ShadowStage()), stage("general", 100))
    policy = rendered(rollout(plan=two, stage=1, shares=(50_000, 500_000)))
    assert [each.stage for each in decided(policy, 0, 50_000).assignments] == [1]


# --- the gate ---


def test_a_candidate_that_agrees_goes_on_and_the_sentence_says_how_sure_that_is() -> None:
    verdict = ask(*shadowed(one=seen(100, agreed=99)))
    assert verdict.move == "advance"
    assert "99.00% of 10000 inputs of 10 devices" in verdict.because
    assert "is refuted" in verdict.because


def test_a_candidate_that_disagrees_is_stopped_before_the_soak_is_over() -> None:
    verdict = ask(*shadowed(3, one=worse()), soaked_s=60)
    assert verdict.move == "roll_back"
    assert "70.00% of the inputs, and the plan asks for 98.00%" in verdict.because
    assert "answered nobody" in verdict.because


def test_a_device_window_is_one_unit_however_many_inputs_it_has() -> None:
    few = ask(*shadowed(1, devices=3, one=seen(10, agreed=7)), soaked_s=60)
    many = ask(*shadowed(1, devices=3, one=seen(1_000_000, agreed=700_000)), soaked_s=60)
    assert few.move == many.move == "wait"
    assert few.evidence["log_e"] == many.evidence["log_e"]


def test_a_candidate_that_ends_its_process_is_stopped() -> None:
    verdict = ask(*shadowed(2, devices=3, one=seen(3, crashed=3)), soaked_s=60)
    assert verdict.move == "roll_back"
    assert "ended its process in 6 of 6 windows" in verdict.because


def test_a_candidate_that_raises_is_stopped() -> None:
    verdict = ask(*shadowed(one=seen(100, errors=20)), soaked_s=60)
    assert verdict.move == "roll_back"
    assert "fails on 20.00% of the inputs" in verdict.because


def test_the_sentence_tells_failures_that_ended_the_process_from_others() -> None:
    few = [
        each
        for w in range(3)
        for each in (
            cell("treated", w, n=2, shadow=Units.of(seen(5, errors=4)).plus(Units.of(seen(5, errors=3, crashed=1)))),
            cell("control", w, n=2),
        )
    ]
    verdict = ask(*few, soaked_s=60)
    assert verdict.move == "roll_back"
    assert "fails on 80.00% of the inputs" in verdict.because
    assert "(it ended its process on 3)" in verdict.because


def test_a_slower_candidate_is_stopped_where_the_plan_limits_its_time_and_nowhere_else() -> None:
    slow = shadowed(one=seen(100, ratio=3.0))
    assert ask(*slow, of=shadow_plan(latency_ratio_max=1.5), soaked_s=60).move == "roll_back"
    assert ask(*slow, soaked_s=60).move == "wait"


def test_a_candidate_at_its_limits_is_no_harm() -> None:
    """Every figure exactly where the plan draws the line, for a thousand device-windows."""
    edge = Units.of(seen(100, agreed=98, ratio=1.4))
    cells = [
        c
        for w in range(100)
        for c in (
            cell("treated", w, n=10, shadow=functools.reduce(Units.plus, [edge] * 10)),
            cell("control", w, n=10),
        )
    ]
    assert ask(*cells, of=shadow_plan(latency_ratio_max=1.5)).move == "advance"


def test_missing_data_never_promotes() -> None:
    without = [each for w in range(10) for each in (cell("treated", w, n=10), cell("control", w, n=10))]
    untold = Counts(assigned_t=10, assigned_c=10, activated_t=10, placebo_c=10, reported_t=10, reported_c=10)
    verdict = ask(*without, counts=untold)
    assert verdict.move == "hold"
    assert "0 devices have told of an input in the shadow" in verdict.because
    assert "0 inputs were compared" in ask(*without).because


def test_dropped_and_skipped_inputs_are_no_evidence() -> None:
    verdict = ask(*shadowed(one=seen(0, dropped=1000, skipped=1000)))
    assert verdict.move == "hold"
    assert verdict.evidence["shadow"]["device_windows"] == 0


def test_too_few_inputs_hold() -> None:
    assert "must be" in ask(*shadowed(1, devices=2, one=seen(10))).because


def test_agreement_below_the_limit_and_not_proven_holds() -> None:
    verdict = ask(*shadowed(2, devices=5, one=seen(100, agreed=96)))
    assert verdict.move == "hold"
    assert "not proven yet" in verdict.because


def test_with_when_proven_the_tests_turned_round_must_pass() -> None:
    strict = plan(*shadow_plan().stages, promote="when_proven")
    assert "not proven yet that agreement" in ask(*shadowed(2, devices=10), of=strict).because
    assert ask(*shadowed(80, devices=10), of=strict).move == "advance"


def test_an_app_that_crashes_more_beside_the_candidate_stops_it() -> None:
    cells = [
        each
        for w in range(20)
        for each in (
            cell("treated", w, n=100, crashed=12, shadow=Units.of(seen())),
            cell("control", w, n=100, crashed=1),
        )
    ]
    verdict = ask(*cells, soaked_s=60)
    assert verdict.move == "roll_back"
    assert "on devices that try it in the shadow harm is proven: crash" in verdict.because


def test_a_person_decides_where_auto_rollback_is_off() -> None:
    careful = plan(*shadow_plan().stages, rollback=Rollback(auto_rollback=False))
    assert ask(*shadowed(one=worse()), of=careful).move == "hold"


def test_only_the_bad_hardware_class_is_stopped() -> None:
    cells: list[Cell] = []
    for w in range(20):
        for name in ("a", "b", "c", "d"):
            one = worse(50) if name == "d" else seen(100, agreed=99.5)
            cells.append(cell("treated", w, n=1, hardware_class=name, shadow=Units.of(one)))
            cells.append(cell("control", w, n=1, hardware_class=name))
    verdict = ask(*cells, soaked_s=60)
    assert (verdict.move, verdict.classes) == ("slice_back", ("d",))
    assert "50.00% of the inputs" in verdict.because
    rest = ask(*cells, without=("d",))
    assert rest.move == "advance"


def test_false_alarms_are_rare_where_every_device_window_is_just_good_enough() -> None:
    """Seeds 0 to 59; agreement of a device-window is 1 or 0.9, 98% in the mean; looked at after every window."""
    alarms = 0
    for seed in range(60):
        chance = random.Random(seed)
        ledger = Ledger(shadow_plan())
        for w in range(20):
            told = functools.reduce(
                Units.plus, [Units.of(seen(10, agreed=9 if chance.random() < 0.2 else 10)) for _ in range(10)]
            )
            now = GateInput(
                stage=0,
                soaked_s=60,
                counts={0: COUNTS},
                cells=[cell("treated", w, n=10, shadow=told), cell("control", w, n=10)],
            )
            if judge(shadow_plan(), now, ledger).move == "roll_back":
                alarms += 1
                break
    assert alarms == 0


# --- after the shadow ---


def both_stages(later: list[Cell], counts: Counts) -> Verdict:
    cells = (*shadowed(10), *later)
    now = GateInput(stage=1, soaked_s=25 * HOUR, cells=cells, counts={0: COUNTS, 1: counts})
    return judge(shadow_plan(), now)


def test_the_stages_that_serve_are_judged_as_if_there_had_been_no_shadow() -> None:
    served = plan(*shadow_plan().stages[1:], alpha=shadow_plan().alpha * 0.8)
    for crashed in (1, 10):
        cells = [
            each
            for w in range(10, 20)
            for each in (
                cell("treated", w, n=100, crashed=crashed),
                cell("control", w, n=1900, crashed=19),
            )
        ]
        later = [Cell(**{n: getattr(c, n) for n in c.__struct_fields__} | {"stage": 1}) for c in cells]
        counts = Counts(assigned_t=100, assigned_c=1900, activated_t=100, placebo_c=1900, reported_t=100)
        alone = ask(*cells, of=served, counts=counts)
        both = both_stages(later, counts)
        assert (both.move, both.because) == (alone.move, alone.because)
        assert both.evidence["log_e"] == alone.evidence["log_e"]


def test_each_stage_is_counted_on_its_own_side_of_the_first_that_serves() -> None:
    ledger = Ledger(shadow_plan())
    served = [Cell(stage=1, window=1, role=role, at_risk=7) for role in ("treated", "control")]
    ledger.fold([*shadowed(1), *served])
    assert ledger.app is not None
    assert (list(ledger.app.cohorts), list(ledger.cohorts), list(ledger.shadow.totals)) == ([0], [0], [0])
    assert ledger.app.cohorts[0].totals["treated"]["at_risk"] == 10
    assert ledger.cohorts[0].totals["treated"]["at_risk"] == 7


def test_a_ledger_that_is_kept_and_one_that_is_new_give_the_same_verdict() -> None:
    cells = shadowed(10, one=seen(100, agreed=97.5))
    kept = Ledger(shadow_plan())
    for w in range(10):
        now = GateInput(stage=0, soaked_s=25 * HOUR, counts={0: COUNTS}, cells=[c for c in cells if c.window == w])
        last = judge(shadow_plan(), now, kept)
    assert last == ask(*cells)
    assert kept.last == 9


def test_sums_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="are not"):
        ShadowSums(serial=2, inputs=3, compared=1)
    with pytest.raises(ValueError, match="agreed"):
        ShadowSums(serial=2, inputs=1, compared=1, agreed=2.0)
    with pytest.raises(ValueError, match="says nothing of"):
        seen().plus(seen(serial=3))


def test_the_soak_of_a_shadow_stage_counts_from_its_own_begin() -> None:
    assert ask(*shadowed(), soaked_s=23 * HOUR).move == "wait"
