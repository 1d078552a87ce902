"""Margins, severities and metrics of one's own: what a plan's guardrails change, and what they leave as it is."""

import random

import pytest

from support.values import HOUR, accuracy, cell, gate_input, healthy, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import guard_weights
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.criteria import Guardrail
from whimbrel.plan.plan import Plan


def both(windows: int = 12, *, treated: dict[str, object], control: dict[str, object]) -> list[Cell]:
    return [
        c for w in range(windows) for c in (cell("treated", w, n=100, **treated), cell("control", w, n=1900, **control))
    ]


def crashing() -> list[Cell]:
    """10% crashes on the new version, 1% in the control."""
    return both(6, treated={"crashed": 10}, control={"crashed": 19})


def metric(name: str, mean: float, n: int, *, spread: float = 1.0) -> dict[str, object]:
    return {"metrics": {name: Moments(n=n, sum=mean * n, sumsq=n * (mean * mean + spread * spread))}}


def guarded(**changes: object) -> Plan:
    return plan(guardrails=(Guardrail(**changes),))


# --- severities ---


@pytest.mark.parametrize(("severity", "move"), [("rollback", "roll_back"), ("hold", "hold"), ("warn", "finish")])
def test_the_severity_decides_what_proven_harm_does(severity: str, move: str) -> None:
    verdict = judge(guarded(metric="crash", severity=severity), gate_input(*crashing(), stage=2))
    assert verdict.move == ("hold" if severity == "warn" else move)  # nothing of stage 2 was reported
    verdict = judge(guarded(metric="crash", severity=severity), gate_input(*crashing()))
    assert verdict.move == ("advance" if severity == "warn" else move)
    assert "harm is proven: crash" in verdict.because


def test_a_warning_is_said_before_the_soak_is_over_too() -> None:
    verdict = judge(guarded(metric="crash", severity="warn"), gate_input(*crashing(), soaked_s=60))
    assert verdict.move == "wait"
    assert verdict.evidence["warnings"][0].startswith("harm is proven: crash")
    assert "a warning: harm is proven" in verdict.because


def test_other_harm_goes_back_also_where_crashes_only_hold() -> None:
    cells = both(6, treated={"crashed": 10, "errors": 9.0}, control={"crashed": 19, "errors": 19.0})
    verdict = judge(guarded(metric="crash", severity="hold"), gate_input(*cells))
    assert verdict.move == "roll_back"
    assert "harm is proven: error" in verdict.because


def test_a_class_whose_crashes_only_hold_does_not_go_back_alone() -> None:
    cells = []
    for w in range(12):
        for name in ("a", "b", "c"):
            bad = 8 if name == "c" else 1
            cells += [
                cell("treated", w, n=50, crashed=bad, hardware_class=name),
                cell("control", w, n=900, crashed=18, hardware_class=name),
            ]
    assert judge(plan(), gate_input(*cells)).move == "slice_back"
    assert judge(guarded(metric="crash", severity="hold"), gate_input(*cells)).move == "hold"


def test_a_limit_follows_the_guardrail_of_what_it_limits() -> None:
    cells = both(treated={"errors": 12.0}, control={"errors": 0.0})
    limited = plan(stage(error_rate_max=0.01), guardrails=(Guardrail(metric="error", severity="hold"),))
    assert judge(limited, gate_input(*cells)).move == "hold"


# --- margins ---


def test_a_margin_replaces_what_is_tolerated() -> None:
    cells = both(40, treated={"crashed": 8}, control={"crashed": 76})  # twice the control's
    assert judge(plan(), gate_input(*cells)).move == "roll_back"
    assert judge(guarded(metric="crash", margin=3.0), gate_input(*cells)).move == "advance"


def test_a_wider_drop_of_accuracy_may_be_tolerated() -> None:
    cells = both(30, treated={"metrics": accuracy(0.85, 100)}, control={"metrics": accuracy(0.9, 1900)})
    assert judge(plan(), gate_input(*cells)).move == "roll_back"
    assert judge(guarded(metric="accuracy", margin=0.06), gate_input(*cells)).move == "advance"


def test_latency_may_be_tolerated_to_double() -> None:
    cells = both(20, treated={"latency": {185: 100}}, control={"latency": {150: 1900}})  # 2.01 times
    assert judge(plan(), gate_input(*cells)).move == "roll_back"
    lenient = plan(guardrails=tuple(Guardrail(metric=f"latency_p{p}", margin=2.5) for p in (50, 95, 99)))
    assert judge(lenient, gate_input(*cells)).move == "advance"


# --- metrics of one's own ---


@pytest.mark.parametrize(("direction", "mean"), [("lower_is_worse", 27.0), ("higher_is_worse", 33.0)])
def test_a_metric_of_ones_own_goes_back_in_its_bad_direction_alone(direction: str, mean: float) -> None:
    own = guarded(metric="fps", direction=direction, margin=1.0)
    harmed = both(treated=metric("fps", mean, 100), control=metric("fps", 30, 1900))
    verdict = judge(own, gate_input(*harmed))
    assert verdict.move == "roll_back"
    assert f"fps {mean:g} against 30 in the control" in verdict.because
    other = both(treated=metric("fps", 60 - mean, 100), control=metric("fps", 30, 1900))
    assert judge(own, gate_input(*other)).move == "advance"
    within = both(treated=metric("fps", 30 + (mean - 30) / 4, 100), control=metric("fps", 30, 1900))
    assert judge(own, gate_input(*within)).move == "advance"


