"""Forecasts: the gate itself agrees with the arrays, and what they come to is what the runs did."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from support.values import plan, stage
from whimbrel.errors import Refused
from whimbrel.forecast.cost import Prices, Tier, sizes_for
from whimbrel.forecast.effects import parse_class_effect, parse_effect
from whimbrel.forecast.fleet_description import FleetDescription, PresenceGroup
from whimbrel.forecast.forecast import forecast
from whimbrel.forecast.plots import plot
from whimbrel.forecast.summary import Chance, Forecast, ForecastRequest, Spread
from whimbrel.plan.plan import Plan, Rollback
from whimbrel.policy.shadow import ShadowStage

pytestmark = pytest.mark.long
QUICK = plan(stage("canary", 5, hours=2), stage("early", 25, hours=2), stage("general", 100, hours=1))
STEADY = (PresenceGroup(name="steady", share=1.0, online=0.99, delay_h=0.5),)
BUSY = FleetDescription(sessions_a_day=60, crash=0.01, presence=STEADY)


def expected(asked: Plan = QUICK, fleet: FleetDescription = BUSY, *effects: str, **more: Any) -> Forecast:
    values = {"devices": 100_000, "runs": 8, "seed": 3} | more
    return forecast(ForecastRequest(plan=asked, fleet=fleet, effects=tuple(map(parse_effect, effects)), **values))


def test_the_gate_itself_says_what_the_arrays_say() -> None:
    found = expected(QUICK, BUSY, "crash=3x", "latency=1.5x", "accuracy=-0.05", "bricked=5%", "install_failed=10%")
    assert found.gate_gap < 1e-5
    assert [each.caught.share for each in found.effects] == [1.0] * 5
    assert {each.move for each in found.effects} <= {"roll_back", "slice_back"}
    assert all("harm is proven" in each.because for each in found.effects)


def test_a_good_version_finishes_when_its_stages_have_soaked() -> None:
    found = expected()
    assert found.finished.share == 1.0
    assert [each.begins_h.median for each in found.stages] == [0, 2, 4]
    assert found.finishes_h.median == 5
    assert [each.devices for each in found.stages] == pytest.approx([5_000, 25_000, 90_000], rel=0.05)
    assert found.path[-1][1] <= found.stages[-1].devices


def test_a_worse_effect_is_caught_earlier_and_reaches_fewer() -> None:
    mild, strong = expected(QUICK, BUSY, "crash=2x", "crash=5x").effects
    assert strong.exposed.median < mild.exposed.median
    assert strong.verdict_h.median < mild.verdict_h.median


def test_a_limit_that_is_broken_holds_where_nothing_is_proven_yet() -> None:
    """Thirty devices prove nothing of accuracy; the plan's own limit holds them."""
    asked = plan(stage("canary", 50, hours=2, accuracy_drop_max=0.01), stage("all", 100, hours=1))
    fleet = msgspec.structs.replace(BUSY, labelled=0.5, crash=0.0, error=0.0)
    found = expected(asked, fleet, "accuracy=-0.2", devices=30)
    (bad,) = found.effects
    assert bad.held.times > 0
    assert "below the control's" in bad.held_because
    assert bad.exposed.median is not None
    assert bad.exposed.median < 30


def test_the_kill_switch_stops_a_small_fleet() -> None:
    found = expected(QUICK, BUSY, "went_back=60%", devices=200)
    assert found.effects[0].caught.share == 1.0
    assert "the kill switch" in found.effects[0].because


def test_one_bad_class_is_found_and_only_it_goes_back() -> None:
    effect = parse_class_effect("c:crash=9x", classes=list(BUSY.hardware))
    found = forecast(ForecastRequest(plan=QUICK, fleet=BUSY, effects=(effect,), devices=200_000, runs=4, seed=1))
    assert found.effects[0].move == "slice_back"
    assert "proven in c " in found.effects[0].because


