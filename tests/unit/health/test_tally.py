"""The sums of a tally: what one device's window adds, and that sums are added, taken off and kept whole."""

import msgspec
import pytest

from support.values import seen, window
from whimbrel import limits
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.panel import Panel, Value
from whimbrel.health.report import Summary
from whimbrel.health.shadow import ShadowSums, Units, change, fits, merged
from whimbrel.health.sketch import count_above, count_over, key_at, key_of, quantile_key, steps_of
from whimbrel.health.tally import Cell, Moments, add, age_bucket, cell_of, less, settled

WHERE = {"stage": 3, "window": 7, "role": "treated", "hardware_class": "pi5", "slices": {"os": "b"}, "age_bucket": 2}
FULL = Cell(
    **WHERE,
    at_risk=9,
    sessions=8,
    unused=1,
    crashed=2,
    error_units=5,
    error_share=1.5,
    error_squares=0.75,
    metrics={"accuracy": Moments(n=3, sum=2.0, sumsq=1.5)},
    pairs={"crash": Pairs(4, 6, 1.0, 2.0, 3.0)},
    latency={100: 3, 120: 1},
    due=6,
    overdue=2,
    due_again=4,
    overdue_again=1,
    panels={"fps": Panel(n=1, y=2.0, yy=4.0)},
    shadow=Units.of(seen(10, agreed=9)),
    prediction_units=2,
    predictions={0: Moments(n=2, sum=1.0, sumsq=0.5)},
    user_reports=1,
    version_reports=2,
)


def test_two_cells_of_one_key_add_up_in_every_sum() -> None:
    both = add(FULL, FULL)
    for name in Cell.__struct_fields__:
        value, twice = getattr(FULL, name), getattr(both, name)
        if name in WHERE:
            assert twice == value
        elif isinstance(value, dict):
            assert twice == {k: 2 * v if isinstance(v, int) else v.plus(v) for k, v in value.items()}, name
        else:
            assert twice == (value.plus(value) if isinstance(value, Units) else 2 * value), name


def test_what_only_one_of_two_cells_has_is_kept_from_either_side() -> None:
    bare = Cell(**WHERE)
    assert add(FULL, bare) == add(bare, FULL) == FULL
    both = add(
        Cell(**WHERE, predictions={3: Moments.of(1.0)}, latency={5: 1}),
        Cell(**WHERE, predictions={1: Moments.of(0.5)}, latency={4: 2}),
    )
    assert list(both.predictions) == [1, 3]
    assert both.latency == {5: 1, 4: 2}


@pytest.mark.parametrize(
    "other",
    [{"stage": 2}, {"window": 8}, {"role": "control"}, {"hardware_class": ""}, {"slices": {}}, {"age_bucket": 1}],
)
def test_cells_of_different_keys_are_never_added(other: dict[str, object]) -> None:
    moved = msgspec.structs.replace(FULL, **other)
    with pytest.raises(ValueError, match=r"^cells of different keys cannot be added: "):
        add(FULL, moved)
    assert moved.key != FULL.key


def test_keys_stand_in_the_order_of_windows_first() -> None:
    assert FULL.key == (7, 3, "treated", "pi5", '[["os","b"]]', 2)
    assert Cell(stage=0, window=1, role="control").key == (1, 0, "control", "", "", 0)


def test_what_is_taken_off_is_what_was_added_and_panels_are_changes_already() -> None:
    more = add(FULL, FULL)
    change_only = less(more, FULL)
    assert msgspec.structs.replace(change_only, panels=FULL.panels) == FULL
    assert change_only.panels == more.panels
    nothing = less(FULL, FULL)
    assert (nothing.metrics, nothing.pairs, nothing.latency, nothing.predictions) == ({}, {}, {}, {})
    assert (nothing.at_risk, nothing.error_share, nothing.version_reports) == (0, 0.0, 0)
    fresh = less(FULL, msgspec.structs.replace(FULL, metrics={}, shadow=None))
    assert (fresh.metrics, fresh.shadow) == (FULL.metrics, FULL.shadow)


