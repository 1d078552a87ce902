"""What monitors prove: by independent looks, within one budget, and nothing more."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from whimbrel.gate.monitor import (
    ALPHA,
    Sample,
    design_effect,
    figures_of,
    in_use,
    needed,
    summed,
)
from whimbrel.gate.monitor_anomalies import Compared, departures
from whimbrel.gate.monitor_objectives import judge_objective
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.health.sketch import key_of
from whimbrel.plan.objectives import read_objective

NEEDED = needed(tests=744, part=0.5)
UNALIKE = Pairs(pairs=10_000, squares=10_000)  # hours of one device have nothing in common


def sums(devices: int = 100, *, crashed: int = 0, alike: bool = False, **more: object) -> HourSums:
    pairs = {} if alike else dict.fromkeys(("crash", "error", "usage", "accuracy", "battery"), UNALIKE)
    values = {"devices": devices, "used": devices, "crashed": crashed, "pairs": pairs} | more
    return HourSums(**values)


def mean(value: float, devices: int = 100, *, sd: float = 0.1) -> Spread:
    return Spread(n=devices, sum=value * devices, sumsq=devices * (value * value + sd * sd))


def state(text: str, *hours: HourSums) -> str:
    return judge_objective(read_objective(text), hours, needed=NEEDED).state


def test_the_budget_is_divided_among_all_tests_of_a_month() -> None:
    assert needed(tests=1, part=1.0) == pytest.approx(math.log(1 / ALPHA))
    assert needed(tests=744, part=0.5) == pytest.approx(math.log(2 * 744 / ALPHA))


def test_a_device_that_stays_itself_is_one_look() -> None:
    """Ten devices that always fail, over a day, prove no more than ten devices once."""
    alike = Sample(240, 10, 0.25, Pairs(pairs=2760, squares=54_280, now=1380.0, then=1380.0, both=1380.0))
    assert design_effect(alike) > 20
    unalike = Sample(240, 10, 0.25, UNALIKE)
    assert design_effect(unalike) < 1.3
    assert design_effect(Sample(10, 10, 0.25)) == 1
    assert design_effect(unalike, alike) == design_effect(alike)


def test_where_nothing_tells_how_alike_hours_are_they_are_the_same() -> None:
    assert design_effect(Sample(240, 10, 0.25)) == pytest.approx(24)


@pytest.mark.parametrize(
    ("text", "kept", "broken"),
    [
        ("crash_rate < 1%", sums(crashed=1), sums(crashed=40)),
        ("error_rate < 5%", sums(errors=mean(0.02)), sums(errors=mean(0.5))),
        ("usage > 50%", sums(used=80), sums(used=5)),
        ("accuracy > 84%", sums(metrics={"accuracy": mean(0.9)}), sums(metrics={"accuracy": mean(0.7)})),
        ("battery < 5", sums(metrics={"battery": mean(3, sd=1)}), sums(metrics={"battery": mean(9, sd=1)})),
        (
            "latency_p99_ms < 10",
            sums(latency_units=100, latency={key_of(5.0): 1_000_000}),
            sums(latency_units=100, latency={key_of(5.0): 500_000, key_of(20.0): 500_000}),
        ),
        (
            "memory_mb < 50 peak",
            sums(peaks={"memory_mb": {key_of(40.0): 100}}),
            sums(peaks={"memory_mb": {key_of(40.0): 80, key_of(60.0): 20}}),
        ),
    ],
)
def test_an_objective_is_kept_or_broken(text: str, kept: HourSums, broken: HourSums) -> None:
    assert (state(text, kept), state(text, broken)) == ("kept", "broken")


def test_one_broken_sensor_breaks_no_peak() -> None:
    assert state("memory_mb < 50 peak", sums(peaks={"memory_mb": {key_of(40.0): 99, key_of(9e9): 1}})) == "kept"


def test_what_is_not_told_is_neither_kept_nor_broken() -> None:
    for text in ("accuracy > 84%", "latency_p99_ms < 10", "memory_mb < 50 peak", "drift_psi < 0.25", "error_rate < 1%"):
        assert state(text, sums()) == "nothing_told"
        assert state(text) == "nothing_told"


def test_three_devices_that_fail_all_day_break_nothing_for_the_others() -> None:
    """20 devices of which 3 crash in every hour: 15% of device-hours, and 3 looks."""
    day = [
        HourSums(
            devices=20,
            used=20,
            crashed=3,
            pairs={"crash": Pairs(pairs=20 * n, squares=20 * n * n, now=3.0 * n, then=3.0 * n, both=3.0 * n)},
        )
        for n in range(24)
    ]
    assert state("crash_rate < 5%", *day) == "beyond"
    assert state("crash_rate < 5%", *(HourSums(devices=20, used=20, crashed=20) for _ in range(2))) == "broken"


def test_figures_are_of_what_was_told() -> None:
    told = figures_of(sums(used=50, crashed=5, errors=mean(0.25), metrics={"accuracy": mean(0.75)}))
    assert (told.usage, told.crash_rate, told.error_rate, told.means) == (0.5, 0.1, 0.25, {"accuracy": 0.75})
    assert (told.latency_p99_ms, told.peaks) == (None, {})
    assert figures_of(HourSums()).crash_rate is None
    assert in_use(sums(devices=7, used=0)) == 7  # nobody tells of sessions


# --- anomalies ---


def found(hours: Sequence[Compared], *, before: Sequence[Compared] = ()) -> set[str]:
    threshold = needed(tests=31 * 14, part=0.5)
    return {each.measure for each in departures(hours, before=before) if each.log_e >= threshold}


def day(now: HourSums, other: HourSums, *, hours: int = 12) -> list[Compared]:
    return [Compared(now, other)] * hours


@pytest.mark.parametrize(
    ("measure", "now", "other"),
    [
        ("crash", {"crashed": 60}, {"crashed": 10}),
        ("error", {"errors": mean(0.5, 1000)}, {"errors": mean(0.01, 1000)}),
        ("usage", {"used": 100}, {"used": 900}),
        ("accuracy", {"metrics": {"accuracy": mean(0.7, 1000)}}, {"metrics": {"accuracy": mean(0.9, 1000)}}),
        ("battery", {"metrics": {"battery": mean(9, 1000, sd=1)}}, {"metrics": {"battery": mean(5, 1000, sd=1)}}),
        (
            "latency_p95",
            {"latency_units": 1000, "latency": {key_of(20.0): 10_000_000}},
            {"latency_units": 1000, "latency": {key_of(10.0): 10_000_000}},
        ),
    ],
)
def test_each_measure_that_departs_is_found_alone(
    measure: str, now: dict[str, object], other: dict[str, object]
) -> None:
    assert found(day(sums(1000, **now), sums(1000, **other))) == {measure}
    assert found(day(sums(1000, **other), sums(1000, **other))) == set()
    assert found(day(sums(1000, **other), sums(1000, **now))) == set()


def test_half_of_all_answers_wrong_is_seen_in_a_small_fleet_within_hours() -> None:
    """Errors that stay with their devices are few looks; a ratio alone needed more than 100 devices."""
    bad, good = sums(70, alike=True, errors=mean(0.5, 70, sd=0.3)), sums(70, alike=True, errors=mean(0.01, 70, sd=0.01))
    assert found(day(bad, good, hours=2)) == {"error"}


def test_versions_that_always_differed_are_no_anomaly() -> None:
    apart = day(sums(1000, crashed=60), sums(1000, crashed=20))
    assert found(apart) == {"crash"}
    assert found(apart, before=apart) == set()
    assert found(day(sums(1000, crashed=300), sums(1000, crashed=20)), before=apart) == {"crash"}


def test_hours_without_the_other_side_prove_nothing() -> None:
    assert found(day(sums(1000, crashed=500), HourSums())) == set()
    assert found([]) == set()


@pytest.mark.parametrize("shape", [1.0, 0.25])
def test_devices_with_rates_of_their_own_are_no_anomaly(shape: float) -> None:
    """Two groups of 100 devices beside one another for a day, alike but for chance: none of 200 is an anomaly."""
    rng = np.random.default_rng(72)
    wrong = sum(bool(found(list(group_hours(rng, shape)))) for _ in range(200))
    assert wrong == 0


def group_hours(rng: np.random.Generator, shape: float) -> list[Compared]:
    sides = [crash_hours(np.minimum(0.9, rng.gamma(shape, 0.02 / shape, 100)), rng) for _ in range(2)]
    return [Compared(one, two) for one, two in zip(*sides, strict=True)]


def crash_hours(rates: np.ndarray, rng: np.random.Generator) -> list[HourSums]:
    """A day of devices that all report, with pairs as `fold_window` adds them."""
    crashed = rng.random((24, len(rates))) < rates
    hours = []
    for hour in range(24):
        pairs = Pairs()
        if hour > 1:
            before, y = crashed[: hour - 1].sum(axis=0), crashed[hour - 1]
            k = hour - 1
            pairs = Pairs(
                pairs=k * len(rates),
                squares=k * k * len(rates),
                now=float(k * y.sum()),
                then=float(before.sum()),
                both=float((before * y).sum()),
            )
        hours.append(
            HourSums(devices=len(rates), used=len(rates), crashed=int(crashed[hour].sum()), pairs={"crash": pairs})
        )
    return hours


def test_hours_are_summed_with_the_busiest_one() -> None:
    total = summed([sums(10), sums(30), sums(20)])
    assert (total.devices, total.most_at_once) == (60, 30)
