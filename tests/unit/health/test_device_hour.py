"""A device is one unit an hour: what its windows change in the sums of its version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.health.device_hour import LATENCY_PARTS, DeviceHour, HourSums, Spread, fold_window
from whimbrel.health.pairs import Pairs
from whimbrel.health.report import Summary, Window
from whimbrel.health.sketch import key_of

HOUR = 500_000 - 500_000 % 24  # the first hour of a day


def window(**more: object) -> Window:
    return Window(model="wake", serial=1, first=1, last=1, **more)  # type: ignore[arg-type]


def told(*windows: Window, hours: list[int] | None = None, peaks: tuple[str, ...] = ()) -> tuple[DeviceHour, HourSums]:
    """What one device's windows add up to."""
    state, total = None, HourSums()
    for each, hour in zip(windows, hours or [HOUR] * len(windows), strict=True):
        state, change = fold_window(state, each, hour=hour, metrics=each.metrics, peaks=peaks, bins=4)
        total = total.plus(change)
    assert state is not None
    return state, total


def test_a_device_counts_once_an_hour_however_often_it_reports() -> None:
    _, once = told(window(sessions=3, crashed=1))
    _, often = told(*[window(sessions=1, crashed=1)] * 12)
    assert (often.devices, often.used, often.crashed) == (once.devices, once.used, once.crashed) == (1, 1, 1)


def test_a_crash_in_any_window_is_an_hour_with_a_crash() -> None:
    _, sums = told(window(sessions=1), window(sessions=1, crashed=1), window(sessions=1))
    assert (sums.devices, sums.crashed) == (1, 1)


def test_a_mean_is_that_of_the_windows_of_the_hour() -> None:
    _, sums = told(
        window(inferences=10, errors=5, metrics={"accuracy": Summary.of(1.0)}),
        window(inferences=1000, errors=0, metrics={"accuracy": Summary.of(0.5)}),
    )
    assert (sums.errors.n, sums.errors.sum, sums.errors.sumsq) == (1, 0.25, 0.0625)
    assert sums.metrics["accuracy"] == Spread(n=1, sum=0.75, sumsq=0.5625)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_revised_mean_leaves_nothing_behind(shares: list[float]) -> None:
    _, sums = told(*[window(metrics={"accuracy": Summary.of(share)}) for share in shares])
    mean = sum(shares) / len(shares)
    assert sums.metrics["accuracy"].n == 1
    assert sums.metrics["accuracy"].sum == pytest.approx(mean, abs=1e-9)
    assert sums.metrics["accuracy"].sumsq == pytest.approx(mean * mean, abs=1e-9)


def test_latency_is_told_once_an_hour_as_parts_of_one_unit() -> None:
    _, sums = told(window(latency={100: 900, 200: 100}), window(latency={300: 10**6}))
    assert (sums.latency_units, sums.latency) == (1, {100: 9000, 200: 1000})
    assert sum(sums.latency.values()) == LATENCY_PARTS


def test_predictions_beyond_the_reference_count_nowhere() -> None:
    _, sums = told(window(predictions={0: 3, 1: 1, 9: 96}))
    assert sums.prediction_units == 1
    assert {key: shares.sum for key, shares in sums.predictions.items()} == {0: 0.75, 1: 0.25}


def test_a_peak_is_the_highest_of_the_hour() -> None:
    low, high = Summary.of(40.0), Summary.of(40.0).plus(Summary.of(60.0))
    assert high.most == 60.0
    _, sums = told(window(metrics={"memory_mb": high}), window(metrics={"memory_mb": low}), peaks=("memory_mb",))
    assert sums.peaks == {"memory_mb": {key_of(60.0): 1}}
    _, raised = told(window(metrics={"memory_mb": low}), window(metrics={"memory_mb": high}), peaks=("memory_mb",))
    assert raised.peaks == sums.peaks


def test_the_peak_of_an_old_agent_is_its_mean_at_least() -> None:
    old = Summary(n=2, sum=100.0, sumsq=5200.0)
    assert (old.peak, Summary.of(40.0).peak) == (None, 40.0)
    _, sums = told(window(metrics={"memory_mb": old}), peaks=("memory_mb",))
    assert sums.peaks == {"memory_mb": {key_of(50.0): 1}}


def test_hours_of_one_device_are_paired_within_a_day() -> None:
    windows = [window(sessions=1, crashed=crashed) for crashed in (1, 0, 1)]
    _, sums = told(*windows, hours=[HOUR, HOUR + 1, HOUR + 2])
    assert sums.devices == 3
    assert sums.pairs["crash"] == Pairs.of(0.0, before=1, total=1.0)  # the third hour still lasts
    _, next_day = told(*windows, hours=[HOUR + 22, HOUR + 23, HOUR + 24])
    assert next_day.pairs == {}


def test_hours_after_one_another_know_the_busiest() -> None:
    busy, calm = HourSums(devices=10, crashed=1), HourSums(devices=4)
    both = busy.then(calm)
    assert (both.devices, both.crashed, both.most_at_once) == (14, 1, 10)
    assert calm.then(both).most_at_once == 10
