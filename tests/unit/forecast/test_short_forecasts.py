"""Forecasts of a plan of three quarters of an hour: small enough for every change, and through all of the simulation.

`tests/sim/test_forecast.py` has the long ones.
"""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from support.values import plan, stage
from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.reports.judge_silence import SILENCE_PERIODS
from whimbrel.forecast.cohort_sizes import count_cohorts
from whimbrel.forecast.effects import NOTHING_WRONG, Effect, parse_class_effect, parse_effect
from whimbrel.forecast.fleet_description import FleetDescription, PresenceGroup
from whimbrel.forecast.forecast import forecast
from whimbrel.forecast.simulate_runs import horizon
from whimbrel.forecast.simulated_reports import Latency, SimulatedReports
from whimbrel.forecast.summary import EffectForecast, Forecast, ForecastRequest, Spread
from whimbrel.health.sketch import GAMMA, key_of
from whimbrel.plan.plan import Rollback
from whimbrel.policy.shadow import ShadowStage

QUICK = plan(stage("canary", 20, hours=0.5), stage("all", 100, hours=0.25))
STEADY = (PresenceGroup(name="steady", share=1.0, online=0.99, delay_h=0.1),)
BUSY = FleetDescription(sessions_a_day=200, crash=0.01, presence=STEADY)


def expected(*effects: Effect, devices: int = 20_000, runs: int = 4, **more: Any) -> Forecast:
    asked = {"plan": QUICK, "fleet": BUSY, "seed": 3} | more
    return forecast(ForecastRequest(effects=effects, devices=devices, runs=runs, **asked))


def outcome(text: str, *, devices: int = 20_000) -> tuple[Forecast, EffectForecast]:
    effect = parse_class_effect(text, classes=list(BUSY.hardware)) if ":" in text else parse_effect(text)
    made = expected(effect, devices=devices)
    return made, made.effects[0]


def test_a_good_version_finishes_when_its_stages_have_soaked() -> None:
    made = expected()
    assert [(each.name, each.share_percent, each.begins_h) for each in made.stages] == [
        ("canary", 20.0, Spread(0.0, 0.0)),
        ("all", 90.0, Spread(0.5, 0.5)),
    ]
    assert [each.devices for each in made.stages] == pytest.approx([4_000, 18_000], rel=0.05)
    assert [each.reached.times for each in made.stages] == [4, 4]
    assert made.finishes_h == Spread(0.75, 0.75)
    assert (made.finished.times, made.false_alarm.times, made.held.times) == (4, 0, 0)
    assert (made.false_alarm_harm, made.warnings, made.held_because) == ({}, [], "")
    assert made.decisions == 4 * 20_000 * 2
    assert made.because.startswith("no harm in ")


def test_the_gate_itself_says_what_the_arrays_say() -> None:
    assert 0 < expected().gate_gap < 1e-5


def test_devices_take_the_version_after_their_delay() -> None:
    """1 - e^(-t/delay) of those who may, in windows of five minutes."""
    made = expected()
    hours = [hour for hour, _ in made.path]
    assert hours == pytest.approx([window / 12 for window in range(1, 10)])
    canary, everyone = made.stages[0].devices, made.stages[1].devices
    for hour, devices in made.path[:6]:
        assert devices == pytest.approx(canary * (1 - math.exp(-hour / 0.1)), rel=0.03)
    for hour, devices in made.path[6:]:
        assert devices == pytest.approx(everyone - (everyone - canary) * math.exp(-(hour - 0.5) / 0.1), rel=0.03)


