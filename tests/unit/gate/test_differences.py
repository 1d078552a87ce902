"""Intervals over devices that report again and again: valid at every look, and narrower with what came before."""

import math
import random

import numpy as np
import pytest

from whimbrel.gate.differences import (
    Difference,
    adjusted,
    correlation,
    difference,
    half_width,
    slope,
    two_sided_bound,
    two_sided_log_mixture,
    two_sided_rho,
)
from whimbrel.gate.evidence import MeanFold, MeanWindow
from whimbrel.health.panel import LEAST_DEVICES, Panel, Value, moved

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


def panel_of(values: list[float], before: list[float | None]) -> Panel:
    """One arm's panel, of devices that have such values, and were so before; None: not known."""
    total = Panel()
    for value, x in zip(values, before, strict=True):
        total = total.plus(moved(old=None, new=value, before=x))
    return total


def arms(*, known: int) -> tuple[list[float], list[float], list[float | None], list[float | None]]:
    """40 treated and 50 other devices: values of the arms, and what the first `known` of each were before."""
    chance = random.Random(11)
    before_t, before_c = ([chance.gauss(5, 1) for _ in range(n)] for n in (40, 50))
    values_t = [x + 0.5 + chance.gauss(0, 0.3) for x in before_t]
    values_c = [0.9 * x + chance.gauss(0, 0.3) for x in before_c]
    return values_t, values_c, *([*b[:known], *[None] * (len(b) - known)] for b in (before_t, before_c))


def noise_of(values: list[float]) -> float:
    return float(np.var(values, ddof=1)) / len(values)


def test_a_plain_difference_is_treated_less_control_with_the_variance_of_both_means() -> None:
    values_t, values_c, *before = arms(known=0)
    found = difference(panel_of(values_t, before[0]), panel_of(values_c, before[1]))
    assert found is not None
    assert found.estimate == pytest.approx(np.mean(values_t) - np.mean(values_c))
    assert found.variance == pytest.approx(noise_of(values_t) + noise_of(values_c))
    assert found.information == pytest.approx(1 / found.variance)


@pytest.mark.parametrize("known", [40, 30])
def test_what_devices_were_is_taken_off_each_arm_with_the_arms_in_their_places(known: int) -> None:
    """Where only some have a past, both groups are compared within themselves and weighed by their precision."""
    values_t, values_c, before_t, before_c = arms(known=known)
    theta = 0.7
    off_t = [y - theta * x for y, x in zip(values_t, before_t, strict=True) if x is not None]
    off_c = [y - theta * x for y, x in zip(values_c, before_c, strict=True) if x is not None]
    found = adjusted(panel_of(values_t, before_t), panel_of(values_c, before_c), theta=theta)
    assert found is not None
    assert len(off_t) == len(off_c) == known
    assert found.estimate == pytest.approx(np.mean(off_t) - np.mean(off_c))
    assert found.estimate > 0.2
    assert found.variance == pytest.approx(noise_of(off_t) + noise_of(off_c))


def test_devices_without_a_past_are_compared_among_themselves() -> None:
    values_t, values_c, before_t, before_c = (each * 2 for each in arms(known=30))
    before_t[40:], before_c[50:] = [None] * 40, [None] * 50
    known_t, known_c = (
        [y - 0.7 * x for y, x in zip(values, before, strict=True) if x is not None]
        for values, before in ((values_t, before_t), (values_c, before_c))
    )
    rest_t, rest_c = (
        [y for y, x in zip(values, before, strict=True) if x is None]
        for values, before in ((values_t, before_t), (values_c, before_c))
    )
    found = adjusted(panel_of(values_t, before_t), panel_of(values_c, before_c), theta=0.7)
    parts = [
        (np.mean(t) - np.mean(c), 1 / (noise_of(t) + noise_of(c))) for t, c in ((known_t, known_c), (rest_t, rest_c))
    ]
    precision = sum(p for _, p in parts)
    assert found is not None
    assert found.information == pytest.approx(precision)
    assert found.estimate == pytest.approx(sum(d * p for d, p in parts) / precision)


