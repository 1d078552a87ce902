"""How different are two arms, when the same devices report again and again? One value a device; an interval for it.

1. A device has one value: the mean over its windows so far, each less what the control showed just before (so the time
   of day is taken out, the same for every arm). A panel holds sums over devices: n, value, its square, and, of devices
   that know their mean from before the experiment, that one, its square and the product. When a device's value moves,
   what changed is added: panels are sums, so they merge in any order and the newest sum is the present state.
2. Why not window differences: devices differ from one another and stay themselves. Two arms whose devices happen to
   differ will differ in every window, and a sum over windows would take that for proof. Over one value a device the
   variance is honest at every look, however values of one device hang together.
3. Information is V = 1/variance of the difference D. As windows come, S = V D is (asymptotically) a Brownian motion
   with drift in V, and a two-sided normal mixture bounds it over all looks at once (arXiv:1810.08240; asymptotic
   confidence sequences: arXiv:2103.06476). At least 30 devices an arm.
4. CUPED: what a device was before tells much of what it is. Of its value, theta times (before - mean before) is taken
   off; theta comes from earlier windows, so the interval stays valid, and the variance falls by the squared
   correlation. `before` was fixed before the device was assigned, so no arm can have changed it.

Called by the tally (sums) and the judge of experiments (intervals). Pure.
"""

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel.model.documents import Document

LEAST_DEVICES = 30  # of each arm before its variance is believed
_LEAST_VARIANCE = 1e-12  # of one value: where all are equal, an interval still has a width

_Sum = Annotated[int, Meta(ge=-(2**53), le=2**53)]


class Panel(Document, frozen=True):
    """Sums over devices: `y` values, `x` their means from before; `both_*` of the `both` devices that have an x."""

    n: _Sum = 0
    y: float = 0.0
    yy: float = 0.0
    both: _Sum = 0
    both_y: float = 0.0
    both_yy: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def plus(self, other: "Panel") -> "Panel":
        """Both together."""
        return Panel(
            n=self.n + other.n,
            y=self.y + other.y,
            yy=self.yy + other.yy,
            both=self.both + other.both,
            both_y=self.both_y + other.both_y,
            both_yy=self.both_yy + other.both_yy,
            x=self.x + other.x,
            xx=self.xx + other.xx,
            xy=self.xy + other.xy,
        )

    @property
    def mean(self) -> float | None:
        """The mean value of its devices; None without any."""
        return self.y / self.n if self.n else None


def moved(*, old: float | None, new: float, before: float | None) -> Panel:
    """What changes when a device's value goes from `old` (None: it had none yet) to `new`."""
    y, yy = new - (old or 0.0), new * new - (old or 0.0) ** 2
    first = old is None
    if before is None:
        return Panel(n=int(first), y=y, yy=yy)
    return Panel(
        n=int(first),
        y=y,
        yy=yy,
        both=int(first),
        both_y=y,
        both_yy=yy,
        x=before if first else 0.0,
        xx=before * before if first else 0.0,
        xy=before * y,
    )


class Difference(msgspec.Struct, frozen=True):
    """Treated less control: the estimate, and its variance."""

    estimate: float
    variance: float

    @property
    def information(self) -> float:
        """V: one over the variance."""
        return 1 / self.variance


class Value(Document, frozen=True):
    """A device's value so far: over how many windows, their sum, and what it was before."""

    n: Annotated[int, Meta(ge=0)] = 0
    total: float = 0.0
    before: float | None = None

    def plus(self, seen: float) -> "Value":
        """The value with one window more."""
        return Value(n=self.n + 1, total=self.total + seen, before=self.before)

    def later(self, seen: float, *, before: float | None) -> "tuple[Value, Panel]":
        """The value with one window more, and what that changes in the panel. `before` is taken with the first only."""
        after = msgspec.structs.replace(self.plus(seen), before=self.before if self.n else before)
        old = self.total / self.n if self.n else None
        return after, moved(old=old, new=after.total / after.n, before=after.before)


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
    found = [_residual(treated, control, theta)]
    rest = difference(_without(treated), _without(control))
    if rest is not None:
        found.append(rest)
    precision = sum(each.information for each in found)
    return Difference(sum(each.estimate * each.information for each in found) / precision, 1 / precision)


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


def half_width(found: Difference, *, rho: float, alpha: float) -> float:
    """Half the width of the confidence sequence around the estimate, in units of the metric."""
    v = found.information
    return two_sided_bound(v, rho=rho, alpha=alpha) / v


def two_sided_log_mixture(s: float, v: float, *, rho: float) -> float:
    """ln of the normal mixture at sum `s` and information `v`: an E-value against no difference."""
    return 0.5 * math.log(rho / (v + rho)) + s * s / (2 * (v + rho))
