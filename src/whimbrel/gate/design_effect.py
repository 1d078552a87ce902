"""How much less do many windows of the same devices say than as many windows of strangers?

Devices differ from one another and stay themselves. With c the covariance of two windows of one device
(health/pairs.py), s the variance of a single window, n windows of an arm and m pairs of windows of one device among
them, the variance of the arm's sum is 1 + 2 (c/s) (m/n) times that of n strangers' windows: Kish's design effect.

1. c and s are the larger of both arms': few devices show little of how constant they are.
2. Of the n windows since a later time, not all pairs are known. The windows are taken to fall on the devices as all
   windows so far do, which makes n (n/D - 1) / 2 of them pairs, with D = N^2 / (N + 2 M) devices of all N windows and M
   pairs.

Called by the tests of rates, which divide the logarithm of each bet by it, and by the tests of means.
"""

import math

from whimbrel.health.pairs import NO_PAIRS, Pairs

LEAST_VARIANCE = 1e-6  # of one value: a metric that never varied must still be able to prove a drop; never too eager


class ArmValues:
    """The values of one arm so far, one a device-window, and what two windows of one device have in common."""

    __slots__ = ("_variance", "freedom", "n", "pairs", "product", "sum", "sumsq", "version")

    def __init__(self) -> None:
        self.n = self.sum = self.sumsq = self.pairs = self.product = self.freedom = 0.0
        self.version = 0  # how often values were added: what was worked out of them is kept until it changes
        self._variance: float | None = None

    def add(self, n: float, total: float, squares: float, pairs: Pairs = NO_PAIRS) -> None:
        """n values, their sum and the sum of their squares, in one window and stratum."""
        self.n, self.sum, self.sumsq = self.n + n, self.sum + total, self.sumsq + squares
        self.version += 1
        self._variance = None
        if pairs.pairs:
            self.pairs += pairs.pairs
            self.product += pairs.product
            self.freedom += pairs.freedom

    def variance(self) -> float:
        """Of one value, between the units."""
        if self._variance is None:
            self._variance = max(LEAST_VARIANCE, (self.sumsq - self.sum * self.sum / self.n) / (self.n - 1))
        return self._variance

    def covariance(self) -> float:
        """Of two windows of one device; where single devices alone tell of it, their windows are all alike."""
        if self.pairs and self.freedom <= 0:
            return math.inf
        return self.product / self.freedom if self.pairs else 0.0


def design_effect(arm: ArmValues, *others: ArmValues, n: float | None = None) -> float:
    """How many times the variance of the mean of an arm's windows is that of as many strangers' windows.

    `n`: of the last so many windows alone; None: of all. The devices of an arm are taken to be at least as constant as
    those of the `others`.
    """
    return effect_of(arm, constancy(arm, *others), n) if arm.pairs else 1.0


def constancy(*arms: ArmValues) -> float:
    """c/s of all arms together: 0 where windows of one device are like strangers', 1 where they are all alike."""
    spread, shared = 0.0, -math.inf
    for each in arms:
        if each.n > 1:
            spread, shared = max(spread, each.variance()), max(shared, each.covariance())
    return min(1.0, max(0.0, shared / spread)) if spread else 1.0


def effect_of(arm: ArmValues, alike: float, n: float | None = None) -> float:
    """The design effect of an arm whose devices are as constant as `alike` says (`constancy`)."""
    if not arm.pairs:
        return 1.0
    if n is None or n >= arm.n:
        return 1 + 2 * alike * arm.pairs / arm.n
    return 1 + alike * max(0.0, n * (arm.n + 2 * arm.pairs) / arm.n**2 - 1)


class Alikeness:
    """How constant the devices of both arms are in one measure."""

    __slots__ = ("_constancy", "_version", "control", "treated")

    def __init__(self) -> None:
        self.treated, self.control = ArmValues(), ArmValues()
        self._version, self._constancy = (0, 0), 0.0

    @property
    def known(self) -> bool:
        """Whether two windows of one device were told."""
        return bool(self.treated.pairs or self.control.pairs)

    def swapped(self) -> "Alikeness":
        """The same values, with the arms in each other's places."""
        other = Alikeness()
        other.treated, other.control = self.control, self.treated
        return other

    def divisor(self, n_t: float, n_c: float) -> float:
        """What the logarithm of a bet on the last n_t and n_c device-windows of the arms is divided by.

        The variance of the logarithm of a ratio of rates is about 1/n_t + 1/n_c: the design effects weigh as these.
        """
        if n_t <= 0 or n_c <= 0 or not self.known:
            return 1.0
        version = self.treated.version, self.control.version
        if version != self._version:  # every copy of a test asks
            self._version, self._constancy = version, constancy(self.treated, self.control)
        treated = effect_of(self.treated, self._constancy, n_t)
        control = effect_of(self.control, self._constancy, n_c)
        return (treated * n_c + control * n_t) / (n_t + n_c)