@pytest.mark.parametrize(
    ("text", "harm", "window", "move", "sentence"),
    [
        ("crash=5x", "crash", 2, "roll_back", "crash rate 4.92% against 1.04% in the control"),
        ("error=30x", "error", 2, "roll_back", "error rate 1.21% against 0.02% in the control"),
        ("latency=2x", "latency_p95", 3, "roll_back", "latency p95 56.834 ms against 27.663 ms in the control"),
        ("accuracy=-0.2", "accuracy", 3, "slice_back", "accuracy 63.58% against 91.03% in the control"),
        ("bricked=20%", "silence", 4, "roll_back", "silence 20.88% against 0.00% in the control"),
        ("c:crash=60x", "crash", 2, "slice_back", "crash rate 49.52% against 0.65% in the control) and nowhere else"),
    ],
)
def test_each_effect_is_caught_by_its_own_guardrail(
    text: str, harm: str, window: int, move: str, sentence: str
) -> None:
    made, found = outcome(text)
    assert (found.effect, found.caught.times, found.harm, found.caught_in) == (text, 4, {harm: 4}, {"canary": 4})
    assert found.verdict_h == Spread(window / 12, window / 12)
    assert found.move == move
    assert sentence in found.because
    assert (found.held.times, found.held_because, found.bytes) == (0, "", None)
    assert found.exposed.median == pytest.approx(4_000 * (1 - math.exp(-window / 1.2)), rel=0.05)
    assert made.gate_gap < 1e-5


@pytest.mark.parametrize(
    ("text", "harm", "sentence"),
    [
        ("install_failed=30%", "failure", "harm is proven: failure"),
        ("went_back=60%", "kill switch", "the kill switch: "),
    ],
)
def test_devices_that_cannot_keep_a_version_are_counted_without_reports(text: str, harm: str, sentence: str) -> None:
    _, found = outcome(text, devices=1_000)
    assert (found.caught.times, found.harm) == (4, {harm: 4})
    assert found.because.startswith(sentence)
    assert found.verdict_h.median == pytest.approx(1 / 12)
    assert found.exposed.median == pytest.approx(
        200 * (1 - math.exp(-1 / 1.2)) * (0.7 if harm == "failure" else 1.0), rel=0.2
    )


def test_the_same_seed_gives_the_same_forecast_and_another_one_another() -> None:
    effect = parse_effect("crash=2x")
    one = expected(effect, devices=2_000, runs=2)
    assert one == expected(effect, devices=2_000, runs=2)
    assert one.path != expected(effect, devices=2_000, runs=2, seed=4).path


def test_runs_beyond_a_chunk_are_summed_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORECAST_CHUNK", 2)
    ticks: list[float] = []
    asked = ForecastRequest(
        plan=QUICK,
        fleet=BUSY,
        effects=(parse_effect("crash=5x"), parse_effect("error=30x")),
        devices=2_000,
        runs=5,
        seed=3,
    )
    made = forecast(asked, tick=ticks.append)
    assert (made.finished.runs, made.finished.times) == (5, 5)
    assert [(each.effect, each.caught.runs) for each in made.effects] == [("crash=5x", 5), ("error=30x", 5)]
    assert [set(each.harm) for each in made.effects] == [{"crash"}, {"error"}]
    assert ticks == sorted(ticks)
    assert (ticks[0] > 0, ticks[-1]) == (True, 1.0)
    assert ticks[:3] == pytest.approx([n / horizon(QUICK) / 9 for n in (1, 2, 3)])  # three chunks of three kinds


def test_a_proof_that_is_asked_for_takes_longer() -> None:
    wanted = msgspec.structs.replace(QUICK, promote="when_proven")
    fleet = msgspec.structs.replace(BUSY, crash=0.0005)
    ticks: list[float] = []
    made = forecast(ForecastRequest(plan=wanted, fleet=fleet, devices=60_000, runs=3, seed=3), tick=ticks.append)
    assert made.stages[1].begins_h.median == pytest.approx(7 / 12)
    assert made.finishes_h.median == pytest.approx(1.25)
    assert made.finished.times == 3
    assert any("every run waits for its proof" in each for each in made.assumed)
    assert ticks[-1] == 1.0


def test_a_proof_that_never_comes_holds_every_run_and_says_so() -> None:
    hourly = plan(stage("canary", 20, hours=2), stage("all", 100, hours=1))
    wanted = msgspec.structs.replace(hourly, promote="when_proven", rollback=Rollback(health_check_interval_sec=3600.0))
    made = expected(plan=wanted, devices=200, runs=3)
    assert (made.held.times, made.finished.times, made.finishes_h) == (3, 0, Spread(None, None))
    assert made.held_because == "it is not proven yet to be within the margins (when_proven)"
    assert made.stages[1].reached.times == 0
    assert made.stages[1].begins_h == Spread(None, None)


