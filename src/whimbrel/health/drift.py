"""How far a version's predictions are from those it was released with: the population stability index, corrected.

PSI = sum_i (p_i - q_i) ln(p_i / q_i), p what devices predict and q the release's reference. Below .1 is read as none
and above .25 as a real shift (Siddiqi, Credit Risk Scorecards, 2006, on the monitoring of scorecards).

1. The unit is a device and window: each gives shares that add up to 1, so that one chatty device is one unit.
2. Few units look like drift: n draws raise the index by about sum_i 1/2 (1/p_i + q_i/p_i^2) s_i^2 / n, s_i^2 the
   variance of a bin's share between units. That is taken off, with n the devices of one window: the same devices again
   in the next one are no new devices.

Called by the ledger; the test of a limit: gate/drift.py.
"""

import math
from collections.abc import Mapping, Sequence

from whimbrel.health.tally import Moments

_LEAST_SHARE = 1e-3  # of a bin in the reference: what was never seen in it may still happen


def expected_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """A reference's shares, none of them below a thousandth, 1 in all."""
    raised = [max(share, _LEAST_SHARE) for share in shares]
    return tuple(share / sum(raised) for share in raised)


def stability_index(shares: Sequence[float], expected: Sequence[float]) -> float:
    """PSI of two sets of shares, none of them 0."""
    return sum((p - q) * math.log(p / q) for p, q in zip(shares, expected, strict=True))


class BinSums:
    """Sums of one arm's shares by bin. `devices`: the most units of one window."""

    def __init__(self, bins: int) -> None:
        self.units = self.devices = 0
        self.sums = [0.0] * bins
        self.squares = [0.0] * bins

    def add(self, units: int, predictions: Mapping[int, Moments]) -> None:
        """Add one window. Bins that the reference does not have are left out: no honest device reports them."""
        self.units += units
        self.devices = max(self.devices, units)
        for index, shares in predictions.items():
            if index < len(self.sums):
                self.sums[index] += shares.sum
                self.squares[index] += shares.sumsq

    def shares(self, expected: Sequence[float]) -> list[float]:
        """The mean shares, with one unit of the reference among them: no bin is empty."""
        return [(total + q) / (self.units + 1) for total, q in zip(self.sums, expected, strict=True)]

    def variances(self) -> list[float]:
        """Of each bin's share, between the units."""
        units = max(1, self.units)
        return [max(0.0, sq / units - (total / units) ** 2) for total, sq in zip(self.sums, self.squares, strict=True)]

    def bias(self, expected: Sequence[float], *, near: Sequence[float] | None = None) -> float:
        """By how much few devices raise the index, by its curvature at `near` (the shares themselves)."""
        curved = zip(near or self.shares(expected), expected, self.variances(), strict=True)
        return sum(0.5 * (1 / p + q / (p * p)) * v for p, q, v in curved) / max(1, self.devices)

    def index(self, expected: Sequence[float]) -> float | None:
        """The corrected index, never below 0; None with fewer than two units."""
        if self.units < 2:
            return None
        return max(0.0, stability_index(self.shares(expected), expected) - self.bias(expected))
