"""The test that proves that a version's predictions drifted past a limit; its index is that of health/drift.py.

1. The index is convex, so its tangent plane at any point lies below it. The plane at the shares of EARLIER
   windows makes a mean of this window, whose expectation is at most the index: a test of means against the limit, as
   in `evidence`. The plane is taken a little towards the reference, where it is less steep: a bin that is nearly
   empty would else decide alone. A unit's variance is at most that of a single draw, sum_i g_i^2 p_i -
   (sum_i g_i p_i)^2, and at most (sum_i |g_i| s_i)^2.
2. Nothing is proven with fewer than 30 devices, and the weight of all windows together is at most that of the devices.

Called by the ledger.
"""

import math
from collections.abc import Mapping, Sequence

from whimbrel.gate.design_effect import LEAST_VARIANCE
from whimbrel.gate.evidence import mean_log_e
from whimbrel.health.drift import BinSums, stability_index
from whimbrel.health.panel import LEAST_DEVICES
from whimbrel.health.tally import Moments

_TOWARDS = 0.1  # of the way from the shares seen to the reference: where the plane touches


class DriftFold:
    """The state of one test. H0: the index is at most `limit` in every window."""

    def __init__(self, expected: Sequence[float], *, limit: float) -> None:
        self.expected, self.limit = expected, limit
        self.before = BinSums(len(expected))
        self.precision = self.total = 0.0
        self.weighed = 0

    def add(self, units: int, predictions: Mapping[int, Moments]) -> None:
        """One window of the treated arm."""
        if units and self.before.devices >= LEAST_DEVICES:
            now = BinSums(len(self.expected))
            now.add(units, predictions)
            shares = self.before.shares(self.expected)
            near = [(1 - _TOWARDS) * p + _TOWARDS * q for p, q in zip(shares, self.expected, strict=True)]
            slopes = [math.log(p / q) + 1 - q / p for p, q in zip(near, self.expected, strict=True)]
            level = sum(slope * p for slope, p in zip(slopes, near, strict=True))
            variance = self._variance(slopes, shares)
            here = sum(slope * total / units for slope, total in zip(slopes, now.sums, strict=True))
            height = stability_index(near, self.expected) - level + here - self.before.bias(self.expected, near=near)
            weight = units / max(variance, LEAST_VARIANCE)
            self.precision += weight
            self.total += weight * (height - self.limit)
            self.weighed += units
        self.before.add(units, predictions)

    def _variance(self, slopes: Sequence[float], shares: Sequence[float]) -> float:
        """Of a unit's height on the plane: the lesser of two bounds, of a single draw, and of bins that move as one."""
        mean = sum(slope * p for slope, p in zip(slopes, shares, strict=True))
        drawn = sum(slope * slope * p for slope, p in zip(slopes, shares, strict=True)) - mean * mean
        spreads = zip(slopes, self.before.variances(), strict=True)
        return min(drawn, sum(abs(slope) * math.sqrt(variance) for slope, variance in spreads) ** 2)

    def log_e(self, rho: float) -> float:
        """ln E now; the weight of repeated windows counts as that of the devices."""
        if not self.weighed:
            return 0.0
        part = min(1.0, self.before.devices / self.weighed)
        return mean_log_e(precision=self.precision * part, total=self.total * part, rho=rho)
