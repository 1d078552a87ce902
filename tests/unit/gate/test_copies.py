"""What a test of rates is worth with its copies that begin anew each hour, by hand, and what a copy tells."""

import math

import pytest

from whimbrel.gate.design_effect import Alikeness
from whimbrel.gate.restarted_tests import RateTest
from whimbrel.gate.restarts import Restart, Restarts
from whimbrel.health.pairs import Pairs

BETS = ((1.2, 0.04), (1.5, 0.2), (2.0, 0.38), (3.0, 0.22), (4.0, 0.08), (6.0, 0.05), (10.0, 0.03))


def e_value(*windows: tuple[float, float, float, float]) -> float:
    """Of windows of events and exposures, against 1.1."""
    total = 0.0
    for gain, weight in BETS:
        log = 0.0
        for x_t, e_t, x_c, e_c in windows:
            p0, p1 = (r * e_t / (r * e_t + e_c) for r in (1.1, 1.1 * gain))
            log += x_t * math.log(p1 / p0) + x_c * math.log((1 - p1) / (1 - p0))
        total += weight * math.exp(log)
    return total


CALM, BAD = (1.0, 100.0, 10.0, 900.0), (9.0, 100.0, 10.0, 900.0)


def weight(hour: int) -> float:
    return 24 / ((hour + 23) * (hour + 24))


def test_a_test_is_worth_nine_tenths_of_itself_and_a_tenth_of_its_copies() -> None:
    test = RateTest(1.1, Alikeness(), restarts=Restarts())
    test.add(*CALM)
    for hour in (1, 2):
        test.begin(hour)
        test.add(*BAD)
    copies = weight(1) * e_value(BAD, BAD) + weight(2) * e_value(BAD) + 24 / 26
    assert test.log_e() == pytest.approx(math.log(0.9 * e_value(CALM, BAD, BAD) + 0.1 * copies))
    alone = RateTest(1.1)
    alone.add(*CALM)
    alone.begin(1)
    alone.add(*BAD)
    assert alone.log_e() == pytest.approx(math.log(e_value(CALM, BAD)))
    assert alone.leading() is None


def test_windows_in_which_an_arm_was_not_there_are_in_no_figure() -> None:
    test = RateTest(1.1, restarts=Restarts())
    for window in ((5.0, 0.0, 1.0, 9.0), (5.0, 9.0, 1.0, 0.0), (0.0, 50.0, 0.0, 450.0), CALM):
        test.add(*window)
    assert test.totals == [1.0, 150.0, 10.0, 1350.0]


def test_the_copy_that_carries_most_tells_the_rates_of_its_hours() -> None:
    test = RateTest(1.1, restarts=Restarts())
    for _ in range(40):
        test.add(*CALM)
    assert test.leading() is None
    test.begin(7)
    for _ in range(3):
        test.add(*BAD)
    leading = test.leading()
    assert leading is not None
    assert (leading.hour, leading.treated, leading.control) == (7, 0.09, round(10 / 900, 9))
    recent = test.recent(3, hour=10)
    assert (recent.hours, recent.exposure_t, recent.exposure_c, recent.events_c) == (3, 300.0, 2700.0, 30.0)
    assert recent.weight == pytest.approx(0.1 * 7 / 31)
    whole = test.recent(4, hour=10)
    assert (whole.hours, whole.weight, whole.exposure_t, whole.events_c) == (None, 0.9, 4300.0, 430.0)


def test_a_copy_of_which_nothing_was_told_yet_has_no_figures() -> None:
    test = RateTest(1.1, restarts=Restarts())
    test.add(10.0, 10_000.0, 1000.0, 90_000.0)
    test.begin(7)
    leading = test.leading()
    assert leading is not None
    assert (leading.hour, leading.treated, leading.control) == (7, None, None)


def test_the_newest_copy_that_is_old_enough_is_taken() -> None:
    restarts = Restarts()
    for hour in (1, 2, 3):
        restarts.begin(hour, (0.0,), lambda _: 0.0)
    assert [getattr(restarts.at_least(hours, hour=5), "hour", None) for hours in (1, 2, 3, 4, 5)] == [3, 3, 2, 1, None]
    restarts.begin(3, (9.0,), lambda _: 0.0)
    assert restarts.live[-1] == Restart(3, pytest.approx(weight(3)), (0.0,))


def test_a_copy_leads_where_it_carries_more_than_the_test_that_stands() -> None:
    restarts = Restarts()
    restarts.begin(1, (2.0,), lambda sums: sums[0])
    edge = 3.0 + math.log(0.1 * weight(1) / 0.9)
    for standing, leads in ((edge - 1e-9, True), (edge + 1e-9, False)):
        assert (restarts.leading(standing, (5.0,), lambda sums: sums[0]) is not None) == leads


def test_what_devices_have_in_common_divides_each_bets_logarithm() -> None:
    alike = Alikeness()
    alike.treated.add(100, 9, 9, Pairs(100, 100, 9.0, 9.0, 9.0))
    alike.control.add(900, 10, 10)
    test = RateTest(1.1, alike)
    test.add(*BAD)
    phi = alike.divisor(100, 900)
    assert phi > 1.5
    logs = []
    for gain, part in BETS:
        p0, p1 = (r * 100 / (r * 100 + 900) for r in (1.1, 1.1 * gain))
        logs.append((part, (9 * math.log(p1 / p0) + 10 * math.log((1 - p1) / (1 - p0))) / phi))
    assert test.log_e() == pytest.approx(math.log(sum(part * math.exp(log) for part, log in logs)))
    assert test.recent(3, hour=0).exposure_t == pytest.approx(100 / phi)
