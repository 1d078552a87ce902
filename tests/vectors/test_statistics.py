"""Published figures for the statistics. A change here is a change of what a verdict means."""

import math

import numpy
import pytest

from whimbrel.gate.evidence import (
    MeanFold,
    MeanWindow,
    RateFold,
    RateWindow,
    asymptotic_half_width,
    e_bh,
    log_mean_exp,
    mean_log_e,
    mean_statistic,
    one_sample_log_e,
    one_sample_reverse_log_e,
    one_sided_log_mixture,
    one_sided_rho,
    rate_log_e,
    ratio_bounds,
    ratio_mismatch_log_bf,
)
from whimbrel.gate.power import rate_events_needed
from whimbrel.health.sketch import GAMMA, count_above, count_over, key_of, keys_of, quantile_key, steps_of
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


def test_the_array_form_puts_values_into_the_same_buckets() -> None:
    values = [0.0, -1.0, 1e-300, 1.0, 160.8, 160.81, 1e300, *(1.3**n for n in range(-40, 40))]
    assert keys_of(numpy.array(values)).tolist() == [key_of(value) for value in values]


def test_a_quantile_is_the_bucket_where_the_share_is_reached() -> None:
    buckets = {5: 50, -3: 40, 9: 10}
    assert [quantile_key(buckets, p) for p in (0.4, 0.41, 0.9, 0.91, 1.0)] == [-3, 5, 5, 9, 9]
    assert quantile_key({}, 0.5) is None
    assert count_over(buckets, 5) == 10


def test_a_factor_of_a_tenth_is_four_buckets_and_never_more_than_it() -> None:
    assert (steps_of(1.1), steps_of(GAMMA**5), steps_of(1.5)) == (4, 5, 20)


# --- sample-ratio mismatch, names, bounds, and tests turned round ---


def test_sample_ratio_mismatch_after_each_of_three_looks() -> None:
    batches = [(50, 950), (38, 962), (30, 970)]
    assert ratio_mismatch_log_bf(batches, (0.05, 0.95)) == pytest.approx((-0.047670, 0.045511, 0.735102), abs=1e-6)


def test_four_and_a_half_percent_instead_of_five_is_a_mismatch() -> None:
    assert ratio_mismatch_log_bf([(4500, 95500)], (0.05, 0.95)) == pytest.approx([23.490], abs=1e-3)


@pytest.mark.parametrize(("last", "named"), [(410, [0, 2, 5]), (110, [0, 2])])
def test_bad_classes_are_named(last: float, named: list[int]) -> None:
    assert e_bh([math.log(e) for e in (900, 30, 700, 2, 0.5, last)], alpha=ALPHA) == named


def test_both_ends_of_the_confidence_set() -> None:
    low, high = ratio_bounds([ONE], alpha=ALPHA, digits=9)
    assert low == pytest.approx(1.390540, abs=1e-6)
    swapped = RateWindow(ONE.events_c, ONE.exposure_c, ONE.events_t, ONE.exposure_t)
    assert rate_log_e([swapped], ratio=1 / high) == pytest.approx(math.log(1 / ALPHA), abs=1e-6)
    assert ratio_bounds([], alpha=ALPHA, digits=9) == (0, math.inf)


@pytest.mark.parametrize(("n", "width"), [(1000, 0.106375), (5000, 0.042924), (20000, 0.022112)])
def test_asymptotic_half_width(n: int, width: float) -> None:
    assert asymptotic_half_width(variance=1, n=n, n_opt=5000, alpha=0.05) == pytest.approx(width, abs=1e-6)


def test_no_event_in_enough_trials_proves_a_rare_rate() -> None:
    needed = next(n for n in range(1000, 9000, 10) if one_sample_reverse_log_e(events=0, trials=n, limit=0.001) >= 3)
    assert needed == pytest.approx(4300, abs=100)
    bets = [one_sample_reverse_log_e(events=k, trials=60, limit=0.02) for k in range(61)]
    at_the_limit = sum(math.comb(60, k) * 0.02**k * 0.98 ** (60 - k) * math.exp(bet) for k, bet in enumerate(bets))
    assert at_the_limit == pytest.approx(1, abs=1e-9)


def test_a_fold_is_the_same_to_the_last_bit_however_often_it_is_looked_at() -> None:
    fold = RateFold(1.1)
    for count, window in enumerate(THREE, start=1):
        fold.add(window.events_t, window.exposure_t, window.events_c, window.exposure_c)
        assert fold.log_e() == rate_log_e(THREE[:count], ratio=1.1)


def test_battery_that_grows_by_half_is_proven_over_a_fifth_and_not_over_a_doubling() -> None:
    window = MeanWindow(400, 600, 910, 4000, 4000, 4040)  # means 1.5 and 1, deviations 0.16 and 0.1
    over, within = MeanFold.growth(1.2), MeanFold.growth_within(2.0)
    for _ in range(3):
        over.add([window])
        within.add([window])
    assert over.total / over.precision == pytest.approx(1.5 - 1.2)
    assert within.total / within.precision == pytest.approx(2.0 - 1.5)
    assert min(over.log_e(RHO), within.log_e(RHO)) > math.log(1 / ALPHA)


def test_a_drop_within_the_margin_is_proven_by_the_test_turned_round() -> None:
    window = MeanWindow(400, 360, 328, 4000, 3600, 3280)
    fold = MeanFold.at_least(0.02)
    for _ in range(40):
        fold.add([window])
    assert fold.total / fold.precision == pytest.approx(0.02)
    assert fold.log_e(RHO) > math.log(1 / 0.05)
