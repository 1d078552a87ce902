"""How long do treated devices take from their permission to their activation? A control takes as long to its placebo.

1. `estimate_delays` is a Kaplan-Meier estimate (JASA 53, 1958): a device that is still busy counts as one that takes
   longer than until now, so the fast devices do not stand for all. A quantile that cannot be known yet is the longest
   wait.
2. The signed policy holds a table of a few rounded quantiles. `delay_at` gives a device its own delay from the table.
3. A hardware class that takes its own time has a table of its own, since a slow board that counts from early on is
   compared with none of its kind. Classes of few devices have the table of all.
4. `differ` says whether new tables are worth a new policy: ages are compared within hours, not within seconds.

Called by the flows that write policies, and by the device.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from whimbrel import limits

_WORTH_SHARE = 0.25
_WORTH_S = 1.0  # an announcement travels as long
_WORTH_HOURS = 1 / 20  # of the narrowest age group


class ActivationWait(msgspec.Struct, frozen=True):
    """The wait of one treated device: seconds since its permission, and whether it ended with an activation."""

    seconds: float
    activated: bool
    hardware_class: str = ""


class DelayTables(msgspec.Struct, frozen=True):
    """The quantiles of the delay in seconds: of all treated devices, and of classes that take their own time."""

    pooled: tuple[float, ...] = ()
    by_class: Mapping[str, tuple[float, ...]] = {}

    def of(self, hardware_class: str) -> tuple[float, ...]:
        """The table of a device of this class."""
        return self.by_class.get(hardware_class, self.pooled)


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


def estimate_by_class(waits: Iterable[ActivationWait], *, longest_s: float, hour_s: float) -> DelayTables:
    """The tables of all devices and of their largest classes. A class that takes as long as all has none of its own."""
    waits, by_class = list(waits), defaultdict(list)
    for wait in waits:
        by_class[wait.hardware_class].append(wait)
    pooled = estimate_delays(waits, longest_s=longest_s)
    known = [name for name, own in by_class.items() if name and len(own) >= limits.DELAY_CLASS_DEVICES]
    tables = {name: estimate_delays(by_class[name], longest_s=longest_s) for name in known}
    apart = [name for name, table in tables.items() if _differs(pooled, table, hour_s=hour_s)]
    largest = sorted(apart, key=lambda name: (-len(by_class[name]), name))[: limits.DELAY_CLASSES]
    return DelayTables(pooled, {name: tables[name] for name in sorted(largest)})


def delay_at(table: Sequence[float], share: float) -> float:
    """The delay at `share` in [0, 1) of the devices, in seconds. Between two quantiles it is linear."""
    if not table:
        return 0.0
    place = min(max(0.0, share * len(table) - 0.5), len(table) - 1.0)
    below = math.floor(place)
    above = min(below + 1, len(table) - 1)
    return table[below] + (place - below) * (table[above] - table[below])


def differ(before: DelayTables, after: DelayTables, *, hour_s: float) -> bool:
    """Whether tables differ for any class so far that it matters: by a quarter of a delay, and by some minutes."""
    classes = {"", *before.by_class, *after.by_class}
    return any(_differs(before.of(name), after.of(name), hour_s=hour_s) for name in classes)


def _differs(before: Sequence[float], after: Sequence[float], *, hour_s: float) -> bool:
    if len(before) != len(after):
        return True
    least_s = max(_WORTH_S, _WORTH_HOURS * hour_s)
    return any(abs(one - other) > max(least_s, _WORTH_SHARE * one) for one, other in zip(before, after, strict=True))


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.3g}")
