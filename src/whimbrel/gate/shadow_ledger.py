"""The sums of a shadow stage's windows, and the two parts of a plan with shadow stages.

1. A plan with shadow stages is two: what is tried beside the active version, and what is served. Each has its share of
   the plan's false-alarm budget, so that the whole rollout still has one.
2. Beside the active version the app itself is compared with its concurrent control, as in any stage: shadowing costs
   time and memory, and that must harm nobody.
3. Every shadow stage is judged by its own windows.
"""

from collections.abc import Iterable

import msgspec

from whimbrel.health.shadow import Units
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan

SHADOW_SHARE = 0.2  # of the budget: a candidate that disagrees is seen within windows, whatever it is
_replace = msgspec.structs.replace


def serving_part(plan: Plan) -> Plan:
    """The stages that serve, with what earlier ones asked for. The blast radius is in the shares already."""
    first = plan.shadows
    if not first:
        return plan
    stages = (_replace(plan.stages[first], success_criteria=plan.criteria(first)), *plan.stages[first + 1 :])
    return _replace(plan, stages=stages, alpha=plan.alpha * (1 - SHADOW_SHARE), blast_radius=None)


def shadow_part(plan: Plan) -> Plan:
    """The shadow stages, as what they are for the app: a share of its devices that carry a load beside it."""
    stages = tuple(_replace(stage, shadow=None) for stage in plan.stages[: plan.shadows])
    alpha = plan.alpha * SHADOW_SHARE / 2
    return _replace(plan, stages=stages, promote="when_no_harm", alpha=alpha, blast_radius=None)


def candidate_alpha(plan: Plan) -> float:
    """The budget of one shadow stage's tests of the candidate."""
    return plan.alpha * SHADOW_SHARE / 2 / plan.shadows


class ShadowLedger:
    """Sums by stage, and by stage and slice: these tests need no more than sums."""

    def __init__(self) -> None:
        self.totals: dict[int, Units] = {}
        self.slices: dict[int, dict[str, Units]] = {}

    def fold(self, cells: Iterable[Cell]) -> None:
        """Cells of closed windows, in order, each once."""
        for cell in cells:
            if cell.shadow is None or cell.role != "treated":
                continue
            self.totals[cell.stage] = self.totals.get(cell.stage, Units()).plus(cell.shadow)
            slices = self.slices.setdefault(cell.stage, {})
            for name in cell.groups.values():
                slices[name] = slices.get(name, Units()).plus(cell.shadow)
