"""May a rollout move, must it go back?"""

import random

import pytest

from support.values import HOUR, accuracy, cell, gate_input, healthy, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.plan import Plan, Rollback


def crashing(windows: int = 6) -> list[Cell]:
    """10% crashes on the new version, 1% in the control."""
    made: list[Cell] = []
    for w in range(windows):
        made += [cell("treated", w, n=100, crashed=10), cell("control", w, n=1900, crashed=19)]
    return made


def less_accurate(windows: int = 20, *, drop: float) -> list[Cell]:
    made: list[Cell] = []
    for w in range(windows):
        made.append(cell("treated", w, n=100, metrics=accuracy(0.9 - drop, 100)))
        made.append(cell("control", w, n=1900, metrics=accuracy(0.9, 1900)))
    return made


def with_counts(*cells: Cell, **counts: int) -> GateInput:
    return gate_input(*cells, counts={0: Counts(**counts)})


# --- going back ---


def test_many_more_crashes_go_back_and_the_sentence_says_so() -> None:
    verdict = judge(plan(), gate_input(*crashing()))
    assert verdict.move == "roll_back"
    assert "crash rate 10.00% against 1.00% in the control" in verdict.because


def test_harm_goes_back_before_the_soak_is_over() -> None:
    assert judge(plan(), gate_input(*crashing(), soaked_s=60)).move == "roll_back"


def test_more_errors_go_back() -> None:
    cells = [c for w in range(6) for c in (cell("treated", w, n=100, errors=9), cell("control", w, n=1900, errors=19))]
    assert "error rate 9.00%" in judge(plan(), gate_input(*cells)).because


def test_an_accuracy_drop_goes_back() -> None:
    verdict = judge(plan(), gate_input(*less_accurate(drop=0.05)))
    assert verdict.move == "roll_back"
    assert "accuracy 85.00% against 90.00%" in verdict.because


def test_a_drop_within_the_tolerance_is_no_harm() -> None:
    assert judge(plan(), gate_input(*less_accurate(drop=0.004))).move == "advance"


def test_silence_goes_back() -> None:
    cells = [
        c
        for w in range(6)
        for c in (cell("treated", w, n=0, due=50, overdue=10), cell("control", w, n=0, due=900, overdue=9))
    ]
    assert "silence" in judge(plan(), gate_input(*cells)).because


@pytest.mark.parametrize("limit", [{"latency_p99_max_ms": 50.0}, {}])
def test_slower_sessions_go_back_also_without_a_limit(limit: dict[str, float]) -> None:
    slow, fast = {300: 10, 100: 90}, {300: 10, 100: 1890}
    cells = [
        c for w in range(4) for c in (cell("treated", w, n=100, latency=slow), cell("control", w, n=1900, latency=fast))
    ]
    assert judge(plan(stage(**limit)), gate_input(*cells)).move == "roll_back"


def test_harm_of_an_earlier_stage_goes_back_in_a_later_one() -> None:
    cells = [*crashing(), cell("treated", 7, n=100, stage=1), cell("control", 7, n=100, stage=1)]
    assert judge(plan(), gate_input(*cells, stage=1)).move == "roll_back"


def test_devices_that_cannot_install_go_back_without_a_control() -> None:
    assert judge(plan(), with_counts(assigned_t=100, activated_t=80, failed_t=20)).move == "roll_back"


def test_like_ages_are_compared_with_like() -> None:
    """Young devices crash more in both arms; the treated are younger. Pooled over ages this would look like harm."""
    cells = []
    for w in range(20):
        cells += [
            cell("treated", w, n=90, crashed=9, age_bucket=0),
            cell("control", w, n=190, crashed=19, age_bucket=0),
        ]
        cells += [cell("treated", w, n=10, age_bucket=3), cell("control", w, n=1710, crashed=17, age_bucket=3)]
    assert judge(plan(), gate_input(*cells)).move == "advance"