def test_a_kept_cell_has_no_rounding_error_below_zero_and_no_empty_bucket() -> None:
    rough = msgspec.structs.replace(
        FULL,
        error_share=-1e-17,
        error_squares=-1e-17,
        metrics={"a": Moments(n=1, sum=-0.5, sumsq=-1e-17), "b": Moments(n=1, sum=-0.5, sumsq=0.25)},
        latency={1: 0, 2: 1},
        predictions={0: Moments(n=1, sum=0.1, sumsq=-1e-18)},
        shadow=msgspec.structs.replace(
            FULL.shadow or Units(), agreed=-1e-9, disagreed_share=-1e-9, failed_share=-1e-9, ratios={3: 0, 4: 1}
        ),
    )
    kept = settled(rough)
    assert (kept.error_share, kept.error_squares, kept.latency) == (0.0, 0.0, {2: 1})
    assert kept.metrics == {"a": Moments(n=1, sum=-0.5, sumsq=0.0), "b": Moments(n=1, sum=-0.5, sumsq=0.25)}
    assert kept.predictions[0].sumsq == 0.0
    assert kept.shadow is not None
    assert (kept.shadow.agreed, kept.shadow.disagreed_share, kept.shadow.failed_share) == (0.0, 0.0, 0.0)
    assert (kept.shadow.ratios, kept.shadow.windows) == ({4: 1}, 1)
    assert settled(FULL) == FULL


def test_one_devices_window_is_one_unit_of_every_sum() -> None:
    told = DeviceWindow(window=7, role="control", age_bucket=3, hardware_class="pi5", slices={"os": "b"}).plus(
        window(
            sessions=4,
            crashed=1,
            inferences=8,
            errors=2,
            metrics={"accuracy": Summary(n=2, sum=1.5, sumsq=1.25), "watts": Summary.of(3.0)},
            latency={100: 9},
            predictions={2: 1, 0: 3, 1: 0},
            shadow=seen(10, agreed=9),
        ),
        chance=0,
    )
    past = {"accuracy": Value(n=3, total=1.5), "crash": Value(n=2, total=1.0), "usage": Value(), "watts": Value(n=1)}
    assert cell_of(told, stage=3, tested=("accuracy",), past=past) == Cell(
        **WHERE | {"role": "control", "age_bucket": 3},
        at_risk=1,
        sessions=4,
        crashed=1,
        error_units=1,
        error_share=0.25,
        error_squares=0.0625,
        metrics={"accuracy": Moments.of(0.75), "watts": Moments.of(3.0)},
        pairs={"accuracy": Pairs.of(0.75, before=3, total=1.5), "crash": Pairs.of(1.0, before=2, total=1.0)},
        latency={100: 1},
        shadow=Units.of(seen(10, agreed=9)),
        prediction_units=1,
        predictions={0: Moments.of(0.75), 2: Moments.of(0.25)},
    )
    quiet = cell_of(DeviceWindow(window=7, role="control"), stage=3)
    assert quiet == Cell(stage=3, window=7, role="control", at_risk=1, unused=1)


@pytest.mark.parametrize(
    ("sums", "used"),
    [
        ({"at_risk": 9, "unused": 4, "sessions": 2}, 5),
        ({"at_risk": 9, "sessions": 0}, 9),
        ({"at_risk": 9, "sessions": 4}, 4),
        ({"at_risk": 9, "sessions": 40}, 9),
        ({"at_risk": 9, "sessions": 1, "crashed": 3}, 3),
        ({"at_risk": 9, "sessions": 1, "error_units": 5}, 5),
    ],
)
def test_device_windows_in_use_are_those_not_unused_and_of_old_cells_those_with_a_session(
    sums: dict[str, int], used: int
) -> None:
    assert Cell(stage=0, window=0, role="treated", **sums).used == used


@pytest.mark.parametrize(
    ("hours", "group"), [(0, 0), (0.99, 0), (1, 1), (2.9, 1), (3, 2), (6, 3), (12, 4), (23.9, 4), (24, 5), (1000, 5)]
)
def test_ages_are_grouped_by_the_hours_of_the_plan(hours: float, group: int) -> None:
    assert age_bucket(hours * 3600, hour_s=3600) == age_bucket(hours * 2, hour_s=2) == group


# --- a device-window ---