@pytest.mark.parametrize(
    ("most", "field", "value", "words"),
    [
        ("FORECAST_DEVICES", "devices", 2_000, "2001 devices; at most 2000 are simulated"),
        ("FORECAST_RUNS", "runs", 2, "3 runs; at most 2 are simulated"),
    ],
)
def test_as_many_as_the_limit_says_are_simulated_and_no_more(
    monkeypatch: pytest.MonkeyPatch, most: str, field: str, value: int, words: str
) -> None:
    monkeypatch.setattr(limits, most, value)
    assert expected(**{"devices": 500, "runs": 1} | {field: value}).finished.times
    with pytest.raises(Refused) as caught:
        expected(**{"devices": 500, "runs": 1} | {field: value + 1})
    assert str(caught.value) == words


def test_as_many_effects_as_the_limit_says_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FORECAST_EFFECTS", 1)
    assert len(expected(parse_effect("crash=5x"), devices=500, runs=1).effects) == 1
    with pytest.raises(Refused, match=r"^2 effects; at most 1 are simulated$"):
        expected(parse_effect("crash=5x"), parse_effect("error=2x"), devices=500, runs=1)


def test_a_shadow_stage_is_refused_by_its_name() -> None:
    asked = plan(stage("beside", 5, hours=1, shadow=ShadowStage()), stage("canary", 5, hours=1))
    with pytest.raises(Refused, match=r"^stage 'beside' is a shadow stage, and those are not simulated"):
        expected(plan=asked)


def test_a_run_that_holds_ends_a_day_after_its_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert horizon(QUICK) == (0.75 + 24) * 12 + 2
    monkeypatch.setattr(limits, "FORECAST_WINDOWS", 299)
    assert horizon(QUICK) == 299
    monkeypatch.setattr(limits, "FORECAST_WINDOWS", 298)
    with pytest.raises(Refused, match=r"^the plan has 299 windows of 300 s; at most 298 are simulated: "):
        horizon(QUICK)
    slower = msgspec.structs.replace(QUICK, rollback=Rollback(health_check_interval_sec=600.0))
    assert horizon(slower) == math.ceil(24.75 * 6) + 2


# --- latencies ---


@pytest.mark.parametrize("limit_ms", [50.0, 51.0, 52.0, 53.0, 60.0])
def test_latencies_are_told_apart_in_steps_of_the_margins_with_the_plans_limit_as_an_edge(limit_ms: float) -> None:
    asked = plan(stage("canary", 5, hours=1, latency_p99_max_ms=limit_ms))
    made = Latency(asked, BUSY, parse_effect("latency=2x"))
    step = int(made.keys[1] - made.keys[0])
    assert set(np.diff(made.keys)) == {step}
    assert (key_of(limit_ms) - made.keys[0]) % step == 0
    low, high = 10 * math.exp(-0.85 * 0.6), 20 * math.exp(3.3 * 0.6)
    assert made.keys[0] <= key_of(low) < made.keys[0] + step
    assert made.keys[-1] - step < key_of(high) <= made.keys[-1]


@pytest.mark.parametrize(("effect", "median"), [("latency=2x", 20.0), ("crash=2x", 10.0)])
def test_chances_of_latencies_are_those_of_the_fleet_and_of_the_effect(effect: str, median: float) -> None:
    made = Latency(QUICK, BUSY, parse_effect(effect))
    drawn = np.random.default_rng(1).lognormal(np.log([10.0, median]), 0.6, (200_000, 2))
    for chances, times in zip((made.plain, made.slow), drawn.T, strict=True):
        assert chances.sum() == pytest.approx(1)
        for place in (4, 10, 20):
            assert chances[: place + 1].sum() == pytest.approx((times <= GAMMA ** made.keys[place]).mean(), abs=0.005)


def test_a_limit_of_latency_far_from_the_fleet_is_no_edge() -> None:
    near, far = (
        Latency(plan(stage("canary", 5, hours=1, latency_p99_max_ms=limit)), BUSY, NOTHING_WRONG)
        for limit in (150, 9_000)
    )
    assert near.keys[-1] >= key_of(150.0)
    assert far.keys[-1] < key_of(9_000.0)