def test_the_slope_and_the_correlation_are_those_within_the_arms() -> None:
    values_t, values_c, before_t, before_c = arms(known=40)
    x = np.concatenate([np.array(b[:40], dtype=float) - np.mean(b[:40]) for b in (before_t, before_c)])
    y = np.concatenate([np.array(v[:40]) - np.mean(v[:40]) for v in (values_t, values_c)])
    panels = [panel_of(values_t, before_t), panel_of(values_c, before_c)]
    assert slope(panels) == pytest.approx(x @ y / (x @ x))
    assert correlation(panels) == pytest.approx(x @ y / math.sqrt((x @ x) * (y @ y)))
    few = panel_of(values_t[:29], before_t[:29])
    assert slope([*panels, few]) == slope(panels), "29 devices tell no slope"
    assert (slope([few]), correlation([few])) == (None, 0.0)


def test_a_metric_that_is_equal_on_every_device_has_an_interval_and_divides_by_nothing() -> None:
    same = panel_of([1.0] * 40, [2.0] * 40)
    found, taken_off = difference(same, same), adjusted(same, same, theta=0.5)
    for each in (found, taken_off):
        assert each is not None
        assert each.estimate == 0.0
        assert each.variance == pytest.approx(2 * 1e-12 / 40)
        assert 0 < half_width(each, rho=1.0, alpha=ALPHA) < 1e-5
    assert (slope([same, same]), correlation([same, same])) == (None, 0.0)
    flat = panel_of([1.0] * 40, [float(x) for x in range(40)])
    assert (slope([flat]), correlation([flat])) == (0.0, 0.0)


def test_half_a_width_is_the_bound_at_the_present_information() -> None:
    """sqrt((V + rho) (2 ln(1/alpha) + ln((V + rho)/rho))) / V."""
    width = half_width(Difference(0.3, 0.04), rho=12.6, alpha=ALPHA)
    assert width == pytest.approx(math.sqrt((25 + 12.6) * (2 * math.log(20) + math.log((25 + 12.6) / 12.6))) / 25)


def test_a_device_moves_its_panel_by_the_mean_over_its_windows() -> None:
    """Two windows that are over with 0.2 and 0.4, and an open one that says 0.6 and then 0.9."""
    value = Value(before=3.0)
    first = value.change(old=None, new=0.2)
    assert first == Panel(n=1, y=0.2, yy=0.2**2, both=1, both_y=0.2, both_yy=0.2**2, x=3.0, xx=9.0, xy=3.0 * 0.2)
    value = value.plus(0.2).plus(0.4)
    assert (value.n, value.total, value.before) == (2, pytest.approx(0.6), 3.0)
    fresh, again = value.change(old=None, new=0.6), value.change(old=0.6, new=0.9)
    assert (fresh.n, fresh.both, fresh.x, fresh.xx) == (0, 0, 0.0, 0.0)
    assert (fresh.y, fresh.yy, fresh.xy) == pytest.approx((0.4 - 0.3, 0.4**2 - 0.3**2, 3.0 * 0.1))
    assert (again.y, again.yy, again.both_y) == pytest.approx((0.5 - 0.4, 0.5**2 - 0.4**2, 0.1))
    unknown = Value(n=1, total=0.5).change(old=None, new=1.0)
    assert unknown == Panel(n=0, y=pytest.approx(0.25), yy=pytest.approx(0.75**2 - 0.5**2))


def test_a_panels_mean_is_that_of_its_devices() -> None:
    assert (panel_of([1.0, 2.0, 6.0], [None] * 3).mean, Panel().mean) == (3.0, None)


def test_no_interval_before_thirty_devices_an_arm() -> None:
    many, few = Panel(n=500, y=1.0, yy=9.0), Panel(n=LEAST_DEVICES - 1, y=1.0, yy=9.0)
    assert difference(many, many) is not None
    assert difference(many, Panel(n=LEAST_DEVICES, y=1.0, yy=9.0)) is not None
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
