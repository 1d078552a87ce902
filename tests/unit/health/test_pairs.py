"""How far a device's windows are alike, and what that leaves of them as evidence."""

import math

import numpy as np
import pytest

from whimbrel.gate.evidence import BoundFold, MeanFold, MeanWindow, one_sided_rho
from whimbrel.health.pairs import NO_PAIRS, Pairs

ALPHA = 0.05
RHO = one_sided_rho(v_opt=150, alpha=ALPHA)


class Fleet:
    """100 treated devices and 900 others of variance 1, of which a part is between them; they start one by one."""

    def __init__(self, seed: int, *, between: float, drop: float = 0.0, swing: float = 0.0) -> None:
        self.chance = np.random.default_rng(seed)
        self.treated = np.arange(1000) < 100
        self.itself = self.chance.normal(0, math.sqrt(between), 1000) - drop * self.treated
        self.noise, self.swing = math.sqrt(1 - between), swing
        self.start = self.chance.exponential(20, 1000).astype(int)
        self.before, self.total = np.zeros(1000, dtype=int), np.zeros(1000)

    def window(self, number: int) -> MeanWindow:
        here = (self.start <= number) & (self.chance.random(1000) < 0.8)
        value = self.itself + self.chance.normal(0, self.noise, 1000) + self.swing * math.sin(number / 10)
        sums, pairs = [], []
        for arm in (here & self.treated, here & ~self.treated):
            y, k, t = value[arm], self.before[arm], self.total[arm]
            sums += [len(y), y.sum(), (y**2).sum()]
            pairs.append(Pairs(pairs=k.sum(), squares=(k**2).sum(), now=k @ y, then=t.sum(), both=t @ y))
        self.before[here] += 1
        self.total[here] += value[here]
        return MeanWindow(*sums, *pairs)


def followed(fleet: Fleet, *, windows: int = 60) -> tuple[MeanFold, bool]:
    fold, proven = MeanFold.drop(0.0), False
    for number in range(windows):
        fold.add([fleet.window(number)])
        proven |= fold.log_e(RHO) >= math.log(1 / ALPHA)
    return fold, proven


def test_sums_are_those_of_the_covariance_within_devices() -> None:
    """Two devices a window, with 1 and 3 windows before: around means that are weighed by these."""
    pairs = Pairs.of(0.5, before=1, total=0.25).plus(Pairs.of(1.0, before=3, total=2.25))
    now, then = (1 * 0.5 + 3 * 1.0) / 4, (0.25 + 2.25) / 4
    assert pairs.product == pytest.approx(1 * (0.5 - now) * (0.25 - then) + 3 * (1.0 - now) * (0.75 - then))
    assert pairs.freedom == pytest.approx(4 - (1 + 9) / 4)


def test_a_single_device_tells_nothing_of_how_devices_differ() -> None:
    alone = Pairs.of(0.7, before=5, total=3.5)
    assert (alone.freedom, NO_PAIRS.freedom, NO_PAIRS.product) == (0, 0, 0)
    assert alone.product == pytest.approx(0)


@pytest.mark.parametrize("between", [0.0, 0.1, 0.5, 0.95])
def test_over_all_looks_devices_that_stay_themselves_prove_harm_at_most_at_alpha(between: float) -> None:
    """100 runs: 5% would be 5; 13 or more has a chance below 0.2% where the true rate is 5%."""
    assert sum(followed(Fleet(seed, between=between))[1] for seed in range(100)) < 13


@pytest.mark.parametrize("between", [0.3, 0.8])
def test_information_is_one_over_the_variance_of_the_difference(between: float) -> None:
    """Over 150 splits of a fleet, the differences found vary as each says of itself."""
    found = [followed(Fleet(seed, between=between))[0].information() for seed in range(150)]
    differences = np.array([s / v for v, s in found])
    assert np.mean([v for v, _ in found]) * differences.var() == pytest.approx(1, rel=0.35)


def test_devices_that_differ_by_chance_alone_lose_little() -> None:
    parts = []
    for seed in range(20):
        fold, _ = followed(Fleet(seed, between=0.0))
        parts.append(fold.information()[0] / fold.precision)
    assert np.mean(parts) > 0.9


def test_the_time_of_day_is_no_difference_between_devices() -> None:
    steady, swung = (followed(Fleet(3, between=0.2, swing=swing))[0] for swing in (0.0, 2.0))
    assert swung.before_c.covariance() == pytest.approx(steady.before_c.covariance(), rel=0.05)


def test_a_drop_beyond_what_the_split_can_make_is_proven() -> None:
    assert all(followed(Fleet(seed, between=0.5, drop=0.5))[1] for seed in range(10))


def test_windows_of_single_devices_count_as_devices() -> None:
    """Nothing tells how far their windows are alike, so they are taken to be all the same."""
    fold = MeanFold.drop(0.0)
    for number in range(200):
        one, other = (Pairs.of(0.1 * (number % 2), before=number, total=0.05 * number) for _ in range(2))
        fold.add([MeanWindow(1, 0.0, 0.0, 1, 1.0, 1.0, one, other)])
    assert fold.precision == 0  # never thirty devices' worth


def test_a_bound_is_not_broken_by_the_same_few_devices_again_and_again() -> None:
    """40 treated devices that happen to lie under it by a twentieth, each always the same."""
    value = np.linspace(0.0, 1.0, 40) - 0.05
    told, blind = BoundFold(0.5, floor=True), BoundFold(0.5, floor=True)
    for number in range(200):
        past = Pairs(
            pairs=40 * number,
            squares=40 * number**2,
            now=number * value.sum(),
            then=number * value.sum(),
            both=number * (value**2).sum(),
        )
        sums = (40, value.sum(), (value**2).sum(), 0.0, 0.0, 0.0)
        told.add(MeanWindow(*sums, past))
        blind.add(MeanWindow(*sums))
    assert blind.log_e(150.0) > 5 > 1 > told.log_e(150.0)
