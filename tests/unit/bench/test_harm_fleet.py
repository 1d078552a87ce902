"""The device-level generator of bench/harm.py says what it means to: a mistake here would look like a good gate."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from harm_fleet import Fleet, Harm, cells_of_fleet, draw_fleet, looks, treated_of
from harm_rows import median_interval, share_interval
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.tally import Cell

EVERYTHING = Fleet(
    devices=60,
    treated=0.5,
    windows=12,
    classes=2,
    crash=0.2,
    crash_shape=0.5,
    sessions=1.0,
    usage_sd=0.5,
    errors=0.1,
    timed=True,
    speed_sd=0.5,
    accuracy=0.8,
    accuracy_sd=0.1,
    battery_sd=0.3,
    online=0.8,
)


def drawn(fleet: Fleet, harm: Harm, *, seed: int = 3):
    return draw_fleet(fleet, harm, np.random.default_rng(seed))


def summed(cells: list[Cell], role: str, name: str) -> float:
    return sum(getattr(cell, name) for cell in cells if cell.role == role)


def test_pairs_are_those_that_a_server_adds_up_device_by_device() -> None:
    cells = list(cells_of_fleet(EVERYTHING, Harm(crash=2, onset=4), seed=3))
    told = drawn(EVERYTHING, Harm(crash=2, onset=4))
    used = told.sessions > 0
    measures = {
        "crash": (told.heard, told.crashed),
        "usage": (told.heard, used),
        "error": (used, told.error_share),
        **told.metrics,
    }
    expected: dict[tuple[int, str, str, str], Pairs] = {}
    for name, (mask, values) in measures.items():
        for device in range(EVERYTHING.devices):
            role = "treated" if device < treated_of(EVERYTHING) else "control"
            before, total = 0, 0.0
            for window in range(EVERYTHING.windows):
                if mask[device, window]:
                    value = float(values[device, window])
                    if before:
                        key = window, role, f"class-{device % 2:02d}", name
                        more = Pairs.of(value, before=before, total=total)
                        expected[key] = expected.get(key, NO_PAIRS).plus(more)
                    before, total = before + 1, total + value
    given = {(c.window, c.role, c.hardware_class, name): p for c in cells for name, p in c.pairs.items()}
    assert {key for key in given if key[3] != "latency"} == set(expected)
    for key, pairs in expected.items():
        assert msgspec.structs.astuple(given[key]) == pytest.approx(msgspec.structs.astuple(pairs)), key


def test_pairs_find_the_variance_between_devices() -> None:
    """Own rates of a gamma shape k have the variance p^2 / k, and that is what two windows of a device share."""
    fleet = Fleet(devices=20_000, treated=0.5, windows=12, crash=0.05, crash_shape=0.5)
    product = freedom = 0.0
    for cell in cells_of_fleet(fleet, Harm(), seed=5):
        if pairs := cell.pairs.get("crash"):
            product, freedom = product + pairs.product, freedom + pairs.freedom
    assert product / freedom == pytest.approx(0.05**2 / 0.5, rel=0.1)


def test_devices_that_are_alike_share_nothing() -> None:
    product = freedom = 0.0
    for cell in cells_of_fleet(Fleet(devices=20_000, windows=12, crash=0.05), Harm(), seed=5):
        if pairs := cell.pairs.get("crash"):
            product, freedom = product + pairs.product, freedom + pairs.freedom
    assert abs(product / freedom) < 0.05**2 / 20


def test_a_device_is_one_unit_of_latency_a_window_and_all_its_sessions_where_pooled() -> None:
    kept = list(cells_of_fleet(EVERYTHING, Harm(), seed=3))
    pooled = list(cells_of_fleet(EVERYTHING, Harm(), seed=3, pooled=True))
    for cell in kept:
        assert sum(cell.latency.values()) == cell.at_risk - cell.unused
    for cell in pooled:
        assert sum(cell.latency.values()) == cell.sessions
        assert not cell.pairs.keys() & {"crash", "usage", "error", "latency"}


def test_the_kept_session_is_any_of_them() -> None:
    """A device's first session, or its slowest, would be another quantile."""
    fleet = Fleet(devices=2000, windows=12, sessions=4.0, timed=True)

    def median(*, pooled: bool) -> float:
        counts: Counter[int] = Counter()
        for cell in cells_of_fleet(fleet, Harm(), seed=3, pooled=pooled):
            counts.update(cell.latency)
        return float(np.median(list(counts.elements())))

    assert median(pooled=False) == pytest.approx(median(pooled=True), abs=1)


