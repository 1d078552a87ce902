"""What is kept between two windows is what would be worked out anew: quantiles of an arm, digits of the crash ratio."""

import random

import pytest

from whimbrel.gate.evidence import RateWindow, ratio_bounds
from whimbrel.gate.totals import Totals
from whimbrel.health.sketch import quantile_key
from whimbrel.health.tally import Cell


def test_quantiles_are_those_of_all_sessions_so_far() -> None:
    chance, totals = random.Random(5), Totals()
    assert totals.quantile(0.5) is None
    for window in range(40):
        keys = [chance.randrange(100, 140) for _ in range(chance.randrange(4))]
        latency = {key: chance.randrange(3) for key in keys}  # a bucket may hold nothing
        totals.add(Cell(stage=0, window=window, role="control", latency=latency))
        assert totals.timed == sum(totals.latency.values())
        for p in (0.01, 0.5, 0.95, 0.99, 1.0):
            assert totals.quantile(p) == quantile_key(totals.latency, p)


@pytest.mark.parametrize("digits", [0, 2, 4, 6])
def test_a_bound_that_stops_early_is_the_rounded_one(digits: int) -> None:
    chance = random.Random(digits)
    for _ in range(20):
        windows = [
            RateWindow(chance.randrange(3), 50 + chance.randrange(50), chance.randrange(9), 400 + chance.randrange(99))
            for _ in range(chance.randrange(1, 30))
        ]
        low, high = ratio_bounds(windows, alpha=0.1, digits=15)
        assert ratio_bounds(windows, alpha=0.1, digits=digits) == (round(low, digits), round(high, digits))
    assert ratio_bounds([], alpha=0.1, digits=digits) == (0.0, float("inf"))
