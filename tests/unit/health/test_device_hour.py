"""A device is one unit an hour: what its windows change in the sums of its version."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel import limits
from whimbrel.health.device_hour import LATENCY_PARTS, DeviceHour, HourSums, Spread, add_up, fold_window
from whimbrel.health.pairs import Pairs
from whimbrel.health.report import Summary, Window
from whimbrel.health.sketch import key_of
from whimbrel.health.tally import Moments

HOUR = 500_000 - 500_000 % 24  # the first hour of a day


def window(**more: object) -> Window:
    return Window(model="wake", serial=1, first=1, last=1, **more)


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


# --- the sums ---

FULL = HourSums(
    devices=9,
    used=8,
    crashed=3,
    errors=Spread(n=4, sum=1.5, sumsq=0.75),
    metrics={"watts": Spread(n=2, sum=3.0, sumsq=5.0)},
    peaks={"watts": {7: 2, 3: 1}},
    latency_units=2,
    latency={100: 15_000, 50: 5000},
    prediction_units=2,
    predictions={1: Moments(n=2, sum=1.0, sumsq=0.5)},
    pairs={"crash": Pairs(4, 6, 1.0, 2.0, 3.0)},
    busiest=5,
)


def test_sums_of_an_hour_add_up_in_every_field_and_the_busiest_stays() -> None:
    both = FULL.plus(FULL)
    for name in HourSums.__struct_fields__:
        value, twice = getattr(FULL, name), getattr(both, name)
        if name == "busiest":
            assert twice == 5
        elif name == "peaks":
            assert twice == {"watts": {3: 2, 7: 4}}
        elif isinstance(value, dict):
            assert twice == {k: 2 * v if isinstance(v, int) else v.plus(v) for k, v in value.items()}, name
        else:
            assert twice == (value.plus(value) if isinstance(value, Spread) else 2 * value), name
    assert add_up([FULL, HourSums()]) == add_up([HourSums(), FULL]) == add_up([FULL]) == settled_order(FULL)
    assert add_up([]) == HourSums()


def settled_order(sums: HourSums) -> HourSums:
    """The same sums, as they are kept: with their keys in order."""
    return msgspec.structs.replace(sums, peaks={"watts": {3: 1, 7: 2}}, latency={50: 5000, 100: 15_000})


def test_added_sums_have_their_keys_in_order_and_no_empty_bucket() -> None:
    one = HourSums(peaks={"b": {2: 1}, "a": {9: 1}}, latency={5: 1, 2: 3}, predictions={3: Moments.of(1.0)})
    two = HourSums(
        peaks={"b": {2: -1, 1: 1}},
        latency={2: -3},
        predictions={1: Moments.of(1.0)},
        metrics={"z": Spread(n=1), "c": Spread(n=1)},
        pairs={"z": Pairs(), "c": Pairs()},
    )
    both = add_up([one, two])
    assert [list(each) for each in (both.peaks, both.metrics, both.predictions, both.pairs)] == [
        ["a", "b"],
        ["c", "z"],
        [1, 3],
        ["c", "z"],
    ]
    assert (both.peaks, both.latency) == ({"a": {9: 1}, "b": {1: 1}}, {5: 1})


def test_a_spread_has_the_mean_and_variance_of_its_values() -> None:
    values = [1.0, 2.0, 6.0]
    spread = Spread(n=3, sum=sum(values), sumsq=sum(v * v for v in values))
    assert (spread.mean, spread.variance) == (3.0, pytest.approx(7.0))
    assert (Spread().mean, Spread().variance, Spread(n=1, sum=2.0, sumsq=4.0).variance) == (None, 0.0, 0.0)
    assert Spread(n=1, sum=2.0, sumsq=4.0).mean == 2.0
    assert Spread(n=2, sum=2.0, sumsq=2.0 - 1e-12).variance == 0.0, "a rounding error is no variance"
    assert Spread(n=2, sum=1.0, sumsq=1.0).variance == 0.5


# --- what one window changes ---


def test_a_window_changes_the_sums_of_its_device_whole() -> None:
    first = window(
        hardware_class="pi5",
        sessions=1,
        inferences=4,
        errors=1,
        metrics={"watts": Summary(n=2, sum=6.0, sumsq=20.0, most=4.0)},
        latency={10: 3, 20: 1},
        predictions={0: 1, 3: 3, 4: 9},
    )
    state, change = fold_window(None, first, hour=HOUR, metrics=first.metrics, peaks=("watts", "none"), bins=4)
    assert state == DeviceHour(
        hour=HOUR,
        hardware_class="pi5",
        used=True,
        errors=(1, 0.25),
        means={"watts": (1, 3.0)},
        peaks={"watts": key_of(4.0)},
        told=3,
    )
    assert change == HourSums(
        devices=1,
        used=1,
        errors=Spread(n=1, sum=0.25, sumsq=0.0625),
        metrics={"watts": Spread(n=1, sum=3.0, sumsq=9.0)},
        peaks={"watts": {key_of(4.0): 1}},
        latency_units=1,
        latency={10: 7500, 20: 2500},
        prediction_units=1,
        predictions={0: Moments.of(0.25), 3: Moments.of(0.75)},
    )
    second = window(crashed=1, inferences=1, metrics={"watts": Summary.of(5.0)}, latency={30: 1}, predictions={1: 1})
    state, change = fold_window(state, second, hour=HOUR, metrics=second.metrics, peaks=("watts",), bins=4)
    assert state.values() == {"watts": 4.0, "crash": 1.0, "usage": 1.0, "error": 0.125}
    assert (state.hardware_class, state.told) == ("pi5", 3)
    assert change == HourSums(
        crashed=1,
        errors=Spread(n=0, sum=-0.125, sumsq=0.125**2 - 0.25**2),
        metrics={"watts": Spread(n=0, sum=1.0, sumsq=7.0)},
        peaks={"watts": {key_of(4.0): -1, key_of(5.0): 1}},
    )


@pytest.mark.parametrize(
    ("told_of", "used"), [({"sessions": 1}, 1), ({"inferences": 1}, 1), ({"crashed": 1}, 0), ({}, 0)]
)
def test_an_hour_is_used_by_a_session_or_an_inference(told_of: dict[str, int], used: int) -> None:
    _, sums = told(window(**told_of))
    assert (sums.used, sums.devices) == (used, 1)


def test_latency_that_is_nothing_is_told_by_the_next_window() -> None:
    state, sums = told(
        window(latency={5: 0}), window(latency={5: 1}), window(predictions={9: 1}), window(predictions={0: 2})
    )
    assert (sums.latency_units, sums.latency, sums.prediction_units, state.told) == (1, {5: 10_000}, 1, 3)
    _, rare = told(window(latency={5: 1, 6: 10**6}))
    assert rare.latency == {6: 10_000}, "a part below one in 20,000 is none"


def test_new_metrics_beyond_the_limit_are_left_out_and_known_ones_still_count() -> None:
    many = {f"m{n}": Summary.of(1.0) for n in range(limits.HEALTH_METRICS + 1)}
    state, sums = told(window(metrics=many), window(metrics={"m0": Summary.of(3.0), "new": Summary.of(1.0)}))
    assert len(state.means) == len(sums.metrics) == limits.HEALTH_METRICS
    assert sums.metrics["m0"].sum == 2.0
    assert "new" not in sums.metrics


def test_an_hour_is_paired_with_all_earlier_ones_of_its_day_in_every_measure() -> None:
    windows = [
        window(sessions=int(used), crashed=crashed, inferences=4, errors=errors, metrics={"watts": Summary.of(watts)})
        for used, crashed, errors, watts in ((1, 1, 1, 2.0), (1, 0, 2, 3.0), (0, 1, 0, 7.0), (1, 0, 0, 1.0))
    ]
    state, sums = told(*windows, hours=[HOUR, HOUR + 1, HOUR + 4, HOUR + 5])
    assert sums.pairs == {
        "crash": Pairs.of(0.0, before=1, total=1.0).plus(Pairs.of(1.0, before=2, total=1.0)),
        "usage": Pairs.of(1.0, before=1, total=1.0).plus(Pairs.of(1.0, before=2, total=2.0)),
        "error": Pairs.of(0.5, before=1, total=0.25).plus(Pairs.of(0.0, before=2, total=0.75)),
        "watts": Pairs.of(3.0, before=1, total=2.0).plus(Pairs.of(7.0, before=2, total=5.0)),
    }
    assert state.earlier == {"crash": (3, 2.0), "usage": (3, 3.0), "error": (3, 0.75), "watts": (3, 12.0)}
    late, none = told(*windows[:2], hours=[HOUR + 5, HOUR])
    assert (late.earlier, none.pairs, none.devices) == ({}, {}, 2), "an hour that is told late is no later one"


def test_a_metric_that_is_called_as_a_measure_leaves_its_place_to_it() -> None:
    state, _ = told(window(crashed=1, metrics={"crash": Summary.of(0.5), "usage": Summary.of(0.5)}))
    assert state.values() == {"crash": 1.0, "usage": 0.0}