# --- the kill switch ---


@pytest.mark.parametrize(
    ("went_back", "activated", "stops"),
    [
        (1, 1, False),
        (1, 2, False),
        (2, 2, True),
        (2, 4, False),
        (3, 6, True),
        (4, 20, False),
        (5, 20, True),
        (54, 1000, False),
        (55, 1000, True),
        (0, 1, False),
    ],
)
def test_the_kill_switch_is_pulled_by_more_than_go_back_anyway(went_back: int, activated: int, stops: bool) -> None:
    told = {"activated_t": activated, "went_back_t": went_back, "reported_t": activated}
    verdict = judge(plan(alpha=1e-9), with_counts(assigned_t=activated, assigned_c=20, **told))
    assert ("kill switch" in verdict.because) == stops


def test_the_kill_switch_stops_small_harm_too() -> None:
    gentle = plan(on_small_harm="hold")
    assert judge(gentle, with_counts(activated_t=1, went_back_t=1)).move == "roll_back"


# --- what a person chose ---


def test_small_harm_holds_where_the_plan_says_hold() -> None:
    gentle = plan(stage(error_rate_max=0.5), on_small_harm="hold")
    verdict = judge(gentle, gate_input(*crashing()))
    assert verdict.move == "hold"
    assert "within the plan's limits" in verdict.because


def test_harm_past_a_limit_goes_back_also_where_small_harm_holds() -> None:
    gentle = plan(stage(error_rate_max=0.01), on_small_harm="hold")
    cells = [c for w in range(6) for c in (cell("treated", w, n=100, errors=9), cell("control", w, n=1900, errors=9))]
    verdict = judge(gentle, gate_input(*cells))
    assert verdict.move == "roll_back"
    assert "past the limit of error_rate_max" in verdict.because


def test_without_auto_rollback_harm_holds_and_never_passes() -> None:
    manual = plan(stage(hours=0), rollback=Rollback(auto_rollback=False))
    verdict = judge(manual, gate_input(*crashing()))
    assert verdict.move == "hold"
    assert "a person decides" in verdict.because


# --- missing is never good ---


def test_no_reports_never_pass() -> None:
    verdict = judge(plan(stage(hours=0)), GateInput(stage=0, soaked_s=10**9, cells=(), counts={}))
    assert verdict.move == "hold"
    assert "no device of stage canary has activated the version yet" in verdict.because


def test_activated_devices_that_do_not_report_hold() -> None:
    assert judge(plan(), with_counts(*healthy(), activated_t=100, reported_t=49)).move == "hold"


def test_fewer_reports_than_the_plan_wants_hold() -> None:
    assert judge(plan(min_reports=101), gate_input(*healthy())).move == "hold"
    assert judge(plan(min_reports=100), gate_input(*healthy())).move == "advance"


@pytest.mark.parametrize("limit", [{"accuracy_drop_max": 0.02}, {"latency_p99_max_ms": 50.0}])
def test_a_metric_that_is_asked_for_and_not_reported_holds(limit: dict[str, float]) -> None:
    verdict = judge(plan(stage(**limit)), gate_input(*healthy()))
    assert verdict.move == "hold"
    assert "nothing about it was reported" in verdict.because


def test_accuracy_that_only_one_arm_reports_holds() -> None:
    cells = [cell("treated", 0, n=100, metrics=accuracy(0.9, 100)), cell("control", 0, n=1900)]
    assert judge(plan(stage(accuracy_drop_max=0.02)), gate_input(*cells)).move == "hold"


def test_an_estimate_over_its_limit_holds() -> None:
    cells = [cell("treated", 0, n=100, errors=1.5), cell("control", 0, n=1900, errors=15)]
    verdict = judge(plan(stage(error_rate_max=0.01)), gate_input(*cells))
    assert verdict.move == "hold"
    assert "the error rate is 1.5%; at most 1% may be (error_rate_max)" in verdict.because


