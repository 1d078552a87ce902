"""The difference of two arms whose devices report again and again: an interval, from one value a device.

1. Why not window differences: devices differ from one another and stay themselves. Two arms whose devices happen to
   differ will differ in every window, and a sum over windows would take that for proof. Over one value a device the
   variance is honest at every look, however values of one device hang together.
2. Information is V = 1/variance of the difference D. As windows come, S = V D is (asymptotically) a Brownian motion
   with drift in V, and a two-sided normal mixture bounds it over all looks at once (arXiv:1810.08240; asymptotic
   confidence sequences: arXiv:2103.06476). At least 30 devices an arm.
3. CUPED: what a device was before tells much of what it is. Of its value, theta times (before - mean before) is taken
   off; theta comes from earlier windows, so the interval stays valid, and the variance falls by the squared
   correlation. `before` was fixed before the device was assigned, so no arm can have changed it.

Called by the judge of experiments. The values and their sums: health/panel.py.
"""

import math

import msgspec

from whimbrel.health.panel import LEAST_DEVICES, Panel

_LEAST_VARIANCE = 1e-12  # of one value: where all are equal, an interval still has a width


class Difference(msgspec.Struct, frozen=True):
    """Treated less control: the estimate, and its variance."""

    estimate: float
    variance: float

    @property
    def information(self) -> float:
        """V: one over the variance."""
        return 1 / self.variance


def difference(treated: Panel, control: Panel) -> Difference | None:
    """The plain difference of the means; None before both arms have 30 devices."""
    if min(treated.n, control.n) < LEAST_DEVICES:
        return None
    spread = (
        _spread(treated.n, treated.y, treated.yy) / treated.n + _spread(control.n, control.y, control.yy) / control.n
    )
    return Difference(treated.y / treated.n - control.y / control.n, spread)


def slope(panels: "list[Panel]") -> float | None:
    """theta: how much of a device's value its mean from before tells, within arms. None where nothing tells it."""
    shared = [panel for panel in panels if panel.both >= LEAST_DEVICES]
    cross = sum(panel.xy - panel.x * panel.both_y / panel.both for panel in shared)
    square = sum(panel.xx - panel.x * panel.x / panel.both for panel in shared)
    scale = sum(panel.xx for panel in shared)
    if square <= 1e-12 * scale or square <= 0:
        return None  # all alike: there is nothing to take off
    return cross / square


def correlation(panels: "list[Panel]") -> float:
    """Of devices' values with what they were before, within arms; 0 where nothing tells it."""
    theta = slope(panels)
    shared = [panel for panel in panels if panel.both >= LEAST_DEVICES]
    y = sum(panel.both_yy - panel.both_y * panel.both_y / panel.both for panel in shared)
    x = sum(panel.xx - panel.x * panel.x / panel.both for panel in shared)
    return max(-1.0, min(1.0, theta * math.sqrt(x / y))) if theta is not None and y > 0 else 0.0


def adjusted(treated: Panel, control: Panel, *, theta: float) -> Difference | None:
    """The difference with what was there before taken off; devices without an x are compared among themselves.

    The two groups are weighed by their precision. None before the devices with an x are 30 an arm.
    """
    if min(treated.both, control.both) < LEAST_DEVICES:
        return None
    parts = [_residual(treated, control, theta)]
    rest = difference(_without(treated), _without(control))
    if rest is not None:
        parts.append(rest)
    precision = sum(each.information for each in parts)
    return Difference(sum(each.estimate * each.information for each in parts) / precision, 1 / precision)


def _residual(treated: Panel, control: Panel, theta: float) -> Difference:
    estimate, variance = 0.0, 0.0
    for panel, sign in ((treated, 1), (control, -1)):
        m = panel.both
        estimate += sign * (panel.both_y - theta * panel.x) / m
        sums = panel.both_y - theta * panel.x
        squares = panel.both_yy - 2 * theta * panel.xy + theta * theta * panel.xx
        variance += _spread(m, sums, squares) / m
    return Difference(estimate, variance)


def _without(panel: Panel) -> Panel:
    return Panel(n=panel.n - panel.both, y=panel.y - panel.both_y, yy=panel.yy - panel.both_yy)


def _spread(n: int, total: float, squares: float) -> float:
    return max(_LEAST_VARIANCE, (squares - total * total / n) / (n - 1))


def two_sided_rho(*, v_opt: float, alpha: float) -> float:
    """The mixture parameter that makes the two-sided bound tightest at information `v_opt`."""
    log = 2 * math.log(1 / alpha)
    return v_opt / (log + math.log(1 + log))


def two_sided_bound(v: float, *, rho: float, alpha: float) -> float:
    """How large |S| may be at information `v`, over all looks at once, with probability 1 - alpha under no drift."""
    return math.sqrt((v + rho) * (2 * math.log(1 / alpha) + math.log((v + rho) / rho)))


def half_width(difference: Difference, *, rho: float, alpha: float) -> float:
    """Half the width of the confidence sequence around the estimate, in units of the metric."""
    v = difference.information
    return two_sided_bound(v, rho=rho, alpha=alpha) / v


def two_sided_log_mixture(s: float, v: float, *, rho: float) -> float:
    """ln of the normal mixture at sum `s` and information `v`: an E-value against no difference."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))
