"""With which figures of both arms is a proven harm told? With those of the test that proves it.

1. The copy of a test that carries most of its evidence (gate/restarts.py) has sums of its own: its figures are those of
   its hours. The mean since the stage began would hide harm that began late.
2. Where the test that began with the stage carries most, the figures are the estimates of the whole stage.
3. The stage and the slice are named where the test is not about all devices of the stage that is judged.

Called by the gate, once harm is proven.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from whimbrel.gate.estimates import compare
from whimbrel.gate.ledger import Ledger
from whimbrel.plan.measures import MEASURES, Rate
from whimbrel.plan.plan import Stage


class HarmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The rate or mean of `guardrail` in both arms, over the last `hours` of the plan, in the stage's devices.

    Of latency: the share of sessions above the control's earlier quantile, or above the limit. `slice`: None for all.
    """

    guardrail: str
    hours: int
    stage: int
    slice: str | None
    treated: float | None
    control: float | None

    def words(self) -> str:
        """Both arms, for a sentence."""
        hours = "hour" if self.hours == 1 else f"{self.hours} h"
        return f"{compare(self.guardrail, self.treated, self.control)} in the last {hours}"

    def as_evidence(self, stages: Sequence[Stage]) -> dict[str, Any]:
        """As a verdict's evidence holds them, with the stage's name."""
        return {**msgspec.structs.asdict(self), "stage": stages[self.stage].name}


def harm_figures(
    ledger: Ledger, guardrail: str, *, stage: int, slice_name: str | None, limit_ms: float | None
) -> HarmFigures | None:
    """Those of the copy that carries most of a test's evidence; None where that is the test that began with the stage.

    `limit_ms`: the limit of latency in force, if any.
    """
    copy = ledger.leading_copy(stage, guardrail, slice_name=slice_name, limit_ms=limit_ms)
    if copy is None:
        return None
    row = MEASURES.get(guardrail)
    swapped = row is not None and isinstance(row.test, Rate) and row.test.fewer
    return HarmFigures(
        guardrail=guardrail,
        hours=ledger.hours_since(stage, copy.hour),
        stage=stage,
        slice=slice_name,
        treated=copy.control if swapped else copy.treated,
        control=copy.treated if swapped else copy.control,
    )
