"""What a limit or a guardrail means, and which of them are refused."""

import math
import re

import pytest

from support.values import accuracy, cell, gate_input, healthy, plan, stage
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.plan_file import read_plan
from whimbrel.gate.gate import judge
from whimbrel.health.tally import Moments
from whimbrel.plan.criteria import Guardrail, SuccessCriteria, bound_name, bounded_metric
from whimbrel.plan.measures import LIMITS, Compared


def battery(mean: float, n: int) -> dict[str, Moments]:
    return {"battery": Moments(n=n, sum=mean * n, sumsq=n * (mean * mean + 0.01))}


def refusal(said: str) -> str:
    """A pattern of the whole sentence."""
    return f"^{re.escape(said)}$"


@pytest.mark.parametrize(
    ("both", "said"),
    [
        (
            {"accuracy_min": 0.8, "metrics_min": {"accuracy": 0.7}},
            "accuracy_min and metrics_min.accuracy bound the same metric; keep one of them",
        ),
        (
            {"feedback_min": 0.8, "metrics_min": {"feedback": 0.7}},
            "feedback_min and metrics_min.feedback bound the same metric; keep one of them",
        ),
        (
            {"battery_max": 5, "metrics_max": {"battery": 5}},
            "battery_max and metrics_max.battery bound the same metric; keep one of them",
        ),
        (
            {"memory_mb_max": 5, "metrics_max": {"memory_mb": 9}},
            "memory_mb_max and metrics_max.memory_mb bound the same metric; keep one of them",
        ),
    ],
)
def test_a_bound_of_one_metric_is_said_once(both: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        SuccessCriteria(**both)


def test_a_floor_and_a_ceiling_of_one_metric_are_two_bounds() -> None:
    both = SuccessCriteria(accuracy_min=0.5, battery_max=5, metrics_max={"accuracy": 0.9}, metrics_min={"battery": 1})
    assert both.floors == {"accuracy": 0.5, "battery": 1}
    assert both.ceilings == {"accuracy": 0.9, "battery": 5}


def test_bounds_that_nothing_can_keep_are_refused() -> None:
    assert SuccessCriteria(metrics_min={"fps": 2.5}, metrics_max={"fps": 2.5}).floors == {"fps": 2.5}
    with pytest.raises(ValueError, match=refusal("fps must be at least 3 and at most 2.5")):
        SuccessCriteria(metrics_min={"aux": 1, "fps": 3}, metrics_max={"fps": 2.5, "aux": 1})


def test_stages_that_together_can_keep_nothing_are_refused_with_the_stage() -> None:
    said = "stage 'c', with the criteria of the stages before it: fps must be at least 3 and at most 2"
    with pytest.raises(ValueError, match=refusal(said)):
        plan(stage("a", 5, metrics_min={"fps": 3.0}), stage("b", 9), stage("c", 25, metrics_max={"fps": 2.0}))


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        *[
            ({field: math.nan}, field)
            for field in ("accuracy_drop_max", "latency_p99_max_ms", "accuracy_min", "battery_max")
        ],
        *[({field: {"fps": 1.0, "load": math.nan}}, field) for field in ("metrics_min", "metrics_max")],
    ],
)
def test_what_is_no_number_is_no_limit(limit: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=refusal(f"{field} is not a number; leave it out where there is no limit")):
        SuccessCriteria(**limit)


def test_bounds_of_other_metrics_hold_on_and_a_bound_said_in_the_other_form_replaces_the_first() -> None:
    first = SuccessCriteria(accuracy_min=0.9, metrics_min={"fps": 10, "feedback": 0.5}, error_rate_max=0.1)
    then = SuccessCriteria(metrics_min={"accuracy": 0.8}, feedback_min=0.6)
    merged = then.over(first)
    assert merged.floors == {"accuracy": 0.8, "fps": 10, "feedback": 0.6}
    assert (merged.accuracy_min, merged.feedback_min, merged.error_rate_max) == (None, 0.6, 0.1)
    ceilings = SuccessCriteria(battery_max=5, metrics_max={"memory_mb": 50})
    assert SuccessCriteria(metrics_max={"battery": 4}, memory_mb_max=60).over(ceilings) == SuccessCriteria(
        memory_mb_max=60, metrics_max={"battery": 4}
    )
    assert SuccessCriteria().over(ceilings) == ceilings