def test_a_device_window_keeps_the_worst_and_adds_the_rest() -> None:
    first = DeviceWindow(window=1, role="treated").plus(
        window(sessions=2, crashed=1, inferences=4, errors=1, predictions={0: 1}), chance=0
    )
    both = first.plus(window(sessions=3, inferences=6, errors=1, predictions={1: 2, 0: 1}), chance=0)
    assert (both.sessions, both.crashed, both.inferences, both.errors) == (5, 1, 10, 2)
    assert (both.error_share, both.predictions, list(both.predictions)) == (0.2, {0: 2, 1: 2}, [0, 1])
    assert DeviceWindow(window=1, role="treated").error_share == 0.0


def test_a_mean_of_several_reports_is_that_of_all_values_and_new_names_beyond_the_limit_are_left_out() -> None:
    two, more = Summary(n=2, sum=1.0, sumsq=0.5), Summary(n=6, sum=5.0, sumsq=4.5)
    told = DeviceWindow(window=1, role="treated")
    for each in (two, more, Summary(n=0, sum=0.0, sumsq=0.0)):
        told = told.plus(window(metrics={"accuracy": each}), chance=0)
    assert (told.metrics["accuracy"].n, told.metrics["accuracy"].mean) == (8, 0.75)
    assert told.means() == {"error_rate": 0.0, "accuracy": 0.75}
    full = told.plus(window(metrics={f"m{n}": Summary.of(1.0) for n in range(limits.SESSION_METRICS)}), chance=0)
    assert len(full.metrics) == limits.SESSION_METRICS
    assert full.plus(window(metrics={"accuracy": Summary.of(1.0)}), chance=0).metrics["accuracy"].n == 9
    empty = DeviceWindow(window=1, role="treated").plus(
        window(inferences=0, metrics={"accuracy": Summary(n=0, sum=0.0, sumsq=0.0)}), chance=0
    )
    assert (empty.metrics, empty.means()) == ({}, {})


def test_the_session_that_stands_for_a_window_is_drawn_from_all_that_were_timed() -> None:
    first = DeviceWindow(window=1, role="treated").plus(window(latency={10: 2, 20: 1}), chance=2)
    assert (first.latency, first.timed) == (20, 3)
    drawn = [first.plus(window(latency={30: 1, 40: 1}), chance=chance).latency for chance in range(10)]
    assert drawn == [20, 20, 20, 30, 40] * 2
    assert first.plus(window(), chance=7).timed == 3
    assert msgspec.structs.replace(first, timed=2**53).plus(window(latency={5: 9}), chance=0).timed == 2**53


# --- the shadow ---


def test_one_devices_window_in_the_shadow_is_shares_and_one_ratio() -> None:
    told = ShadowSums(
        serial=2,
        inputs=10,
        compared=7,
        agreed=5.6,
        errors=2,
        crashed=1,
        dropped=4,
        skipped=3,
        active_ms=70.0,
        candidate_ms=140.0,
        active={1: 7},
        candidate={2: 7},
    )
    assert Units.of(told) == Units(
        windows=1,
        inputs=10,
        compared=7,
        agreed=5.6,
        errors=2,
        crashed=1,
        dropped=4,
        skipped=3,
        compared_windows=1,
        disagreed_share=pytest.approx(0.2),
        failed_share=0.3,
        crashed_windows=1,
        ratios={key_of(2.0): 1},
        disagreed={key_of(1 - 5.6 / 7): 1},
        failed={key_of(0.3): 1},
        active={1: 7},
        candidate={2: 7},
    )
    none = Units.of(ShadowSums(serial=2, dropped=4, skipped=3, active_ms=1.0))
    assert none == Units(dropped=4, skipped=3)
    failed = Units.of(ShadowSums(serial=2, inputs=2, errors=2, active_ms=1.0))
    assert (failed.failed, failed.ratios, failed.disagreed, failed.compared_windows) == ({key_of(1.0): 1}, {}, {}, 0)
    assert Units.of(seen(3, agreed=3 * (1 - 1e-10))).disagreed == {}, "less than a billionth is a rounding error"
    assert Units.of(seen(3, active_ms=0.0)).ratios == {}
    assert Units.of(seen(1, active_ms=0.5, candidate_ms=1.0)).ratios == {key_of(2.0): 1}