def test_levels_are_what_was_asked_for() -> None:
    fleet = msgspec.structs.replace(EVERYTHING, devices=4000, windows=24)
    cells = list(cells_of_fleet(fleet, Harm(), seed=9))
    at_risk, used = summed(cells, "control", "at_risk"), summed(cells, "control", "error_units")
    assert at_risk / (2000 * 24) == pytest.approx(0.8, abs=0.01)
    assert summed(cells, "control", "sessions") / at_risk == pytest.approx(1.0, rel=0.05)
    assert summed(cells, "control", "crashed") / used == pytest.approx(0.2, rel=0.15)
    assert summed(cells, "control", "error_share") / used == pytest.approx(0.1, rel=0.05)
    for name, level in (("accuracy", 0.8), ("battery", 5.0 * np.exp(0.3**2 / 2))):
        moments = [cell.metrics[name] for cell in cells if name in cell.metrics]
        assert sum(m.sum for m in moments) / sum(m.n for m in moments) == pytest.approx(level, rel=0.03), name


@pytest.mark.parametrize(
    ("harm", "name", "ratio"),
    [
        (Harm(crash=2, onset=12), "crashed", 2.0),
        (Harm(usage=0.1, onset=12), "sessions", 0.1),
        (Harm(dies=0.5, onset=12), "at_risk", 0.5),
    ],
)
def test_harm_begins_at_its_onset_and_has_its_size(harm: Harm, name: str, ratio: float) -> None:
    fleet = Fleet(devices=8000, treated=0.5, windows=24, crash=0.05, sessions=1.0)
    cells = list(cells_of_fleet(fleet, harm, seed=1))
    early = [cell for cell in cells if cell.window < 12]
    late = [cell for cell in cells if cell.window >= 12]
    assert summed(early, "treated", name) == pytest.approx(summed(early, "control", name), rel=0.05)
    assert summed(late, "treated", name) == pytest.approx(ratio * summed(late, "control", name), rel=0.08)


def test_labels_of_the_well_hide_wrong_answers() -> None:
    fleet = Fleet(devices=4000, treated=0.5, windows=6, sessions=1.0, accuracy=0.84)
    cells = list(cells_of_fleet(fleet, Harm(accuracy=0.24, labels=(1.0, 0.0)), seed=1))
    treated = [cell.metrics["accuracy"] for cell in cells if cell.role == "treated"]
    control = [cell.metrics["accuracy"] for cell in cells if cell.role == "control"]
    assert sum(m.sum for m in treated) == sum(m.n for m in treated)
    assert sum(m.sum for m in control) / sum(m.n for m in control) == pytest.approx(0.84, abs=0.02)
    assert sum(m.n for m in treated) < 0.85 * sum(m.n for m in control)


def test_a_device_is_missed_once_and_by_its_own_habit() -> None:
    heard = np.zeros((4, 40), dtype=bool)
    heard[0] = True
    heard[1, :5] = True  # falls silent in window 5, and speaks once again
    heard[1, 20] = True
    heard[2, ::6] = True  # every half an hour
    due, overdue, missed = looks(heard, again=True)
    assert due[0].sum() == 40 - 3
    assert not overdue[0].any()
    assert list(np.flatnonzero(overdue[1])) == [7]  # three reports late; from then on sixteen windows are its habit
    assert list(np.flatnonzero(due[1])) == [3, 4, 5, 6, 7, *range(20, 40)]
    assert list(np.flatnonzero(missed[1])) == list(range(7, 20))
    assert list(np.flatnonzero(overdue[2])) == [4]  # missed once, before its habit is known
    assert list(np.flatnonzero(overdue[3])) == [3]  # never speaks: looked at once
    assert due[3].sum() == 1
    once, silent, _ = looks(heard, again=False)
    assert once.sum() == 4
    assert silent.sum() == 1


def test_intervals_of_shares_and_medians() -> None:
    """Against published tables: Clopper and Pearson, and the order statistics around the median of ten."""
    assert share_interval(0, 100) == pytest.approx((0, 0.0362), abs=1e-4)
    assert share_interval(5, 100) == pytest.approx((0.0164, 0.1128), abs=1e-4)
    assert share_interval(10, 10) == pytest.approx((0.6915, 1), abs=1e-4)
    assert median_interval(range(1, 11)) == (5.5, 2, 9)
    assert median_interval([1.0]) == (1.0, 1.0, 1.0)