def test_a_limit_that_the_control_breaks_too_holds_and_says_so() -> None:
    cells = [c for w in range(20) for c in (cell("treated", w, n=100, errors=5), cell("control", w, n=1900, errors=95))]
    verdict = judge(plan(stage(error_rate_max=0.01)), gate_input(*cells))
    assert verdict.move == "hold"
    assert "the control breaks it too" in verdict.because


def test_a_slow_control_is_named_too() -> None:
    slow = {300: 5, 100: 95}
    cells = [cell("treated", 0, n=100, latency=slow), cell("control", 0, n=100, latency=slow)]
    verdict = judge(plan(stage(latency_p99_max_ms=50)), gate_input(*cells))
    assert verdict.move == "hold"
    assert "the control breaks it too" in verdict.because


def test_a_limit_of_zero_is_a_limit() -> None:
    assert judge(plan(stage(error_rate_max=0)), gate_input(cell("treated", 0, n=100, errors=0.1))).move == "hold"


# --- promotion ---


def test_a_stage_waits_for_its_soak() -> None:
    verdict = judge(plan(), gate_input(*healthy(), soaked_s=23 * HOUR))
    assert (verdict.move, verdict.because) == ("wait", "stage canary has soaked 23 of 24 h")


def test_a_healthy_stage_advances_and_says_what_it_would_have_seen() -> None:
    verdict = judge(plan(), gate_input(*healthy()))
    assert verdict.move == "advance"
    assert "no harm in 100 devices of stage canary; a crash rate of" in verdict.because
    assert "with 80% chance" in verdict.because
    ratios = verdict.evidence["detectable_crash_ratio"]
    assert 1 < ratios["0.8"] < ratios["0.95"] < 10


def test_too_small_a_stage_advances_and_admits_that_nothing_is_proven() -> None:
    cells = [cell("treated", 0, n=1), cell("control", 0, n=1)]
    verdict = judge(plan(), gate_input(*cells, counts={0: Counts(activated_t=1, reported_t=1)}))
    assert verdict.move == "advance"
    assert "nothing is proven" in verdict.because or "x the control's" in verdict.because


def test_the_last_stage_finishes() -> None:
    assert judge(plan(stage("all", 100)), gate_input(*healthy())).move == "finish"


def test_without_a_holdback_the_verdict_says_so() -> None:
    verdict = judge(plan(stage("all", 100), holdback_percent=0), gate_input(cell("treated", 0, n=100)))
    assert "without a holdback only absolute limits and silence could be judged" in verdict.because


def test_a_verdict_is_replayed_from_the_same_windows() -> None:
    cells = [*healthy(), *crashing()]
    one, other = judge(plan(), gate_input(*cells)), judge(plan(), gate_input(*reversed(cells)))
    assert one == other


# --- the false-alarm budget and the power, by simulation ---


