"""The figures of the table of measures: another part or margin gives stored verdicts other digits."""

from pathlib import Path

import pytest

from support.values import plan, stage
from whimbrel.gate.guardrails import guard_weights
from whimbrel.plan.criteria import Guardrail
from whimbrel.plan.measures import (
    DRIFT_PSI_MAX,
    LIMITS,
    MEASURES,
    SHARES,
    SUMS,
    UNITS,
    Mean,
    OneSample,
    Other,
    OverLimit,
    Quantile,
    Rate,
)

# By measure: its part of the false-alarm budget, and the harm that is tolerated where a plan says nothing.
FIGURES = {
    "crash": (16, 1.1),
    "accuracy": (9, 0.005),
    "error": (2, 1.1),
    "silence": (6, 1.1),
    "failure": (1, 0.02),
    "latency_p50": (1.5, 1.1),
    "latency_p95": (3, 1.1),
    "latency_p99": (0.5, 1.1),
    "error_limit": (1, None),
    "latency_limit": (1, None),
    "latency_over": (1, None),
    "battery": (1, 1.1),
    "feedback": (1, 0.02),
    "user_reports": (2, 1.1),
    "drift": (1, 0.25),
    "version_reports": (0.5, None),
    "usage": (2, 1.1),
    "memory_mb": (0.5, 1.1),
    "temperature_c": (0.25, 3.0),
}


def test_the_parts_and_margins_of_the_measures_stand_in_their_order() -> None:
    told = [(name, row.part, row.margin and row.margin.default) for name, row in MEASURES.items()]
    assert told == [(name, *figures) for name, figures in FIGURES.items()]


def test_a_plan_divides_the_budget_by_the_parts_of_what_it_watches() -> None:
    own = Guardrail(metric="fps", direction="lower_is_worse", margin=1)
    weights = guard_weights(plan(stage("a", 5), stage("b", 100), guardrails=(own, Guardrail(metric="crash", weight=4))))
    parts = {name: FIGURES[name][0] for name in weights if name in FIGURES} | {"crash": 4, "fps": 1}
    assert weights == {name: part / sum(parts.values()) for name, part in parts.items()}
    assert sum(parts.values()) == pytest.approx(31.75)


def test_the_reference_says_the_parts() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/plan.md").read_text()
    parts = {name: part for name, (part, _) in FIGURES.items()}
    assert (
        f"{parts['crash']} for crashes, {parts['accuracy']} for accuracy, {parts['silence']} for silence, "
        f"{parts['latency_p95']} for p95, {parts['error']} for errors, usage and user reports, else 1.5 or less; "
        "1 for your own"
    ) in page
    assert sorted(set(parts.values())) == [0.25, 0.5, 1, 1.5, 2, 3, 6, 9, 16]


def test_what_is_read_out_of_the_rows() -> None:
    assert SUMS == ("crashed", "used", "error_share", "error_units", "overdue", "due", "user_reports", "at_risk")
    assert UNITS == {"battery": "percent_an_hour", "memory_mb": "MB", "temperature_c": "°C"}
    assert sorted(SHARES) == ["accuracy", "feedback"]
    assert DRIFT_PSI_MAX == 0.25
    assert {name for name, row in MEASURES.items() if row.by_class} == {"crash", "accuracy", "error", "silence"}
    assert {name for name, row in MEASURES.items() if row.rare} == {"crash", "error", "silence"}
    assert {name for name, row in MEASURES.items() if row.counted} == {"crash", "user_reports"}
    assert {name for name, row in MEASURES.items() if row.if_heard} == {"user_reports"}
    assert {name: row.severest for name, row in MEASURES.items() if row.severest != "rollback"} == {
        "version_reports": "hold"
    }
    assert {name for name, row in MEASURES.items() if row.direction == "lower_is_worse"} == {
        *("accuracy", "feedback", "usage")
    }


def test_a_rate_has_events_within_its_exposure_but_for_what_users_write_and_fewer_are_worse_of_usage_alone() -> None:
    rates = {name: row.test for name, row in MEASURES.items() if isinstance(row.test, Rate)}
    assert [name for name, rate in rates.items() if not rate.within] == ["user_reports"]
    assert [name for name, rate in rates.items() if rate.fewer] == ["usage"]


def test_what_each_measure_tests() -> None:
    tests = {name: row.test for name, row in MEASURES.items() if not isinstance(row.test, Rate | Other)}
    assert tests == {
        "accuracy": Mean("drop"),
        "feedback": Mean("drop"),
        "battery": Mean("growth"),
        "memory_mb": Mean("growth"),
        "temperature_c": Mean("rise"),
        "latency_p50": Quantile(0.5),
        "latency_p95": Quantile(0.95),
        "latency_p99": Quantile(0.99),
        "error_limit": OneSample("error_rate_max", rate="error"),
        "latency_limit": OneSample("latency_p99_max_ms"),
        "latency_over": OverLimit("latency_p99_max_ms"),
    }
    assert [name for name, row in MEASURES.items() if row.prove == "always"] == [
        *("crash", "silence", "user_reports", "usage")
    ]
    assert [name for name, row in MEASURES.items() if not row.always] == [
        *("error_limit", "latency_limit", "latency_over", "feedback", "user_reports", "drift", "version_reports")
    ]


def test_limits_stand_in_the_order_in_which_verdicts_name_them() -> None:
    assert [limit.criterion for limit in LIMITS] == [
        *("error_rate_max", "accuracy_drop_max", "latency_p99_max_ms", "crash_ratio_max", "latency_increase_max"),
        *("battery_increase_max", "user_reports_ratio_max", "drift_psi_max"),
    ]
