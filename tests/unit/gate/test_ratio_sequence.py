"""The confidence set of a ratio: it is the gate's own test turned round, and holds the truth at any look."""

import math
import random

import pytest

from whimbrel.gate.evidence import RateWindow, rate_log_e, ratio_bounds
from whimbrel.gate.ratio_sequence import LEAST, MOST, RatioSet, ratio_sequence

ALPHA = 0.05


def drawn(ratio: float, *, windows: int, seed: int) -> list[list[RateWindow]]:
    chance = random.Random(seed)

    def events(n: int, rate: float) -> float:
        return float(sum(chance.random() < rate for _ in range(n)))

    return [[RateWindow(events(50, 0.1 * ratio), 50.0, events(150, 0.1), 150.0)] for _ in range(windows)]


def test_the_set_is_that_of_the_gates_test_rounded_outwards_to_the_grid() -> None:
    windows = drawn(2.0, windows=40, seed=3)
    last = ratio_sequence(windows, alpha=ALPHA)[-1]
    low, high = ratio_bounds([each for strata in windows for each in strata], alpha=ALPHA, digits=6)
    assert low / 1.05 <= last.low <= low
    assert last.high is not None
    assert high <= last.high <= high * 1.05
    assert rate_log_e([each for strata in windows for each in strata], ratio=last.low) >= math.log(1 / ALPHA)


def test_it_narrows_and_tells_the_estimate() -> None:
    sets = ratio_sequence(drawn(1.0, windows=200, seed=1), alpha=ALPHA)
    assert len(sets) == 200
    assert sets[0].low < 0.6 * sets[-1].low
    first, last = sets[0].high or MOST, sets[-1].high
    assert last is not None
    assert last < first
    assert sets[-1].ratio == pytest.approx(1.0, abs=0.15)
    assert sets[-1].low < 1.0 < last


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_truth_is_hardly_ever_outside_at_any_time(ratio: float) -> None:
    missed = 0
    for seed in range(60):
        sets = ratio_sequence(drawn(ratio, windows=25, seed=seed), alpha=ALPHA)
        missed += any(not each.low <= ratio <= (each.high or math.inf) for each in sets)
    assert missed <= 6  # each end is at 5%, over all looks together


def test_nothing_is_said_before_anything_happened() -> None:
    nothing = RatioSet(ratio=None, low=0.0, high=None)
    assert ratio_sequence([[RateWindow(0.0, 10.0, 0.0, 10.0)]], alpha=ALPHA) == [nothing]
    assert ratio_sequence([[RateWindow(5.0, 10.0, 0.0, 0.0)], []], alpha=ALPHA) == [nothing, nothing]
    assert ratio_sequence([], alpha=ALPHA) == []


def test_strata_are_compared_each_with_its_own() -> None:
    """Devices of a bad class that are mostly treated look like harm where all are thrown together."""
    strata = [RateWindow(90.0, 300.0, 30.0, 100.0), RateWindow(1.0, 100.0, 3.0, 300.0)]
    pooled = [RateWindow(91.0, 400.0, 33.0, 400.0)]
    apart, together = (ratio_sequence([each], alpha=ALPHA)[-1] for each in (strata, pooled))
    assert apart.low < 1 < together.low


def test_an_end_beyond_the_grid_is_open() -> None:
    flood = ratio_sequence([[RateWindow(5000.0, 5000.0, 1.0, 1e6)]], alpha=ALPHA)[-1]
    assert (flood.low, flood.high) == (pytest.approx(MOST, rel=0.05), None)
    none = ratio_sequence([[RateWindow(0.0, 1e6, 5000.0, 5000.0)]], alpha=ALPHA)[-1]
    assert none.low == 0.0
    assert none.high is not None
    assert none.high <= LEAST * 1.05
