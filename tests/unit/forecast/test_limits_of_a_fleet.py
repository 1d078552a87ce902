"""A plan that the assumed fleet breaks by itself is said to hold, before anybody wonders why nothing finishes."""

import msgspec
import numpy as np
import pytest

from whimbrel.flows.files.plan_file import read_plan
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.forecast.limits_of_a_fleet import limits_broken
from whimbrel.plan.plan import Plan

FLEET = FleetDescription()


def plan(first: str = "{}", second: str = "{}") -> Plan:
    return read_plan(
        'rollout:\n  model_version: "detector-v3.2"\n  stages:\n'
        f"    - {{name: canary, target_percent: 5, duration_hours: 1, success_criteria: {first}}}\n"
        f"    - {{name: general, target_percent: 100, success_criteria: {second}}}\n",
        what="plan.yaml",
    )


def test_the_published_plan_and_the_default_fleet_go_together() -> None:
    assert limits_broken(plan("{accuracy_drop_max: 0.02, error_rate_max: 0.001, latency_p99_max_ms: 50}"), FLEET) == []


def test_errors_over_the_limit_are_said_once_with_the_stage_and_both_figures() -> None:
    fleet = msgspec.structs.replace(FLEET, error=0.005)
    (sentence,) = limits_broken(plan("{error_rate_max: 0.001}"), fleet)
    assert "stage canary holds whatever the version is" in sentence
    assert "0.1% of the device-windows (error_rate_max)" in sentence
    assert "0.5%" in sentence
    assert "--traffic" in sentence
    assert limits_broken(plan("{error_rate_max: 0.005}"), fleet) == []


def test_slow_sessions_are_counted_as_the_fleets_latency_is_spread() -> None:
    limit_ms = 50.0
    drawn = np.random.default_rng(1).lognormal(np.log(20), 0.6, 400_000) > limit_ms
    (sentence,) = limits_broken(
        plan(f"{{latency_p99_max_ms: {limit_ms}}}"), msgspec.structs.replace(FLEET, latency_ms=20.0, latency_spread=0.6)
    )
    told = float(sentence.split("and ")[1].split("%")[0]) / 100
    assert told == pytest.approx(drawn.mean(), rel=0.02)


def test_a_limit_of_a_later_stage_names_that_stage() -> None:
    (sentence,) = limits_broken(plan(second="{accuracy_min: 0.95}"), FLEET)
    assert "stage general holds" in sentence
    assert "an accuracy of 0.95" in sentence