def _experiment(chance: random.Random, strict: Plan, *, rate: float, times: float, drop: float = 0) -> Verdict:
    """20 windows, looked at after each of them; returns the first verdict that moves, or the last one."""
    ledger = Ledger(strict)
    for w in range(20):
        cells: list[Cell] = []
        for role, n, p, mean in (("treated", 60, rate * times, 0.9 - drop), ("control", 300, rate, 0.9)):
            values = [min(1.0, max(0.0, chance.gauss(mean, 0.1))) for _ in range(n // 10)]
            metrics = {"accuracy": {"n": len(values), "sum": sum(values), "sumsq": sum(v * v for v in values)}}
            cells.append(
                cell(
                    role,
                    w,
                    n=n,
                    crashed=sum(chance.random() < p for _ in range(n)),
                    errors=sum(chance.random() < p for _ in range(n)),
                    metrics=_summaries(metrics),
                )
            )
        verdict = judge(strict, gate_input(*cells, soaked_s=0), ledger)
        if verdict.move == "roll_back":
            break
    return verdict


def _summaries(metrics: dict[str, dict[str, float]]) -> dict[str, object]:

    return {name: Moments(**values) for name, values in metrics.items()}


def test_two_arms_that_are_alike_are_seldom_taken_for_harm() -> None:
    """300 A/A rollouts with 20 looks each at a budget of 1%: more than 9 alarms have a chance below one in 1,000."""
    chance = random.Random(20260101)
    runs = [_experiment(chance, plan(), rate=0.03, times=1) for _ in range(300)]
    assert sum(verdict.move == "roll_back" for verdict in runs) <= 9


def test_a_strong_effect_is_always_found() -> None:
    chance = random.Random(20260102)
    runs = [_experiment(chance, plan(), rate=0.02, times=4) for _ in range(40)]
    assert all(verdict.move == "roll_back" for verdict in runs)


def test_a_strong_drop_of_accuracy_is_always_found() -> None:
    chance = random.Random(20260103)
    runs = [_experiment(chance, plan(), rate=0.02, times=1, drop=0.15) for _ in range(40)]
    assert all(verdict.move == "roll_back" for verdict in runs)


# --- comparative limits, proof, and the split of the arms ---


@pytest.mark.parametrize("limit", ["crash_ratio_max", "latency_increase_max", "battery_increase_max"])
def test_a_comparative_limit_that_is_asked_for_and_not_reported_holds(limit: str) -> None:
    cells = [cell("treated", 0, n=0, sessions=5), cell("control", 0, n=0, sessions=5)]
    verdict = judge(plan(stage(**{limit: 2.0})), gate_input(*cells))
    assert verdict.move == "hold"
    assert f"{limit} asks for" in verdict.because


def test_three_crashes_against_one_are_over_a_limit_of_two() -> None:
    cells = [cell("treated", 0, n=100, crashed=3), cell("control", 0, n=1900, crashed=19)]
    assert (
        "3 times the control's 1%; at most 2 times may be (crash_ratio_max)"
        in judge(plan(stage(crash_ratio_max=2)), gate_input(*cells)).because
    )


def test_a_battery_that_drains_faster_goes_back_whether_or_not_a_plan_names_it() -> None:
    def drain(mean: float, n: int) -> dict[str, Moments]:
        return {"battery": Moments(n=n, sum=mean * n, sumsq=n * (mean * mean + 0.04))}

    cells = [
        c
        for w in range(12)
        for c in (
            cell("treated", w, n=100, metrics=drain(1.5, 100)),
            cell("control", w, n=1900, metrics=drain(1.0, 1900)),
        )
    ]
    assert judge(plan(stage(battery_increase_max=0.2)), gate_input(*cells)).move == "roll_back"
    assert judge(plan(stage("all", 100)), gate_input(*cells)).move == "roll_back"


def test_what_is_not_proven_holds_where_the_plan_wants_proof() -> None:
    verdict = judge(plan(promote="when_proven"), gate_input(*healthy()))
    assert verdict.move == "hold"
    assert "it is not proven yet that" in verdict.because


def test_enough_clean_windows_prove_and_promote() -> None:
    cells = [
        c
        for w in range(60)
        for c in (
            cell("treated", w, n=400, crashed=2, due=200),
            cell("control", w, n=4000, crashed=20, errors=20.0, due=2000),
        )
    ]
    verdict = judge(plan(promote="when_proven"), gate_input(*cells))
    assert verdict.move == "advance", verdict.because
    assert set(verdict.evidence["proofs"]) == {"crash", "error", "silence", "usage"}


def test_arms_that_are_not_split_as_their_buckets_say_hold() -> None:
    counts = Counts(
        assigned_t=4500, assigned_c=95500, activated_t=4500, placebo_c=95500, reported_t=4500, reported_c=95500
    )
    verdict = judge(plan(), gate_input(*healthy(), counts={0: counts}, shares=(50_000,)))
    assert verdict.move == "hold"
    assert "one arm loses devices" in verdict.because
