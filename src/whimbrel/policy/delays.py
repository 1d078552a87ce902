"""How long do treated devices take from their permission to their activation? A control takes as long to its placebo.

1. `estimate_delays` is a Kaplan-Meier estimate (JASA 53, 1958): a device that is still busy counts as one that takes
   longer than until now, so the fast devices do not stand for all. A quantile that cannot be known yet is the longest
   wait.
2. The signed policy holds a table of a few rounded quantiles. `delay_at` gives a device its own delay from the table.
3. `differs` says whether a new table is worth a new policy: ages are compared within hours, not within seconds.

Called by the flows that write policies, and by the device.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from whimbrel import limits

_WORTH_SHARE = 0.25
_WORTH_S = 1.0  # an announcement travels as long
_WORTH_HOURS = 1 / 20  # of the narrowest age group


class ActivationWait(msgspec.Struct, frozen=True):
    """The wait of one treated device: seconds since its permission, and whether it ended with an activation."""

    seconds: float
    activated: bool


def longest_wait_s(hour_s: float) -> float:
    """How long a control waits while no treated device has activated. It is bounded: dead devices are not imitated."""
    return min(limits.PLACEBO_MOST_HOURS * hour_s, limits.DELAY_S)


def estimate_delays(waits: Iterable[ActivationWait], *, longest_s: float) -> tuple[float, ...]:
    """The quantiles of the delay at (i + 1/2) / 16, in seconds. `longest_s` alone where no quantile is known."""
    ordered = sorted(waits, key=lambda wait: (wait.seconds, not wait.activated))  # who activates was at risk until then
    quantiles: list[float] = []
    surviving, at_risk = 1.0, len(ordered)
    for wait in ordered:
        if wait.activated:
            surviving *= 1 - 1 / at_risk
            while len(quantiles) < limits.DELAYS and 1 - surviving >= (len(quantiles) + 0.5) / limits.DELAYS:
                quantiles.append(_rounded(min(max(0.0, wait.seconds), limits.DELAY_S)))
        at_risk -= 1
    if not quantiles:
        return (longest_s,)
    return (*quantiles, *(max(longest_s, quantiles[-1]) for _ in range(limits.DELAYS - len(quantiles))))


def delay_at(table: Sequence[float], share: float) -> float:
    """The delay at `share` in [0, 1) of the devices, in seconds. Between two quantiles it is linear."""
    if not table:
        return 0.0
    place = min(max(0.0, share * len(table) - 0.5), len(table) - 1.0)
    below = math.floor(place)
    above = min(below + 1, len(table) - 1)
    return table[below] + (place - below) * (table[above] - table[below])


def differs(before: Sequence[float], after: Sequence[float], *, hour_s: float) -> bool:
    """Whether two tables differ so far that it matters: by a quarter of a delay, and by some minutes."""
    if len(before) != len(after):
        return True
    least_s = max(_WORTH_S, _WORTH_HOURS * hour_s)
    return any(abs(one - other) > max(least_s, _WORTH_SHARE * one) for one, other in zip(before, after, strict=True))


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.3g}")
