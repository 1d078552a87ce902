"""Published figures for the statistics. A change here is a change of what a verdict means."""

import math

import pytest

from whimbrel.health.evidence import (
    MeanWindow,
    RateWindow,
    log_mean_exp,
    mean_log_e,
    mean_statistic,
    one_sample_log_e,
    one_sided_log_mixture,
    one_sided_rho,
    rate_events_needed,
    rate_log_e,
)
from whimbrel.health.sketch import GAMMA, count_above, key_of
from whimbrel.health.tally import Cell, add

ALPHA = 0.01
ONE = RateWindow(30, 1000, 150, 15000)
THREE = [RateWindow(2, 100, 41, 4000), RateWindow(5, 250, 37, 3900), RateWindow(9, 400, 44, 3800)]


@pytest.mark.parametrize(("ratio", "log_e"), [(1, 10.212079), (1.1, 8.391360), (2, 0.564244)])
def test_rate_of_one_window(ratio: float, log_e: float) -> None:
    assert rate_log_e([ONE], ratio=ratio) == pytest.approx(log_e, abs=2e-6)


def test_lower_bound_of_the_rate_ratio() -> None:
    low, high = 1.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rate_log_e([ONE], ratio=middle) >= math.log(1 / ALPHA) else (low, middle)
    assert low == pytest.approx(1.390540, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "log_e"), [(1, (-0.133124, 0.514172, 1.573504)), (1.1, (-0.258487, 0.198311, 0.959787))]
)
def test_rate_after_each_of_three_windows(ratio: float, log_e: tuple[float, ...]) -> None:
    seen = [rate_log_e(THREE[:count], ratio=ratio) for count in (1, 2, 3)]
    assert seen == pytest.approx(log_e, abs=1e-6)


def test_one_alternative_by_hand() -> None:
    p0, p1 = 600 / 8400, 1200 / 9000
    assert 12 * math.log(p1 / p0) + 78 * math.log((1 - p1) / (1 - p0)) == pytest.approx(2.108408, abs=1e-6)


@pytest.mark.parametrize(("p_t", "p_c", "ratio", "mean"), [(0.01, 0.01, 1, 0.98790), (0.011, 0.01, 1.1, 0.98666)])
def test_the_exact_expectation_under_the_null_is_at_most_one(p_t: float, p_c: float, ratio: float, mean: float) -> None:
    def chance(k: int, n: int, p: float) -> float:
        return math.comb(n, k) * p**k * (1 - p) ** (n - k)

    total = sum(
        chance(x, 50, p_t) * chance(y, 400, p_c) * math.exp(rate_log_e([RateWindow(x, 50, y, 400)], ratio=ratio))
        for x in range(16)
        for y in range(41)
    )
    assert total == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(("ratio", "needed"), [(1.5, 64), (2, 18), (3, 5.4)])
def test_events_needed_at_a_twentieth(ratio: float, needed: float) -> None:
    assert rate_events_needed(ratio=ratio, share=0.05, alpha=ALPHA) == pytest.approx(needed, rel=0.02)


def test_events_needed_with_a_holdback_of_a_tenth() -> None:
    assert rate_events_needed(ratio=2, share=9, alpha=ALPHA) == pytest.approx(210, rel=0.02)


def test_a_window_without_one_arm_proves_nothing() -> None:
    assert rate_log_e([RateWindow(50, 100, 0, 0), RateWindow(0, 0, 50, 100)]) == pytest.approx(0, abs=1e-12)


def test_one_sample_is_the_mixture_of_the_seven_bets() -> None:
    bets = [min(g * 0.02, 0.99) for g in (1.2, 1.5, 2, 3, 4, 6, 10)]
    by_hand = sum((p / 0.02) ** 9 * ((1 - p) / 0.98) ** 91 for p in bets) / 7
    assert one_sample_log_e(events=9, trials=100, limit=0.02) == pytest.approx(math.log(by_hand), abs=1e-9)


def test_one_sample_expectation_at_the_limit_is_one() -> None:
    mean = sum(
        math.comb(60, k) * 0.02**k * 0.98 ** (60 - k) * math.exp(one_sample_log_e(events=k, trials=60, limit=0.02))
        for k in range(61)
    )
    assert mean == pytest.approx(1, abs=1e-9)


# --- means ---


def two_sided_rho(v_opt: float, alpha: float) -> float:
    log = math.log(1 / alpha)
    return v_opt / (2 * log + math.log(1 + 2 * log))


