"""Published figures for the statistics. A change here is a change of what a verdict means."""

import math

import numpy
import pytest

from whimbrel.gate.bets import over_log_e
from whimbrel.gate.design_effect import Alikeness, ArmValues, constancy, design_effect
from whimbrel.gate.evidence import (
    BoundFold,
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
from whimbrel.health.pairs import Pairs
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


# --- means, each from the formula of its direction ---

LEVEL_T, LEVEL_C = (50.0, 40.0, 42.0), (200.0, 150.0, 162.5)  # n, sum, sum of squares: means .8 and .75
ALIKE = MeanWindow(*LEVEL_T, *LEVEL_C)


@pytest.mark.parametrize(
    ("fold", "difference"),
    [
        (MeanFold.drop(0.02), 0.75 - 0.8 - 0.02),
        (MeanFold.rise(0.02), 0.8 - 0.75 - 0.02),
        (MeanFold.at_least(0.02), 0.8 - 0.75 + 0.02),
        (MeanFold.at_most(0.02), 0.75 - 0.8 + 0.02),
        (MeanFold.growth(1.05), 0.8 - 1.05 * 0.75),
        (MeanFold.growth_within(1.3), 1.3 * 0.75 - 0.8),
    ],
)
def test_every_test_of_means_bets_on_its_own_difference(fold: MeanFold, difference: float) -> None:
    """S/V is the difference less what is tolerated; V is 1 over s2_T/n_T + r0^2 s2_C/n_C, of the larger variance."""
    fold.add([ALIKE])
    assert fold.information() == (0.0, 0.0), "a window tells the variance of later ones alone"
    fold.add([ALIKE])
    v, s = fold.information()
    ratio = abs(fold.factor_c)
    assert v == pytest.approx(1 / (max(_variance(*LEVEL_T), _variance(*LEVEL_C)) / 50 + ratio**2 * VARIANCE_C / 200))
    assert s / v == pytest.approx(difference)
    assert (fold.log_e(RHO) > 0) == (difference > 0)


VARIANCE_C = (162.5 - 150.0**2 / 200) / 199


def test_strata_are_weighed_by_what_they_tell_and_one_without_an_arm_by_nothing() -> None:
    fold = MeanFold.drop(0.0)
    fold.add([ALIKE])
    half = MeanWindow(25.0, 15.0, 12.0, 100.0, 80.0, 70.0)
    fold.add([half, MeanWindow(9.0, 0.0, 0.0, 0.0, 0.0, 0.0), MeanWindow(0.0, 0.0, 0.0, 9.0, 9.0, 9.0), ALIKE])
    spread_t = max(_variance(*LEVEL_T), VARIANCE_C)
    weights = [1 / (spread_t / 25 + VARIANCE_C / 100), 1 / (spread_t / 50 + VARIANCE_C / 200)]
    assert fold.information() == pytest.approx((sum(weights), weights[0] * (0.8 - 0.6) + weights[1] * (0.75 - 0.8)))


@pytest.mark.parametrize(("n_t", "n_c", "begins"), [(30, 30, True), (29, 30, False), (30, 29, False)])
def test_a_mean_is_believed_from_thirty_earlier_values_an_arm(n_t: int, n_c: int, begins: bool) -> None:
    fold = MeanFold.drop(0.0)
    fold.add([MeanWindow(n_t, n_t / 2, n_t / 2, n_c, n_c / 2, n_c / 2)])
    assert fold.begins == begins
    fold.add([ALIKE])
    assert (fold.precision > 0) == begins


@pytest.mark.parametrize(
    ("wrong", "n", "begins"), [(3, 30, True), (2, 30, False), (3, 29, False), (2, 999, False), (2, 1000, True)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_share_is_believed_by_three_answers_of_either_kind_or_a_thousand(
    wrong: int, n: int, begins: bool, turned: bool
) -> None:
    """Its control's alone: of the treated few may have told."""
    right = wrong if turned else n - wrong
    fold = MeanFold.drop(0.0, share=True)
    fold.add([MeanWindow(0.0, 0.0, 0.0, n, right, right)])
    assert fold.begins == begins


def test_a_share_of_the_treated_varies_as_its_mean_allows_until_thirty_told() -> None:
    """Of a thousand answers of the control one is wrong, and half an answer more is taken to be."""

    def spread(n_t: float, right: float, *, tolerance: float = 0.0) -> float:
        fold = MeanFold.drop(tolerance, share=True)
        fold.add([MeanWindow(n_t, right, right, 1000, 999, 999)])
        fold.add([MeanWindow(1, 1, 1, 10**9, 10**9, 10**9)])
        return 1 / fold.precision

    least = max(_variance(1000, 999, 999), 0.5 / 1001)
    assert spread(29, 29) == pytest.approx(max(0.999 * 0.001, least), rel=1e-6)
    assert spread(29, 29, tolerance=0.1) == pytest.approx(0.899 * 0.101, rel=1e-6)
    assert spread(29, 29, tolerance=0.7) == pytest.approx(0.25, rel=1e-6), "no share varies more than a coin"
    assert spread(50, 50) == spread(50, 40) == pytest.approx(least, rel=1e-6), "the control's variance at least"
    assert spread(50, 45, tolerance=0.3) == pytest.approx(_variance(50, 45, 45), rel=1e-6)


@pytest.mark.parametrize(("floor", "sign"), [(True, 1.0), (False, -1.0)])
def test_a_bound_of_a_mean_is_tested_on_its_own_side_by_the_larger_variance(floor: bool, sign: float) -> None:
    fold = BoundFold(0.85, floor=floor)
    fold.add(ALIKE)
    assert (fold.precision, fold.log_e(RHO)) == (0.0, 0.0)
    fold.add(ALIKE)
    v = 50 / max(_variance(*LEVEL_T), VARIANCE_C)
    assert (fold.precision, fold.total) == pytest.approx((v, sign * v * (0.85 - 0.8)))
    assert fold.log_e(RHO) == pytest.approx(mean_log_e(precision=v, total=sign * v * 0.05, rho=RHO))


def test_a_bound_is_tested_without_a_control_too_and_by_few_controls_not_widened() -> None:
    def precision(n_c: float) -> float:
        fold = BoundFold(0.85, floor=True)
        for _ in range(2):
            fold.add(MeanWindow(50.0, 40.0, 36.0, n_c, n_c / 2, n_c / 2))
        return fold.precision

    assert precision(0) == precision(29) == pytest.approx(50 / _variance(50, 40, 36))
    assert precision(30) == pytest.approx(50 / _variance(30, 15, 15))


def test_windows_of_the_same_devices_are_worth_as_many_as_kish_says() -> None:
    """V divides by 1 + sum of each arm's (phi - 1), weighed by its part of the noise; phi = 1 + 2 (c/s) (m/n)."""
    pairs_t, pairs_c = Pairs(50, 50, 40.0, 40.0, 40.0), Pairs(200, 200, 150.0, 150.0, 132.5)
    fold = MeanFold.drop(-0.1)
    fold.add([ALIKE])
    fold.add([MeanWindow(*LEVEL_T, *LEVEL_C, pairs_t, pairs_c)])
    spread_t, spread_c = _variance(100, 80, 84), _variance(400, 300, 325)
    shared_t, shared_c = (40 - 40 * 40 / 50) / (50 - 1), (132.5 - 150 * 150 / 200) / (200 - 1)
    of_control = shared_c / spread_c
    of_both = max(shared_t, shared_c) / max(spread_t, spread_c)
    noise_t, noise_c = max(_variance(*LEVEL_T), VARIANCE_C) / 50, VARIANCE_C / 200
    more_t, more_c = min(1.0, of_both) * 2 * 50 / 100, of_control * 2 * 200 / 400
    inflation = 1 + (more_t * noise_t + more_c * noise_c) / (noise_t + noise_c)
    v, s = fold.information()
    assert 1.2 < inflation < 1.9
    assert v == pytest.approx(fold.precision / inflation)
    assert s / v == pytest.approx(0.75 - 0.8 + 0.1)
    assert fold.log_e(RHO) == pytest.approx(mean_log_e(precision=v, total=s, rho=RHO))


def test_a_bound_of_the_same_devices_is_worth_as_many_as_kish_says() -> None:
    fold = BoundFold(0.85, floor=True)
    fold.add(ALIKE)
    fold.add(MeanWindow(*LEVEL_T, *LEVEL_C, Pairs(50, 50, 40.0, 40.0, 37.0)))
    phi = 1 + 2 * ((37 - 32) / 49) / max(_variance(100, 80, 84), _variance(400, 300, 325)) * 50 / 100
    assert 1.1 < phi < 2
    assert fold.log_e(RHO) == pytest.approx(mean_log_e(precision=fold.precision / phi, total=fold.total / phi, rho=RHO))


def test_the_last_windows_of_an_arm_fall_on_its_devices_as_all_windows_do() -> None:
    """n windows of N that fall on D = N^2 / (N + 2 M) devices: phi = 1 + (c/s) (n/D - 1), and 1 below one a device."""
    arm, other = ArmValues(), ArmValues()
    arm.add(100, 50, 50, Pairs(450, 3000, 225.0, 225.0, 200.0))
    other.add(40, 20, 20)
    alike = (200 - 225 * 225 / 450) / (450 - 3000 / 450) / max(_variance(100, 50, 50), _variance(40, 20, 20))
    assert constancy(arm, other) == pytest.approx(alike)
    assert design_effect(arm, other) == pytest.approx(1 + 2 * alike * 450 / 100)
    devices = 100**2 / (100 + 2 * 450)
    assert devices == 10
    assert design_effect(arm, other, n=100) == design_effect(arm, other)
    assert design_effect(arm, other, n=60) == pytest.approx(1 + alike * (60 / devices - 1))
    assert design_effect(arm, other, n=9) == 1.0
    assert design_effect(other, arm) == 1.0, "no pairs, no repeated windows"


def test_single_devices_are_taken_to_be_wholly_alike_and_opposite_ones_not_at_all() -> None:
    alone, opposed = ArmValues(), ArmValues()
    alone.add(10, 5, 5, Pairs.of(1.0, before=4, total=2.0))
    assert alone.covariance() == math.inf
    assert constancy(alone) == 1.0
    two = ArmValues()
    two.add(10, 5, 5, Pairs.of(1.0, before=1, total=1.0).plus(Pairs.of(0.0, before=1, total=0.0)))
    assert (two.freedom, two.covariance()) == (1.0, 0.5), "two devices tell how far they differ"
    opposed.add(10, 5, 5, Pairs(20, 100, 10.0, 10.0, 1.0))
    assert constancy(opposed) == 0.0
    assert constancy(ArmValues()) == 1.0, "where nothing tells of the spread"


def test_a_bet_on_both_arms_is_divided_by_their_effects_as_the_variance_of_a_ratio_weighs_them() -> None:
    both = Alikeness()
    both.treated.add(100, 50, 50, Pairs(450, 3000, 225.0, 225.0, 200.0))
    both.control.add(400, 200, 200, Pairs(600, 1200, 300.0, 300.0, 190.0))
    alike = constancy(both.treated, both.control)
    treated, control = 1 + 2 * alike * 450 / 100, 1 + 2 * alike * 600 / 400
    assert treated > 3 * control / 2
    assert both.divisor(100, 400) == pytest.approx((treated * 400 + control * 100) / 500)
    assert both.swapped().divisor(400, 100) == both.divisor(100, 400)
    assert both.divisor(0, 400) == both.divisor(100, 0) == 1.0
    both.treated.add(100, 50, 50, Pairs(450, 3000, 225.0, 225.0, 225.0))
    assert both.divisor(200, 400) != both.divisor(100, 400), "what was worked out is forgotten when more is told"


def test_a_metric_that_never_varied_still_proves_and_divides_by_nothing() -> None:
    """The least variance is a millionth."""
    same = MeanWindow(50, 50, 50, 200, 200, 200)
    fold, bound = MeanFold.drop(0.0), BoundFold(0.9, floor=True)
    for _ in range(2):
        fold.add([same])
        bound.add(same)
    assert fold.information() == pytest.approx((1 / (1e-6 / 50 + 1e-6 / 200), 0.0))
    assert bound.precision == pytest.approx(50 / 1e-6)


def test_an_average_leaves_out_what_weighs_nothing_and_overflows_nowhere() -> None:
    assert log_mean_exp((3.0, 900.0), (1.0, 0.0)) == pytest.approx(3.0)
    assert log_mean_exp((900.0, 901.0), (0.5, 0.5)) == pytest.approx(901 + math.log(0.5 * (1 + math.exp(-1))))
    assert log_mean_exp((math.inf, 1.0), (0.5, 0.5)) == math.inf
    assert log_mean_exp((-math.inf, -math.inf), (0.5, 0.5)) == -math.inf


def test_a_likely_event_is_bet_on_at_most_at_ninety_nine_in_a_hundred() -> None:
    """At a limit of a half the five larger gains are the same bet, and one event that is missing loses not all."""
    bets = [0.6, 0.75, 0.99, 0.99, 0.99, 0.99, 0.99]
    by_hand = sum((p / 0.5) ** 5 * ((1 - p) / 0.5) for p in bets) / 7
    assert one_sample_log_e(events=5, trials=6, limit=0.5) == pytest.approx(math.log(by_hand))
    assert over_log_e({1: 5}, count=6, limit=0.5) == pytest.approx(math.log(by_hand))


def test_a_confidence_set_that_a_million_crashes_refute_has_a_finite_end_and_none_without() -> None:
    assert ratio_bounds([RateWindow(500, 1000, 0, 10**6)], alpha=ALPHA, digits=4)[1] == math.inf
    low, high = ratio_bounds([RateWindow(0, 10**6, 500, 1000)], alpha=ALPHA, digits=4)
    assert (low, high) == (0.0, pytest.approx(0, abs=0.01))
