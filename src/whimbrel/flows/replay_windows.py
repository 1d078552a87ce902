"""What the gate would have said of tally windows that are known from elsewhere, window by window.

1. The stage is the highest with treated devices so far, and it soaks from its first window on.
2. Devices of a slice that went back are left out from then on.
"""

import itertools
from collections.abc import Iterable, Iterator

import msgspec

from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger, References
from whimbrel.gate.verdict import Counts, GateInput, Verdict
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan


class WindowVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict after one window."""

    window: int
    stage: int
    stage_name: str
    verdict: Verdict


def replay_windows(
    plan: Plan, cells: Iterable[Cell], *, hour_s: float = 3600.0, references: References | None = None
) -> Iterator[WindowVerdict]:
    """The verdict after every window, until the version goes back. Devices of a slice that went back are left out.

    A file tells nothing of single devices, so as many are taken to have reported as were heard in one window at most.
    """
    ordered = sorted(cells, key=lambda cell: cell.key)
    expected = references or References()
    ledger, without, stage, since = Ledger(plan, references=expected), (), -1, 0  # type: Ledger, tuple[str, ...], int, int
    heard: dict[int, int] = {}
    shadowed: dict[int, int] = {}
    cells_so_far: list[Cell] = []
    for window, group_of_window in itertools.groupby(ordered, key=lambda cell: cell.window):
        group = list(group_of_window)
        cells_so_far += group
        entered = max((cell.stage for cell in group if cell.role == "treated"), default=stage)
        if entered > stage:
            stage, since = entered, window
        for each in {cell.stage for cell in group}:
            at_once = sum(c.at_risk for c in group if c.stage == each and c.role == "treated")
            heard[each] = max(heard.get(each, 0), at_once)
            in_shadow = sum(c.shadow.windows for c in group if c.stage == each and c.shadow)
            shadowed[each] = max(shadowed.get(each, 0), in_shadow)
        gate_input = GateInput(
            stage=max(stage, 0),
            soaked_s=(window - since + 1) * plan.window_s(),
            cells=group,
            counts={
                each: Counts(assigned_t=n, activated_t=n, reported_t=n, shadowed_t=shadowed[each])
                for each, n in heard.items()
            },
            hour_s=hour_s,
            without=without,
            users_heard=any(cell.user_reports or cell.version_reports for cell in cells_so_far),
        )
        verdict = judge(plan, gate_input, ledger)
        yield WindowVerdict(
            window=window, stage=gate_input.stage, stage_name=plan.stages[gate_input.stage].name, verdict=verdict
        )
        if verdict.move == "roll_back":
            return
        if verdict.move == "slice_back":
            without = tuple(sorted({*without, *verdict.classes}))
            ledger = Ledger(plan, without=without, references=expected)
            ledger.fold(cells_so_far)