SOME = SuccessCriteria(
    accuracy_min=0.8,
    battery_max=5,
    error_rate_max=0.1,
    metrics_min={"feedback": 0.5},
    metrics_max={"memory_mb": 9, "fps": 60},
)


@pytest.mark.parametrize(
    ("criterion", "there"),
    [
        ("accuracy_min", True),
        ("feedback_min", True),  # in the general form
        ("battery_max", True),
        ("memory_mb_max", True),
        ("error_rate_max", True),
        ("accuracy_drop_max", False),
        ("crash_ratio_max", False),
    ],
)
def test_a_limit_is_set_in_either_form(criterion: str, there: bool) -> None:
    assert SOME.sets(criterion) is there
    assert not SuccessCriteria().sets(criterion)


def test_a_limit_of_nothing_is_set_too() -> None:
    assert SuccessCriteria(error_rate_max=0.0).sets("error_rate_max")


@pytest.mark.parametrize(
    ("estimate", "compared", "field"),
    [
        ("error_rate", "value", "error_rate_max"),
        ("accuracy", "drop", "accuracy_drop_max"),
        ("share_over_limit", "value", "latency_p99_max_ms"),
        ("crash_rate", "ratio", "crash_ratio_max"),
        ("latency_p99_ms", "increase", "latency_increase_max"),
        ("battery", "increase", "battery_increase_max"),
        ("user_report_rate", "ratio", "user_reports_ratio_max"),
        ("drift_psi", "value", "drift_psi_max"),
    ],
)
def test_a_limit_is_found_by_its_estimate_and_how_that_is_compared(
    estimate: str, compared: Compared, field: str
) -> None:
    fields = [limit.criterion for limit in LIMITS]
    each = SuccessCriteria(**{name: 1.0 - n / 16 if "ratio" not in name else 1.0 + n for n, name in enumerate(fields)})
    assert each.limit_on(estimate, compared) == getattr(each, field)
    assert SuccessCriteria().limit_on(estimate, compared) is None
    assert each.limit_on(estimate, "drop" if compared != "drop" else "ratio") is None
    assert each.limit_on(None, compared) is None


def test_a_bound_is_named_as_the_plan_says_it_and_its_test_by_the_field_that_is_made_for_it() -> None:
    said = {
        (metric, floor): SOME.name_of(metric, floor=floor)
        for metric in ("accuracy", "feedback")
        for floor in (True, False)
    }
    assert said == {
        ("accuracy", True): "accuracy_min",
        ("accuracy", False): "metrics_max.accuracy",
        ("feedback", True): "metrics_min.feedback",
        ("feedback", False): "metrics_max.feedback",
    }
    assert [SOME.name_of(each, floor=False) for each in ("battery", "memory_mb", "fps")] == [
        "battery_max",
        "metrics_max.memory_mb",
        "metrics_max.fps",
    ]
    assert [bound_name(each, floor=True) for each in ("accuracy", "feedback", "battery")] == [
        "accuracy_min",
        "feedback_min",
        "metrics_min.battery",
    ]
    assert [bound_name(each, floor=False) for each in ("battery", "memory_mb", "accuracy")] == [
        "battery_max",
        "memory_mb_max",
        "metrics_max.accuracy",
    ]


@pytest.mark.parametrize("metric", ["accuracy", "feedback", "battery", "memory_mb", "fps"])
@pytest.mark.parametrize("floor", [True, False])
def test_the_name_of_a_bounds_test_tells_its_metric(metric: str, floor: bool) -> None:
    assert bounded_metric(bound_name(metric, floor=floor)) == metric
    assert bounded_metric(metric) == metric


