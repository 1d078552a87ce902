"""All reports of a device in one tally window are one report."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.values import T0, window
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.panel import Value
from whimbrel.health.report import Summary, Window
from whimbrel.health.tally import Cell, add, cell_of, less, settled
from whimbrel.model.documents import encode, parse

OPEN = DeviceWindow(window=7, role="treated")
TESTED = ("accuracy",)
PAST = {name: Value(n=3, total=1.5) for name in ("crash", "error", "usage", "latency", "accuracy")}

windows = st.builds(
    lambda sessions, crashed, errors, more, metrics, predictions, key: Window(
        model="wake",
        serial=2,
        first=1,
        last=1,
        sessions=sessions,
        crashed=crashed,
        inferences=errors + more,
        errors=errors,
        metrics={name: Summary.of(value) for name, value in metrics.items()},
        predictions=predictions,
        latency={key: sessions} if sessions else {},
    ),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 5),
    st.integers(0, 5),
    st.dictionaries(st.sampled_from(["accuracy", "watts"]), st.floats(0, 1)),
    st.dictionaries(st.integers(0, 3), st.integers(0, 4), max_size=4),
    st.integers(-10, 10),
)


def told(*reports: Window, chance: int = 0) -> DeviceWindow:
    after = OPEN
    for number, report in enumerate(reports):
        after = after.plus(report, chance=chance + number)
    return after


def summed(reports: list[Window]) -> Cell:
    """The cell that the reports leave, each adding what it changed."""
    before, total = None, None
    for number, report in enumerate(reports):
        after = (before or OPEN).plus(report, chance=number)
        cell = cell_of(after, stage=0, tested=TESTED, past=PAST)
        if before is not None:
            cell = less(cell, cell_of(before, stage=0, tested=TESTED, past=PAST))
        total = cell if total is None else settled(add(total, cell))
        before = parse(DeviceWindow, encode(after), what="a device-window")
    assert total is not None
    return total


@given(st.lists(windows, min_size=1, max_size=5))
def test_what_reports_change_one_after_the_other_is_what_they_tell_together(reports: list[Window]) -> None:
    step_by_step, together = summed(reports), cell_of(told(*reports), stage=0, tested=TESTED, past=PAST)
    counts = "at_risk", "sessions", "unused", "crashed", "error_units", "prediction_units", "latency"
    assert [getattr(step_by_step, name) for name in counts] == [getattr(together, name) for name in counts]
    for name in ("error_share", "error_squares"):
        assert getattr(step_by_step, name) == pytest.approx(getattr(together, name), abs=1e-12)
    for sums in ("metrics", "pairs", "predictions"):
        ours, theirs = getattr(step_by_step, sums), getattr(together, sums)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            for field in value.__struct_fields__:
                assert getattr(value, field) == pytest.approx(getattr(theirs[key], field), abs=1e-12)
    assert parse(Cell, encode(step_by_step), what="a cell") == step_by_step


@given(st.lists(windows, min_size=1, max_size=5))
def test_a_device_adds_at_most_one_to_every_sum_that_is_tested(reports: list[Window]) -> None:
    cell = summed(reports)
    assert cell.at_risk == 1
    assert max(cell.crashed, cell.unused, cell.error_units, cell.prediction_units, sum(cell.latency.values())) <= 1
    assert all(moments.n == 1 for moments in cell.metrics.values())
    assert {"usage"} <= cell.pairs.keys()
    assert all(pairs.pairs == 3 for pairs in cell.pairs.values())
    assert cell.error_share <= 1 + 1e-12


def test_every_session_has_the_same_chance_to_stand_for_the_window() -> None:
    """Whether it came in the first report or in the last: 1, 2 and 7 of ten sessions."""
    parts = [window(latency={10: 1}), window(latency={20: 2}), window(latency={30: 7})]
    drawn = Counter(_drawn(parts, seed) for seed in range(3000))
    assert {key: round(count / 3000, 1) for key, count in drawn.items()} == {10: 0.1, 20: 0.2, 30: 0.7}


def _drawn(parts: list[Window], seed: int) -> int | None:
    after = OPEN
    for number, part in enumerate(parts):
        after = after.plus(part, chance=hash((T0, seed, number)) % 2**64)
    return after.latency


def test_a_window_says_of_its_device_what_pairs_are_kept_of() -> None:
    full = told(window(sessions=2, crashed=1, inferences=4, errors=1, latency={9: 1}, metrics={"f1": Summary.of(0.5)}))
    assert full.values(("f1",)) == {"crash": 1, "usage": 1, "error": 0.25, "latency": 9, "f1": 0.5}
    assert told(window(sessions=0, inferences=0)).values(("f1",)) == {"usage": 0}


def test_a_crash_is_told_by_windows_in_use_and_what_crashed_was_used() -> None:
    """Else habits of use would look like crashes of the same devices."""
    assert "crash" not in told(window(sessions=0, inferences=0)).values(())
    crashed = told(window(sessions=0, inferences=0, crashed=1))
    assert crashed.values(()) == {"crash": 1, "usage": 1}
    assert (cell_of(crashed, stage=0).unused, cell_of(crashed, stage=0).crashed) == (0, 1)


def test_a_metric_with_the_name_of_a_value_has_no_pairs_and_the_value_has_none() -> None:
    """Pairs of another thing than what is tested would be worse than none."""
    named = told(window(metrics={"latency": Summary.of(0.5)}, latency={9: 1}))
    assert "latency" not in named.values(("latency",))
    assert named.values(())["latency"] == 9


def test_changes_of_cells_of_different_keys_are_none() -> None:
    with pytest.raises(ValueError, match="different keys cannot be compared"):
        less(cell_of(OPEN, stage=0), cell_of(OPEN, stage=1))


def test_places_that_were_kept_before_device_windows_are_read() -> None:
    assert parse(dict[str, Value], b'{"accuracy":{"n":3,"total":2.5}}', what="values") == {
        "accuracy": Value(n=3, total=2.5)
    }
    old = b'{"role":"control","stage":0,"window":1,"at_risk":3,"latency":{"150":40},"error_share":0.5,"error_units":3}'
    assert parse(Cell, old, what="a cell").error_squares == 0.0
