"""What a limit or a guardrail means, and which of them are refused."""

import math

import pytest

from support.values import accuracy, cell, gate_input, healthy, plan, stage
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.gate.gate import judge
from whimbrel.health.tally import Moments
from whimbrel.plan.criteria import Guardrail, SuccessCriteria


def battery(mean: float, n: int) -> dict[str, Moments]:
    return {"battery": Moments(n=n, sum=mean * n, sumsq=n * (mean * mean + 0.01))}


def test_a_bound_of_one_metric_is_said_once() -> None:
    with pytest.raises(ValueError, match="keep one of them"):
        SuccessCriteria(accuracy_min=0.8, metrics_min={"accuracy": 0.7})


def test_bounds_that_nothing_can_keep_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 and at most 2"):
        SuccessCriteria(metrics_min={"fps": 3}, metrics_max={"fps": 2})


def test_stages_that_together_can_keep_nothing_are_refused_with_the_stage() -> None:
    with pytest.raises(ValueError, match="stage 'b', with the criteria of the stages before it: fps must be at least"):
        plan(stage("a", 5, metrics_min={"fps": 3.0}), stage("b", 25, metrics_max={"fps": 2.0}))


def test_what_is_no_number_is_no_limit() -> None:
    with pytest.raises(ValueError, match="is not a number"):
        SuccessCriteria(metrics_max={"fps": math.nan})


def test_bounds_of_other_metrics_hold_on_and_a_bound_said_in_the_other_form_replaces_the_first() -> None:
    first = SuccessCriteria(accuracy_min=0.9, metrics_min={"fps": 10, "feedback": 0.5})
    then = SuccessCriteria(metrics_min={"accuracy": 0.8}, feedback_min=0.6)
    assert then.over(first).floors == {"accuracy": 0.8, "fps": 10, "feedback": 0.6}


@pytest.mark.parametrize(
    ("guardrail", "said"),
    [
        ({"metric": "fps"}, "say its direction"),
        ({"metric": "fps", "margin": 1.0}, "say its direction"),
        ({"metric": "latency"}, "three guardrails"),
        ({"metric": "crash", "direction": "lower_is_worse"}, "higher is worse"),
        ({"metric": "crash", "margin": 0.1}, "a ratio to the control's, at least 1"),
        ({"metric": "accuracy", "margin": 5.0}, "a drop, 0 to 1"),
    ],
)
def test_a_guardrail_that_would_be_misread_is_refused(guardrail: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Guardrail(**guardrail)  # type: ignore[arg-type]


def test_a_metric_has_one_guardrail() -> None:
    with pytest.raises(ValueError, match="crash has two guardrails"):
        plan(guardrails=(Guardrail(metric="crash"), Guardrail(metric="crash", severity="warn")))


def test_a_plan_file_may_list_limits_and_guardrails() -> None:
    text = """rollout:
  model_version: wake@2.0.0
  guardrails:
    - {metric: crash, margin: 1.5, severity: hold}
    - {metric: fps, direction: lower_is_worse, margin: 2}
  stages:
    - name: canary
      target_percent: 5
      success_criteria: {accuracy_min: 0.84, battery_max: 5, memory_mb_max: 50, metrics_min: {fps: 20}}
"""
    read = read_plan(text, what="plan.yaml")
    assert [each.metric for each in read.guardrails] == ["crash", "fps"]
    assert read.criteria(0).ceilings == {"battery": 5, "memory_mb": 50}
    with pytest.raises(UntrustedInput, match=r"plan.yaml:4.*lower|plan.yaml:4.*severity"):
        read_plan(text.replace("severity: hold", "severity: shout"), what="plan.yaml")


# --- promotion by estimates ---


def test_an_accuracy_below_its_floor_holds() -> None:
    cells = [
        cell("treated", 0, n=100, metrics=accuracy(0.83, 100)),
        cell("control", 0, n=1900, metrics=accuracy(0.85, 1900)),
    ]
    verdict = judge(plan(stage(accuracy_min=0.84)), gate_input(*cells))
    assert verdict.move == "hold"
    assert "the mean of accuracy is 83%; at least 84% must be (accuracy_min)" in verdict.because
    assert "the control" not in verdict.because


def test_a_floor_that_the_control_is_below_too_holds_and_says_so() -> None:
    cells = [
        cell("treated", 0, n=100, metrics=accuracy(0.83, 100)),
        cell("control", 0, n=1900, metrics=accuracy(0.83, 1900)),
    ]
    verdict = judge(plan(stage(accuracy_min=0.84)), gate_input(*cells))
    assert verdict.move == "hold"
    assert "the control breaks it too" in verdict.because


def test_a_ceiling_that_is_kept_promotes() -> None:
    cells = [cell("treated", 0, n=100, metrics=battery(4.0, 100)), cell("control", 0, n=1900)]
    assert judge(plan(stage(battery_max=5)), gate_input(*cells)).move == "finish"
    assert judge(plan(stage(battery_max=3.9)), gate_input(*cells)).move == "hold"


@pytest.mark.parametrize(
    "limit",
    [
        {"accuracy_min": 0.1},
        {"feedback_min": 0.1},
        {"memory_mb_max": 1e9},
        {"metrics_max": {"fps": 1e9}},
        {"user_reports_ratio_max": 10.0},
        {"drift_psi_max": 50.0},
    ],
)
def test_a_limit_of_what_nobody_reported_holds(limit: dict[str, object]) -> None:
    verdict = judge(plan(stage(**limit)), gate_input(*healthy()))
    assert verdict.move == "hold"
    assert "nothing about it was reported" in verdict.because
