"""How did the intervals of an experiment grow? One point for each arm and look, for a plot over time.

1. An arm has at most `EXPERIMENT_POINTS` points, evenly over time, and the last look is always among them.
2. An end that is not bounded is None.

Called by the admin API, with the ledger that the verdict was given from.
"""

import math
from typing import TYPE_CHECKING

import msgspec

from whimbrel import limits
from whimbrel.flows.records import ExperimentRecord

if TYPE_CHECKING:  # the ledger needs numpy; whoever only reads points does without
    from whimbrel.gate.experiment_ledger import ExperimentLedger, Look

Interval = tuple[float | None, float | None, float | None]  # the estimate, the low and the high end


class IntervalPoint(msgspec.Struct, frozen=True, kw_only=True):
    """An arm against the control after a window. `deciding`: the interval that decides; `plain`: the one beside it."""

    arm: str
    window: int
    days: float  # of the plan, since the start
    deciding: Interval | None
    plain: Interval | None


def interval_points(record: ExperimentRecord, ledger: "ExperimentLedger") -> list[IntervalPoint]:
    """The points of every treated arm, oldest first."""
    points = []
    for place, variant in enumerate(record.plan.treated):
        looks = [(window, arm_now) for window, arm_place, arm_now in ledger.history if arm_place == place]
        stride = max(1, -(-len(looks) // limits.EXPERIMENT_POINTS))
        for window, arm_now in looks[::-1][::stride][::-1]:
            points.append(
                IntervalPoint(
                    arm=variant.id,
                    window=window,
                    days=(window + 1) * record.window_s / record.hour_s / 24,
                    deciding=_interval(arm_now.deciding),
                    plain=_interval(arm_now.plain),
                )
            )
    return points


def _interval(look: "Look | None") -> Interval | None:
    return None if look is None else (_bounded(look.estimate), _bounded(look.low), _bounded(look.high))


def _bounded(value: float) -> float | None:
    return value if math.isfinite(value) else None
