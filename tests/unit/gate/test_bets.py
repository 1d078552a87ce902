"""Bets on the mean of values in [0, 1]."""

import math
import random

import pytest

from whimbrel.gate.bets import over_log_e, under_log_e
from whimbrel.gate.evidence import one_sample_log_e, one_sample_reverse_log_e
from whimbrel.health.sketch import key_of

YES = 1  # the bucket that begins at 1


@pytest.mark.parametrize(("events", "trials", "limit"), [(0, 10, 0.02), (3, 10, 0.02), (10, 10, 0.02), (7, 9, 0.5)])
def test_for_values_that_are_0_or_1_it_is_the_binomial_likelihood_ratio(events: int, trials: int, limit: float) -> None:
    buckets = {YES: events} if events else {}
    assert over_log_e(buckets, count=trials, limit=limit) == pytest.approx(
        one_sample_log_e(events=events, trials=trials, limit=limit)
    )
    assert under_log_e(buckets, count=trials, limit=limit) == pytest.approx(
        one_sample_reverse_log_e(events=events, trials=trials, limit=limit)
    )


def test_values_that_vary_little_are_told_from_a_limit_with_few_of_them() -> None:
    each = {key_of(0.05): 40}
    assert over_log_e(each, count=40, limit=0.02) > 5
    assert one_sample_log_e(events=2, trials=40, limit=0.02) < 1
    assert under_log_e(each, count=40, limit=0.2) > 5


def test_nothing_told_is_no_evidence() -> None:
    assert over_log_e({}, count=0, limit=0.1) == under_log_e({}, count=0, limit=0.1) == pytest.approx(0.0)


@pytest.mark.parametrize("values", [(0.0, 0.1), (0.0, 1.0), (0.02, 0.02), (0.0, 0.04)])
def test_a_mean_at_the_limit_is_refuted_no_more_often_than_alpha_however_often_one_looks(
    values: tuple[float, float],
) -> None:
    """Seed 5; 200 runs of 100 values with mean 0.02, looked at after every fifth: at 5% some 10 may go wrong."""
    chance, low, high = random.Random(5), *values
    share = 0.0 if high == low else (0.02 - low) / (high - low)
    wrong = {"over": 0, "under": 0}
    for _ in range(200):
        buckets: dict[int, int] = {}
        found = set()
        for count in range(1, 101):
            value = high if chance.random() < share else low
            if value:
                buckets[key_of(value)] = buckets.get(key_of(value), 0) + 1
            if count % 5:
                continue
            if over_log_e(buckets, count=count, limit=0.02) >= math.log(20):
                found.add("over")
            if under_log_e(buckets, count=count, limit=0.02) >= math.log(20):
                found.add("under")
        for name in found:
            wrong[name] += 1
    assert max(wrong.values()) <= 10