def test_the_same_seed_gives_the_same_forecast_in_one_process_or_two() -> None:
    short = plan(stage("canary", 20, hours=0.5))
    asked = ForecastRequest(plan=short, fleet=BUSY, effects=(parse_effect("crash=2x"),), devices=5_000, runs=52, seed=5)
    ticks: list[float] = []
    one, two = forecast(asked), forecast(asked, processes=2, tick=ticks.append)
    assert one == two
    assert ticks[-1] == 1.0
    assert ticks == sorted(ticks)
    assert forecast(msgspec.structs.replace(asked, seed=6)) != one


def test_a_proof_that_is_asked_for_takes_longer_or_never_comes() -> None:
    asked = plan(stage("canary", 20, hours=1), stage("all", 60, hours=1))
    wanted = msgspec.structs.replace(asked, promote="when_proven")
    plain, proven = expected(asked, devices=60_000, runs=4), expected(wanted, devices=60_000, runs=4)
    assert plain.finishes_h.median == 2.0
    assert proven.finishes_h.median > 2.0
    assert any("waits for its proof" in each for each in proven.assumed)
    few = expected(wanted, devices=5_000, runs=4)
    assert few.held.share == 1.0
    assert "not proven yet" in few.held_because


def test_guardrails_that_are_not_simulated_are_said() -> None:
    asked = plan(stage("canary", 5, hours=1, battery_increase_max=0.2))
    found = expected(asked, runs=2)
    assert any("battery" in each and "not simulated" in each for each in found.assumed)
    assert found.finished.times == 0
    assert "battery_increase_max asks for battery use, and nothing about it was reported" in found.held_because


def test_bytes_and_cost_come_from_what_was_given_alone() -> None:
    assert expected(runs=2).transfer is None
    ways = [(base.name, base.way) for base in BUSY.versions]
    prices = Prices(currency="EUR", tiers=(Tier(per_gb=1.0),))
    sizes = sizes_for(ways, {"delta": 1e6, "chain": 2e6, "compressed": 4e6})
    found = expected(runs=2, sizes=sizes, prices=prices)
    sent = found.transfer
    assert sent is not None
    each = 0.8 * 1e6 + 0.15 * 2e6 + 0.05 * 4e6
    assert sent.total == pytest.approx(100_000 * each)
    assert sent.cost == pytest.approx(sent.total / 1e9)
    assert sum(part.bytes for part in found.stages) == pytest.approx(90_000 * each, rel=0.02)


def test_a_plan_of_too_many_windows_is_refused_with_the_way_out() -> None:
    asked = msgspec.structs.replace(QUICK, rollback=Rollback(health_check_interval_sec=1.0))
    with pytest.raises(Refused, match="health_check_interval_sec"):
        expected(asked)


def test_a_shadow_stage_is_refused_rather_than_forecast_as_if_it_served() -> None:
    asked = plan(stage("beside", 5, hours=1, shadow=ShadowStage()), stage("canary", 5, hours=1))
    with pytest.raises(Refused, match="'beside' is a shadow stage"):
        expected(asked)


def test_chances_say_how_little_few_runs_tell() -> None:
    assert Chance.of(0, 100).high == pytest.approx(0.037, abs=0.001)
    assert Chance.of(0, 100).low == 0
    assert Chance.of(50, 100).low == pytest.approx(0.404, abs=0.001)
    assert Spread.of(np.array([1.0, 2.0, 3.0, math.inf])) == Spread(3.0, None)


def test_a_forecast_is_one_specification_for_any_drawing_tool() -> None:
    found = expected(QUICK, BUSY, "crash=3x", "crash=1.01x", runs=4)
    spec = plot(found)
    assert len(spec["vconcat"]) == 2
    names = [row["effect"] for row in spec["vconcat"][1]["data"]["values"]]
    assert names == ["crash=3x", "crash=1.01x", "nothing wrong"]
    assert "vconcat" not in plot(expected(runs=2))
