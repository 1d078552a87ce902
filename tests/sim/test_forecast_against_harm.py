"""Two simulators that were written apart, on the same fleet, say the same of the same harm."""

import math

import numpy as np
import pytest

import harm_streams as harm
from whimbrel.forecast.cohort_sizes import count_cohorts
from whimbrel.forecast.effects import parse_effect
from whimbrel.forecast.fleet_description import FleetDescription, PresenceGroup
from whimbrel.forecast.simulate_runs import Task, simulate_runs
from whimbrel.gate.batch_gate import BatchLedger

RUNS = 60


def benchmark(name: str) -> tuple[float, float]:
    """The median window of the verdict in the benchmark's streams, and the devices exposed by then."""
    scenario = next(each for each in harm.SCENARIOS if each.name == name)
    streams = harm.Streams(scenario, runs=RUNS, seed=5, latency=harm.COARSE)
    ledger = BatchLedger(harm.PLAN, runs=RUNS, classes=harm.CLASSES)
    found = np.full(RUNS, -1)
    for window in range(harm.STARTS[2]):
        ledger.fold(streams.window(window))
        found[(ledger.log_e() >= math.log(1 / harm.PLAN.alpha)) & (found < 0)] = window
        if (found >= 0).all():
            break
    assert (found >= 0).all()
    return float(np.median(found)), float(np.median([harm.exposed(window) for window in found]))


def described() -> FleetDescription:
    """The benchmark's fleet in the forecast's words: a device is silent when three reports in a row do not come."""
    online = 1 - harm.SILENT ** (1 / harm.DUE_AFTER)
    return FleetDescription(
        source="bench/harm.py",
        start_hour=9.5,
        sessions_a_day=-288 * math.log(1 - harm.SESSIONS / online),
        crash=0.01,
        error=harm.ERRORS,
        accuracy=0.84,
        labelled=harm.LABELLED,
        install_failed=0.0,
        latency_ms=harm.MEDIAN_MS,
        latency_spread=harm.SIGMA,
        hardware={f"c{n}": 1 / harm.CLASSES for n in range(harm.CLASSES)},
        presence=(PresenceGroup(name="all", share=1.0, online=online, delay_h=harm.INSTALL / 12),),
    )


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("crash_1_2", "crash=2x"),
        ("crash_1_3", "crash=3x"),
        ("accuracy", "accuracy=-0.04"),
        ("p99", "latency=1.5x"),
        ("bricked_2", "bricked=2%"),
    ],
)
def test_forecast_and_benchmark_expect_the_same_exposure(name: str, effect: str) -> None:
    """Within two five-minute windows, and within a fifth where a window is not a third of it all.

    The forecast's devices report from the window after their activation on, the benchmark's from half of it.
    """
    window, exposed = benchmark(name)
    fleet = described()
    cohorts = count_cohorts(harm.PLAN, fleet, devices=harm.DEVICES, fleets=1, seed=1)
    results = simulate_runs(
        Task(
            plan=harm.PLAN,
            fleet=fleet,
            cohorts=cohorts,
            effect=parse_effect(effect),
            first=0,
            runs=RUNS,
            seed=[3],
            through_gate=False,
        )
    )
    assert (results.caught >= 0).all()
    assert abs(float(np.median(results.caught)) - window) <= 2
    if name != "p99":
        assert float(np.median(results.exposed)) == pytest.approx(exposed, rel=0.2)