def test_units_add_up_and_come_off_in_every_sum() -> None:
    one = Units.of(seen(10, agreed=9, errors=1, dropped=2, skipped=3, active={1: 2}, candidate={3: 4}))
    both = one.plus(one)
    for name in Units.__struct_fields__:
        value = getattr(one, name)
        twice = {k: 2 * v for k, v in value.items()} if isinstance(value, dict) else 2 * value
        assert getattr(both, name) == twice, name
    assert both.less(one) == one
    assert one.less(one) == Units()


def test_reports_of_one_candidate_add_up_and_others_are_refused() -> None:
    one = seen(10, agreed=9, errors=1, dropped=2, skipped=3, active={1: 2}, candidate={3: 4})
    both = one.plus(one)
    for name in ShadowSums.__struct_fields__:
        value = getattr(one, name)
        twice = {k: 2 * v for k, v in value.items()} if isinstance(value, dict) else 2 * value
        assert getattr(both, name) == (2 if name == "serial" else twice), name
    with pytest.raises(ValueError, match=r"^what was seen of serial 3 says nothing of 2$"):
        one.plus(seen(serial=3))


def test_sums_that_one_report_could_not_say_are_left_out() -> None:
    most = 2**40
    assert fits(seen(0, dropped=most))
    assert fits(seen(0, skipped=most))
    assert fits(seen(0, candidate_ms=1e15))
    assert not fits(seen(0, dropped=most + 1))
    assert not fits(seen(0, skipped=most + 1))
    assert not fits(seen(0, active_ms=1.1e15))
    assert not fits(seen(0, candidate_ms=1.1e15))
    assert not fits(seen(most + 1, active_ms=1.0, candidate_ms=1.0))
    open_ = DeviceWindow(window=1, role="treated")
    full = open_.plus(window(shadow=seen(most, active_ms=1.0, candidate_ms=1.0)), chance=0)
    assert full.plus(window(shadow=seen(1)), chance=0).shadow == full.shadow
    told = open_.plus(window(shadow=seen(1, active={1: 1}, candidate={2: 1})), chance=0)
    assert told.shadow == seen(1), "latencies are told once, by the report"
    twice = told.plus(window(shadow=seen(2)), chance=0).plus(window(), chance=0)
    assert twice.shadow is not None
    assert (twice.shadow.inputs, twice.shadow.agreed) == (3, 3.0)


def test_beyond_so_many_buckets_new_ones_are_left_out_and_old_ones_still_count() -> None:
    assert merged({1: 1, 2: 2}, {2: 3, 3: 4, 4: 5}, keys=3) == {1: 1, 2: 5, 3: 4}
    assert change({1: 1, 2: 5, 3: 2}, {2: 2, 3: 2, 4: 1}) == {1: 1, 2: 3, 4: -1}


# --- pairs, and the sketch ---


def test_pairs_add_up_and_come_off_in_every_sum() -> None:
    one = Pairs.of(0.5, before=3, total=2.0)
    assert one == Pairs(pairs=3, squares=9, now=1.5, then=2.0, both=1.0)
    both = one.plus(one)
    assert both == Pairs(pairs=6, squares=18, now=3.0, then=4.0, both=2.0)
    assert both.less(one) == one
    assert NO_PAIRS.plus(one) == one
    assert Moments.of(0.5).plus(Moments.of(2.0)).less(Moments.of(2.0)) == Moments(n=1, sum=0.5, sumsq=0.25)


def test_the_value_at_a_place_is_found_by_its_order() -> None:
    buckets = {5: 2, -3: 1, 9: 3}
    assert [key_at(buckets, place) for place in range(6)] == [-3, 5, 5, 9, 9, 9]
    with pytest.raises(ValueError, match=r"^there is no value 6 among 6$"):
        key_at(buckets, 6)


def test_the_edges_of_a_sketch() -> None:
    most = limits.SKETCH_KEY
    assert (key_of(0.0), key_of(-1.0), key_of(1e-300), key_of(1e300), key_of(1.0)) == (-most, -most, -most, most, 0)
    assert count_above({most: 3}, float("inf")) == 0
    assert (count_over({1: 1, 2: 2, 3: 4}, 1), count_over({1: 1, 2: 2, 3: 4}, 2)) == (6, 4)
    assert quantile_key({1: 0, 2: 1}, 0.0) == 2
    assert (steps_of(1.0), steps_of(1.0202), steps_of(1.0203)) == (0, 0, 1)