def two_sided_log_mixture(s: float, v: float, rho: float) -> float:
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))


def one_sided_bound(v: float, v_opt: float, alpha: float) -> float:
    rho, low, high = one_sided_rho(v_opt=v_opt, alpha=alpha), 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        proven = one_sided_log_mixture(middle, v, rho) >= math.log(1 / alpha)
        low, high = (low, middle) if proven else (middle, high)
    return low


def test_two_sided_rho_of_confseq() -> None:
    assert two_sided_rho(100, 0.05) == pytest.approx(12.60056, abs=1e-5)
    assert one_sided_rho(v_opt=100, alpha=0.025) == pytest.approx(12.60056, abs=1e-5)  # one-sided halves alpha


def test_log_mixtures_of_confseq() -> None:
    assert two_sided_log_mixture(10, 100, two_sided_rho(100, 0.05)) == pytest.approx(-0.6510052, abs=1e-6)
    assert one_sided_log_mixture(10, 100, one_sided_rho(v_opt=100, alpha=0.05)) == pytest.approx(-0.06502391, abs=1e-6)


def test_one_sided_bounds_of_confseq() -> None:
    assert one_sided_bound(100, 100, 0.05) == pytest.approx(27.66071, abs=1e-5)
    assert one_sided_bound(400, 400, ALPHA) == pytest.approx(67.0690923, abs=1e-6)
    rho = one_sided_rho(v_opt=400, alpha=ALPHA)
    assert mean_log_e(precision=400, total=60, rho=rho) == pytest.approx(3.5829783, abs=1e-6)


T, C = (400.0, 320.0, 262.0), (4000.0, 3360.0, 2850.0)
RHO = 2499.6184


def _variance(n: float, total: float, squares: float) -> float:
    return (squares - total * total / n) / (n - 1)


def _v_and_s(tolerance: float) -> tuple[float, float]:
    v = 1 / (_variance(*T) / T[0] + _variance(*C) / C[0])
    return v, v * (C[1] / C[0] - T[1] / T[0] - tolerance)


def test_a_drop_of_accuracy() -> None:
    v, s = _v_and_s(0)
    assert (v, s) == pytest.approx((25432.7275, 1017.3091), abs=1e-3)
    assert mean_log_e(precision=v, total=s, rho=RHO) == pytest.approx(18.011760, abs=1e-5)
    v, s = _v_and_s(0.01)
    assert mean_log_e(precision=v, total=s, rho=RHO) == pytest.approx(9.906879, abs=1e-5)


def test_the_window_statistic_takes_its_variances_from_earlier_windows_alone() -> None:
    alike = MeanWindow(*T, *C)
    assert mean_statistic([[alike]], tolerance=0) == (0, 0)
    v, s = mean_statistic([[alike], [alike]], tolerance=0)
    assert (v, s) == pytest.approx((25432.7275, 1017.3091), abs=1e-3)


def test_lower_bound_of_the_drop() -> None:
    low, high = 0.0, 0.04
    for _ in range(60):
        middle = (low + high) / 2
        v, s = _v_and_s(middle)
        proven = mean_log_e(precision=v, total=s, rho=RHO) >= math.log(1 / ALPHA)
        low, high = (middle, high) if proven else (low, middle)
    assert low == pytest.approx(0.018972, abs=1e-6)


# --- several at once, and the sketch ---


def test_a_weighted_average_is_not_yet_a_proof() -> None:
    log_e = log_mean_exp((1.573504, 5.2, 0.3, -1.1), (0.4, 0.3, 0.2, 0.1))
    assert log_e == pytest.approx(4.036262, abs=1e-6)
    assert log_e < math.log(1 / ALPHA)


def test_the_edge_of_bucket_254() -> None:
    assert pytest.approx(160.80128, abs=1e-5) == GAMMA**254
    assert (key_of(160.8), key_of(160.81)) == (254, 255)


def test_twenty_merged_sketches_count_as_exactly_as_their_values() -> None:
    edge = GAMMA**254
    values = [edge * math.exp(math.sin(index) * 2) for index in range(4000)]
    merged = Cell(stage=0, window=0, role="treated")
    for start in range(0, 4000, 200):
        buckets: dict[int, int] = {}
        for value in values[start : start + 200]:
            buckets[key_of(value)] = buckets.get(key_of(value), 0) + 1
        merged = add(merged, Cell(stage=0, window=0, role="treated", latency=buckets))
    assert count_above(merged.latency, edge * 0.9999) == sum(value > edge for value in values)
