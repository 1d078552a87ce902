"""The verdict over windows of a shadow stage."""

from support.values import HOUR, shadow_plan
from whimbrel.gate.gate import judge
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan

SHADOWED = Counts(
    assigned_t=10, assigned_c=10, activated_t=10, placebo_c=10, reported_t=10, reported_c=10, shadowed_t=10
)


def shadow_verdict(*cells: Cell, of: Plan | None = None, counts: Counts = SHADOWED, **changes: object) -> Verdict:
    """Of ten devices in the shadow and ten others, after the soak; `of`: the plan, if not the sample with defaults.

    `counts`: of the stage that is judged, the first one unless `changes` say another.
    """
    values = {"stage": 0, "soaked_s": 25 * HOUR, "cells": cells} | changes
    values["counts"] = {values["stage"]: counts}
    return judge(of or shadow_plan(), GateInput(**values))
