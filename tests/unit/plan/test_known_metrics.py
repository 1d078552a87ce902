"""Metrics that are known by name: every row can be judged."""

import pytest

from support.experiments import written
from whimbrel.plan.experiment import GuardrailMetric
from whimbrel.plan.known_metrics import KNOWN_METRICS, KnownMetric
from whimbrel.plan.measures import MEASURES


@pytest.mark.parametrize("known", KNOWN_METRICS.values(), ids=KNOWN_METRICS)
def test_each_is_a_measure_of_every_plan_or_has_a_margin(known: KnownMetric) -> None:
    assert bool(known.measures) != (known.margin is not None)
    for name in known.measures:
        assert MEASURES[name].always
        assert (MEASURES[name].direction == "lower_is_worse") == (known.better == "increase")
    assert known.measures or not known.reserved


def test_a_primary_metric_that_is_known_improves_its_own_way() -> None:
    """Of `false_positive_rate` more was taken to be better, and the worse arm was shipped."""
    assert not written(primary_metric="false_positive_rate").primary.rises
    assert not written(primary_metric="inference_latency").primary.rises
    assert written(primary_metric="recall").primary.rises
    assert written(primary_metric={"name": "false_positive_rate", "direction": "increase"}).primary.rises


def test_a_name_that_only_an_earlier_record_holds_is_still_read() -> None:
    plan = written(guardrail_metrics=["skips", "recall", "memory_mb"])
    assert plan.own_guardrails == (GuardrailMetric.of("skips"), GuardrailMetric.of("recall"))
    assert GuardrailMetric.of("skips") == GuardrailMetric(name="skips")
    assert GuardrailMetric.of("skips").rises
    assert GuardrailMetric.of("recall") == GuardrailMetric(name="recall", direction="increase", margin=0.005)
    assert GuardrailMetric.of("memory_mb") == GuardrailMetric(name="memory_mb", direction="decrease", margin=0)


def test_the_names_that_no_app_can_record_beside_the_measure() -> None:
    assert {name for name, row in KNOWN_METRICS.items() if row.reserved} == {
        *("crash", "crash_rate", "error", "error_rate", "silence", "accuracy", "install_failures", "battery"),
        *("latency", "latency_p50", "latency_p95", "latency_p99"),
    }


@pytest.mark.parametrize(
    ("name", "better", "measures", "margin"),
    [
        ("latency", "decrease", ("latency_p50", "latency_p95", "latency_p99"), None),
        ("inference_time", "decrease", ("latency_p50", "latency_p95", "latency_p99"), None),
        ("p95_latency", "decrease", ("latency_p95",), None),
        ("accuracy", "increase", ("accuracy",), None),
        ("usage", "increase", ("usage",), None),
        ("install_failures", "decrease", ("failure",), None),
        ("temperature_c", "decrease", ("temperature_c",), None),
        ("miss_rate", "decrease", (), 0.005),
        ("recall", "increase", (), 0.005),
        ("feedback", "increase", (), 0.02),
    ],
)
def test_a_plain_name_means_measures_or_a_share_with_a_margin(
    name: str, better: str, measures: tuple[str, ...], margin: float | None
) -> None:
    assert KNOWN_METRICS[name] == KnownMetric(
        name=name, better=better, measures=measures, margin=margin, reserved=KNOWN_METRICS[name].reserved
    )


def test_a_name_of_battery_use_asks_for_its_limit() -> None:
    plan = written(guardrail_metrics=["battery_drain"])
    assert plan.guard_plan(plan.treated[0]).stages[0].success_criteria.battery_increase_max == 0.2