# --- reports ---


def test_slow_sessions_are_those_of_the_class_with_the_effect() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=50_000, fleets=1, seed=1)
    effect = parse_class_effect("b:latency=3x", classes=list(BUSY.hardware))
    reports = SimulatedReports(QUICK, BUSY, cohorts, effect, runs=2, first=0, seed=[1])
    reports.enter(0, np.ones(2, dtype=bool))
    timed, active = np.zeros((2, len(reports.latency.keys))), np.zeros((2, 4))
    for window in range(6):
        for side, arm in enumerate(reports.window(window)[0]):
            timed[side] += arm.latency.sum(axis=(0, 1))
            active[side] += np.asarray(arm.error_units).sum(axis=(0, 1))
    assert timed.sum(axis=1) == pytest.approx(active.sum(axis=1))  # one session of a device-window is timed
    over = reports.latency.keys > key_of(30.0)
    share_slow = active[0, 1] / active[0].sum()
    slow, plain = reports.latency.slow[over].sum(), reports.latency.plain[over].sum()
    assert (timed[:, over].sum(axis=1) / timed.sum(axis=1)) == pytest.approx(
        [share_slow * slow + (1 - share_slow) * plain, plain], rel=0.1
    )


def test_a_device_is_due_three_periods_after_it_took_the_version_and_silent_if_it_is_dead() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=20_000, fleets=1, seed=1)
    reports = SimulatedReports(QUICK, BUSY, cohorts, parse_effect("bricked=50%"), runs=1, first=0, seed=[1])
    reports.enter(0, np.ones(1, dtype=bool))
    joined, due, overdue = [], [], []
    before = 0
    for window in range(7):
        arm = reports.window(window)[0][0]
        treated = reports.cohorts[0][0]
        joined.append(int(treated.activated[0]) - before)
        before = int(treated.activated[0])
        due.append(int(np.asarray(arm.due).sum()))
        overdue.append(int(np.asarray(arm.overdue).sum()))
    assert due == [0] * SILENCE_PERIODS + joined[: 7 - SILENCE_PERIODS]
    assert sum(overdue) == pytest.approx(0.5 * sum(due), rel=0.05)


def test_the_counts_of_a_run_are_those_of_its_devices() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=20_000, fleets=1, seed=1)
    reports = SimulatedReports(QUICK, BUSY, cohorts, parse_effect("install_failed=50%"), runs=2, first=0, seed=[1])
    reports.enter(0, np.ones(2, dtype=bool))
    for window in range(12):
        reports.window(window)
    counts = reports.counts(1, stage=0)
    assert list(counts) == [0]
    assert (counts[0].assigned_t, counts[0].assigned_c) == (cohorts.treated[0, 0].sum(), cohorts.control[0, 0, 0].sum())
    assert counts[0].failed_t == pytest.approx(0.5 * counts[0].assigned_t, rel=0.1)
    assert counts[0].activated_t + counts[0].failed_t == pytest.approx(counts[0].assigned_t, rel=0.01)
    assert counts[0].placebo_c == pytest.approx(counts[0].assigned_c, rel=0.01)
    assert counts[0].reported_t == pytest.approx(counts[0].activated_t, rel=0.02)
    failed, tried, went_back = reports.failures()
    assert (failed[1], tried[1], went_back[1]) == (counts[0].failed_t, counts[0].failed_t + counts[0].activated_t, 0)


def test_nothing_is_drawn_for_a_run_that_is_over() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=2_000, fleets=1, seed=1)
    reports = SimulatedReports(QUICK, BUSY, cohorts, NOTHING_WRONG, runs=2, first=0, seed=[1])
    reports.enter(0, np.ones(2, dtype=bool))
    for window in range(4):
        reports.window(window)
    reports.stop(np.array([True, False]))
    arms = reports.window(4)[0]
    assert [int(arm.at_risk[0].sum()) for arm in arms] == [0, 0]
    assert all(arm.at_risk[1].sum() > 0 for arm in arms)
