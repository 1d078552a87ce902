"""How long do treated devices take from their permission to their activation? A control takes as long to its placebo.

1. `learned` is a Kaplan-Meier estimate (JASA 53, 1958): a device that is still busy counts as one that takes longer
   than until now, so the first to finish are not taken for all. What cannot be known yet is the longest wait.
2. A table is a few quantiles, rounded, in a signed policy; `drawn` is a device's own delay out of it.
3. `differs` says whether a new table is worth a new document: ages are compared within hours, not within seconds.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec

from whimbrel import limits

_WORTH_SHARE = 0.25
_WORTH_S = 1.0  # an announcement on its way takes as long
_WORTH_HOURS = 1 / 20  # of the narrowest age group


class Waited(msgspec.Struct, frozen=True):
    """One treated device: seconds since it was permitted to begin, and whether it activated then."""

    seconds: float
    activated: bool


def longest_wait_s(hour_s: float) -> float:
    """What a control waits while nothing is known of the treated: dead ones are missed, and not imitated for ever."""
    return min(limits.PLACEBO_MOST_HOURS * hour_s, limits.DELAY_S)


def learned(waited: Iterable[Waited], *, longest_s: float) -> tuple[float, ...]:
    """The quantiles of the delay at (i + 1/2) / 16, in seconds; `longest_s` alone where none is known."""
    rows = sorted(waited, key=lambda one: (one.seconds, not one.activated))  # who activates was at risk until then
    known: list[float] = []
    surviving, at_risk = 1.0, len(rows)
    for row in rows:
        if row.activated:
            surviving *= 1 - 1 / at_risk
            while len(known) < limits.DELAYS and 1 - surviving >= (len(known) + 0.5) / limits.DELAYS:
                known.append(_rounded(min(max(0.0, row.seconds), limits.DELAY_S)))
        at_risk -= 1
    if not known:
        return (longest_s,)
    return (*known, *(max(longest_s, known[-1]) for _ in range(limits.DELAYS - len(known))))


def drawn(table: Sequence[float], share: float) -> float:
    """The delay of a device whose own share is `share` in [0, 1), in seconds; straight lines between the quantiles."""
    if not table:
        return 0.0
    place = min(max(0.0, share * len(table) - 0.5), len(table) - 1.0)
    below = math.floor(place)
    above = min(below + 1, len(table) - 1)
    return table[below] + (place - below) * (table[above] - table[below])


def differs(before: Sequence[float], after: Sequence[float], *, hour_s: float) -> bool:
    """Whether a control would take its placebo at a time that matters: a quarter of the delay, and some minutes."""
    if len(before) != len(after):
        return True
    least_s = max(_WORTH_S, _WORTH_HOURS * hour_s)
    return any(abs(one - other) > max(least_s, _WORTH_SHARE * one) for one, other in zip(before, after, strict=True))


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.3g}")