def test_a_metric_of_ones_own_may_be_called_as_the_latencies_are() -> None:
    """The gate raised `KeyError` when harm of such a metric was proven: it looked for a quantile of that name."""
    own = guarded(metric="latency_pages", direction="higher_is_worse", margin=1.0)
    harmed = both(treated=metric("latency_pages", 33, 100), control=metric("latency_pages", 30, 1900))
    assert "latency_pages 33 against 30 in the control" in judge(own, gate_input(*harmed)).because


def test_a_metric_that_no_guardrail_names_is_not_judged() -> None:
    assert (
        judge(plan(), gate_input(*both(treated=metric("fps", 1, 100), control=metric("fps", 30, 1900)))).move
        == "advance"
    )


def test_a_metric_of_ones_own_that_is_proven_within_its_margin_promotes_where_proof_is_asked_for() -> None:
    proof = plan(promote="when_proven", guardrails=(Guardrail(metric="fps", direction="lower_is_worse", margin=1.0),))

    def seen(mean: float) -> GateInput:
        cells = both(
            60, treated=metric("fps", mean, 400) | {"due": 200}, control=metric("fps", 30, 4000) | {"due": 2000}
        )
        return gate_input(*cells)

    assert "fps" not in judge(proof, seen(30.0)).because
    assert "fps is within" in judge(proof, seen(29.0)).because


def test_the_budget_is_shared_out_before_anything_is_seen_and_adds_up_to_one() -> None:
    own = Guardrail(metric="fps", direction="lower_is_worse", margin=1.0, weight=5.0)
    weights = guard_weights(plan(stage(accuracy_min=0.8, metrics_max={"watts": 3.0}), guardrails=(own,)))
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["fps"] == pytest.approx(5 * weights["accuracy_min"])
    assert "metrics_max.watts" in weights


# --- absolute bounds, proven ---


def test_a_mean_far_below_its_floor_goes_back_before_the_soak() -> None:
    cells = both(treated={"metrics": accuracy(0.75, 100)}, control={"metrics": accuracy(0.9, 1900)})
    floor = plan(stage(accuracy_min=0.84), guardrails=(Guardrail(metric="accuracy", margin=0.5),))
    verdict = judge(floor, gate_input(*cells, soaked_s=60))
    assert verdict.move == "roll_back"
    assert "accuracy_min" in verdict.because


def test_a_bound_that_the_control_breaks_too_proves_nothing_and_holds() -> None:
    cells = both(treated={"metrics": accuracy(0.75, 100)}, control={"metrics": accuracy(0.75, 1900)})
    verdict = judge(plan(stage(accuracy_min=0.84)), gate_input(*cells))
    assert verdict.move == "hold"
    assert "the control breaks it too" in verdict.because


def test_a_later_stage_sets_its_own_bound() -> None:
    cells = both(treated=metric("watts", 4.0, 100), control=metric("watts", 2.0, 1900))
    later = plan(stage("a", 5, metrics_max={"watts": 9.0}), stage("b", 25, metrics_max={"watts": 3.0}))
    assert judge(later, gate_input(*cells)).move == "advance"
    assert judge(later, gate_input(*cells, stage=1)).move == "roll_back"


def test_means_at_their_very_bound_are_seldom_taken_for_broken() -> None:
    """200 rollouts at the bound, 30 looks each, at a budget of 8% of which this test has a fifteenth."""
    chance, alarms = random.Random(20260104), 0
    bounded = plan(stage(metrics_max={"watts": 5.0}, hours=1000))
    for _ in range(200):
        ledger = Ledger(bounded)
        for w in range(30):
            values = [chance.gauss(5.0, 1.0) for _ in range(20)]
            seen = Moments(n=20, sum=sum(values), sumsq=sum(v * v for v in values))
            below = metric("watts", 4.0, 100)
            now = gate_input(
                cell("treated", w, n=20, metrics={"watts": seen}), cell("control", w, n=100, **below), soaked_s=HOUR
            )
            if judge(bounded, now, ledger).move == "roll_back":
                alarms += 1
                break
    assert alarms <= 4


def test_feedback_below_its_floor_goes_back() -> None:
    cells = both(20, treated=metric("feedback", 0.4, 60, spread=0.5), control=metric("feedback", 0.8, 900, spread=0.4))
    verdict = judge(plan(stage(feedback_min=0.7)), gate_input(*cells))
    assert verdict.move == "roll_back"
    assert "feedback 0.4 against 0.8" in verdict.because


def test_a_plan_without_guardrails_watches_what_it_always_did() -> None:
    names = {"crash", "accuracy", "error", "silence", "failure", "latency_p50", "latency_p95", "latency_p99"}
    names |= {"battery", "memory_mb", "temperature_c", "usage"}
    assert guard_weights(plan()).keys() == names
    assert judge(plan(), gate_input(*healthy())).evidence["guardrails"].keys() == names


# --- what devices report of themselves ---


@pytest.mark.parametrize(
    ("name", "before", "within", "beyond"),
    [("battery", 4.0, 4.3, 6.0), ("memory_mb", 200.0, 215.0, 400.0), ("temperature_c", 0.5, 3.0, 9.0)],
)
def test_what_devices_report_of_themselves_is_compared_without_the_plan_naming_it(
    name: str, before: float, within: float, beyond: float
) -> None:
    """A temperature is compared by degrees: winter, at half a degree, has no ratio."""

    def verdict(mean: float) -> str:
        cells = both(40, treated=metric(name, mean, 100), control=metric(name, before, 1900))
        return judge(plan(), gate_input(*cells)).move

    assert (verdict(within), verdict(beyond)) == ("advance", "roll_back")
