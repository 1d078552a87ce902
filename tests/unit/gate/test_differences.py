"""Intervals over devices that report again and again: valid at every look, and narrower with what came before."""

import math
import random

import numpy as np
import pytest

from whimbrel.gate.differences import (
    adjusted,
    difference,
    half_width,
    slope,
    two_sided_bound,
    two_sided_log_mixture,
    two_sided_rho,
)
from whimbrel.gate.evidence import MeanFold, MeanWindow
from whimbrel.health.panel import LEAST_DEVICES, Panel, moved

ALPHA = 0.05


def test_the_published_figures_of_the_two_sided_mixture() -> None:
    """The unit tests of the package confseq, reproduced."""
    rho = two_sided_rho(v_opt=100, alpha=ALPHA)
    assert rho == pytest.approx(12.60056, abs=1e-5)
    assert two_sided_bound(100, rho=rho, alpha=ALPHA) == pytest.approx(30.35209, abs=1e-5)
    assert two_sided_log_mixture(10, 100, rho=rho) == pytest.approx(-0.6510052, abs=1e-6)


def test_changes_add_up_to_the_present_values_in_any_order() -> None:
    chance = random.Random(7)
    changes, now = [], []
    for device in range(40):
        before = chance.gauss(0.8, 0.1) if device % 3 else None
        value: float | None = None
        for _ in range(chance.randint(1, 5)):
            fresh = chance.gauss(0.8, 0.2)
            changes.append(moved(old=value, new=fresh, before=before))
            value = fresh
        now.append((value or 0.0, before))
    chance.shuffle(changes)
    total = Panel()
    for change in changes:
        total = total.plus(change)
    both = [(y, x) for y, x in now if x is not None]
    expected = [
        40,
        sum(y for y, _ in now),
        sum(y * y for y, _ in now),
        len(both),
        sum(y for y, _ in both),
        sum(y * y for y, _ in both),
        sum(x for _, x in both),
        sum(x * x for _, x in both),
        sum(x * y for y, x in both),
    ]
    assert [getattr(total, name) for name in Panel.__struct_fields__] == pytest.approx(expected)


def test_no_interval_before_thirty_devices_an_arm() -> None:
    many, few = Panel(n=500, y=1.0, yy=9.0), Panel(n=LEAST_DEVICES - 1, y=1.0, yy=9.0)
    assert difference(many, few) is None
    assert difference(few, many) is None
    assert adjusted(many, many, theta=0.5) is None


def test_values_that_were_all_alike_before_tell_no_slope() -> None:
    alike = Panel(n=50, y=3.0, yy=9.0, both=50, both_y=3.0, both_yy=9.0, x=40.0, xx=32.0, xy=2.4)
    assert slope([alike, alike]) is None


class Fleet:
    """Devices that differ from one another and stay themselves: half of the variance is between them."""

    def __init__(self, seed: int, *, devices: int = 400, effect: float = 0.0, known: float = 1.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.devices, self.effect = devices, effect
        self.treated = np.arange(devices) < devices // 2
        self.itself = self.rng.normal(0, math.sqrt(0.5), devices)
        self.before = self.itself + self.rng.normal(0, 0.2, devices)
        self.known = self.rng.random(devices) < known
        self.joins = self.rng.integers(0, 20, devices)
        self.windows, self.total = np.zeros(devices), np.zeros(devices)

    def window(self, number: int) -> MeanWindow:
        """One window; gives the section 2 form of it."""
        y = self.itself + self.rng.normal(0, math.sqrt(0.5), self.devices) + self.effect * self.treated
        here = (self.joins <= number) & (self.rng.random(self.devices) < 0.8)
        self.windows += here
        self.total += np.where(here, y, 0)
        t, c = y[here & self.treated], y[here & ~self.treated]
        return MeanWindow(len(t), t.sum(), (t**2).sum(), len(c), c.sum(), (c**2).sum())

    def panels(self) -> tuple[Panel, Panel]:
        return self.panel(self.treated), self.panel(~self.treated)

    def panel(self, arm: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Panel:
        mine = arm & (self.windows > 0)
        y, both = self.total[mine] / self.windows[mine], self.known[mine]
        x, seen = self.before[mine][both], y[both]
        return Panel(
            n=len(y),
            y=y.sum(),
            yy=(y**2).sum(),
            both=len(x),
            both_y=seen.sum(),
            both_yy=(seen**2).sum(),
            x=x.sum(),
            xx=(x**2).sum(),
            xy=(x * seen).sum(),
        )


def looked_at(fleet: Fleet, *, windows: int = 40) -> tuple[bool, bool, float, float]:
    """Whether each interval ever missed the effect, and the last half-widths: plain, adjusted."""
    rhos: list[float | None] = [None, None]
    missed, widths, theta = [False, False], [math.inf, math.inf], None
    for number in range(windows):
        fleet.window(number)
        panels = fleet.panels()
        plain = difference(*panels)
        found = [plain, adjusted(*panels, theta=theta) if theta is not None else None]
        for index, each in enumerate(found):
            if each is None:
                continue
            rho = rhos[index] = rhos[index] or two_sided_rho(v_opt=4 * each.information, alpha=ALPHA)
            widths[index] = half_width(each, rho=rho, alpha=ALPHA)
            missed[index] |= abs(each.estimate - fleet.effect) > widths[index]
        theta = slope(list(panels))
    return missed[0], missed[1], widths[0], widths[1]


@pytest.mark.parametrize(("effect", "known"), [(0.0, 1.0), (0.4, 1.0), (0.0, 0.6)])
def test_over_all_looks_the_interval_misses_the_effect_at_most_at_alpha(effect: float, known: float) -> None:
    """200 runs each: 5% would be 10; 19 or more has a chance below 0.5% where the true rate is 5%."""
    runs = np.array([looked_at(Fleet(seed, effect=effect, known=known)) for seed in range(200)])
    assert runs[:, 0].sum() < 19
    assert runs[:, 1].sum() < 19


def test_what_devices_were_before_makes_the_interval_narrower_by_their_correlation() -> None:
    runs = np.array([looked_at(Fleet(seed)) for seed in range(30)])
    narrower = runs[:, 3].mean() / runs[:, 2].mean()
    # A device's value is itself plus the noise of some 25 windows, what it was before is itself plus 0.2.
    square = 0.5**2 / ((0.5 + 0.5 / 25) * (0.5 + 0.04))
    assert narrower == pytest.approx(math.sqrt(1 - square), rel=0.25)
    assert narrower < 0.5


def test_a_sum_over_windows_takes_the_same_devices_for_new_ones() -> None:
    """Why there are panels: with no effect at all, window differences added up "prove" one in most runs."""
    wrong = 0
    for seed in range(60):
        fleet, fold = Fleet(seed), MeanFold.drop(0.0)
        rho, out = two_sided_rho(v_opt=4000, alpha=ALPHA), False
        for number in range(60):
            fold.add([fleet.window(number)])
            out |= fold.precision > 0 and abs(fold.total) > two_sided_bound(fold.precision, rho=rho, alpha=ALPHA)
        wrong += out
    assert wrong > 20