OWN = (
    " is a metric of your own: say its direction (higher_is_worse or lower_is_worse) and the margin that is tolerated, "
    "in its unit; known by themselves are accuracy, battery, crash, drift, error, failure, feedback, latency_p50, "
    "latency_p95, latency_p99, memory_mb, silence, temperature_c, usage, user_reports"
)
TAKEN = " is the name of a limit's own test; call the metric something else"


@pytest.mark.parametrize(
    ("guardrail", "said"),
    [
        ({"metric": "fps"}, f"'fps'{OWN}"),
        ({"metric": "fps", "margin": 1.0}, f"'fps'{OWN}"),
        ({"metric": "fps", "direction": "lower_is_worse"}, f"'fps'{OWN}"),
        ({"metric": "latency"}, "latency has three guardrails: latency_p50, latency_p95 and latency_p99"),
        (
            {"metric": "crash", "direction": "lower_is_worse"},
            "of crash, higher is worse; leave the direction out",
        ),
        (
            {"metric": "accuracy", "direction": "higher_is_worse"},
            "of accuracy, lower is worse; leave the direction out",
        ),
        ({"metric": "error_limit", "margin": 1, "direction": "lower_is_worse"}, f"'error_limit'{TAKEN}"),
        ({"metric": "accuracy_min", "margin": 1, "direction": "lower_is_worse"}, f"'accuracy_min'{TAKEN}"),
        ({"metric": "battery_max", "margin": 1, "direction": "lower_is_worse"}, f"'battery_max'{TAKEN}"),
        ({"metric": "metrics_min.fps", "margin": 1, "direction": "lower_is_worse"}, f"'metrics_min.fps'{TAKEN}"),
        ({"metric": "metrics_max.fps", "margin": 1, "direction": "lower_is_worse"}, f"'metrics_max.fps'{TAKEN}"),
    ],
)
def test_a_guardrail_that_would_be_misread_is_refused(guardrail: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=refusal(said)):
        Guardrail(**guardrail)


RATIO = "a ratio to the control's, at least 1"


@pytest.mark.parametrize(
    ("metric", "least", "most", "unit"),
    [
        *[
            (name, 1, 1000, RATIO)
            for name in ("crash", "error", "silence", "battery", "usage", "memory_mb", "user_reports")
        ],
        *[(f"latency_{name}", 1, 1000, RATIO) for name in ("p50", "p95", "p99")],
        *[(name, 0, 1, "a drop, 0 to 1") for name in ("accuracy", "feedback")],
        ("failure", 1e-6, 0.5, "a share of all installs"),
        ("drift", 1e-6, 100, "a stability index (PSI)"),
        ("temperature_c", 0, 1000, "a number of degrees, at least 0"),
    ],
)
def test_a_margin_lies_within_what_the_measure_can_tolerate(metric: str, least: float, most: float, unit: str) -> None:
    for margin in (least, most):
        assert Guardrail(metric=metric, margin=margin).margin == margin
    for margin in (least - 1e-7, 1.001 * most):
        with pytest.raises(ValueError, match=refusal(f"the margin of {metric} is {unit}; {margin:g} came")):
            Guardrail(metric=metric, margin=margin)


def test_the_direction_of_a_measure_may_be_said_as_it_is() -> None:
    assert Guardrail(metric="crash", direction="higher_is_worse").metric == "crash"
    assert Guardrail(metric="usage", direction="lower_is_worse").metric == "usage"


def test_a_guardrail_is_ones_own_where_no_measure_has_its_name() -> None:
    assert Guardrail(metric="fps", direction="lower_is_worse", margin=0).own
    assert not Guardrail(metric="crash").own


def test_a_stored_guardrail_of_disuse_is_one_of_usage() -> None:
    assert Guardrail(metric="disuse", margin=1.2) == Guardrail(metric="usage", margin=1.2)


def test_a_metric_has_one_guardrail() -> None:
    both = [Guardrail(metric=name, severity=severity) for severity in ("hold", "warn") for name in ("error", "crash")]
    with pytest.raises(ValueError, match=refusal("crash, error has two guardrails; each metric has one")):
        plan(guardrails=(*both, Guardrail(metric="silence")))


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
