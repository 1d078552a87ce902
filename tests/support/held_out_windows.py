"""Tally windows of bad versions that were once promoted, and of their healthy twins: the same controls, nothing wrong.

A twin's treated devices are the controls thinned to the treated share: as many as there were, of each sum a binomial
part from a seed, of each metric values around the control's mean. Its second stage takes the place of the windows that
the file does not have: the canary's devices go on, the rest of the fleet joins, and the holdback stays the control.
"""

import lzma
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from whimbrel.flows.files.plan_file import read_plan
from whimbrel.flows.files.windows_file import read_windows
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.plan import Plan

FOLDER = Path(__file__).parents[1] / "vectors" / "windows"
_COUNTS = ("at_risk", "sessions", "crashed", "error_units", "unused")


class HeldOut(msgspec.Struct, frozen=True):
    """A file, its plan, and how many treated devices there are for each control in its canary."""

    name: str
    plan: str
    share: float


HELD_OUT = (
    HeldOut("late-brick", "plan-24h", 1 / 19),
    HeldOut("late-onset", "plan-24h", 1 / 19),
    HeldOut("usage-tenth-crash-x5", "plan-24h", 1 / 19),
    HeldOut("nobody-uses-it", "plan", 1 / 10),
    HeldOut("usage-stops-after-an-hour", "plan", 1 / 10),
)


def plan_of(case: HeldOut) -> Plan:
    """The plan that the windows were made for."""
    return read_plan((FOLDER / f"{case.plan}.yaml").read_text(), what=case.plan)


def lines_of(case: HeldOut) -> bytes:
    """The file as `gate replay` reads it."""
    return lzma.decompress((FOLDER / f"{case.name}.jsonl.xz").read_bytes())


def cells_of(case: HeldOut) -> list[Cell]:
    """The file's cells."""
    return read_windows(lines_of(case).splitlines(), plan=plan_of(case), what=case.name)


def healthy_twin(case: HeldOut, *, seed: int) -> list[Cell]:
    """The cells of the same rollout with nothing wrong, to the end of its plan."""
    draw = np.random.default_rng(seed)
    plan = plan_of(case)
    canary, general = (round(each.duration_hours * 3600 / plan.window_s()) for each in plan.stages)
    every = cells_of(case)
    cells = [cell for cell in every if cell.window < canary]
    controls = [cell for cell in cells if cell.role == "control"]
    due = {(cell.window, cell.age_bucket): cell for cell in cells if cell.role == "treated" and cell.due}
    twin = list(controls)
    for cell in controls:
        looked = due.pop((cell.window, cell.age_bucket), None)
        part = _thinned(cell, case.share, draw, role="treated")
        twin.append(msgspec.structs.replace(part, **_silence(looked)))
    for (window, age), looked in due.items():
        twin.append(Cell(stage=0, window=window, role="treated", age_bucket=age, **_silence(looked)))
    every_control = [cell for cell in every if cell.role == "control"]
    return [*twin, *_second_stage(every_control, case, draw, first=canary, windows=max(1, general))]


def _silence(looked: Cell | None) -> dict[str, int]:
    return {} if looked is None else {"due": looked.due, "overdue": looked.overdue}


def _second_stage(
    controls: list[Cell], case: HeldOut, draw: np.random.Generator, *, first: int, windows: int
) -> Iterator[Cell]:
    """The canary's devices are over a day old; the others take the version as the canary's did."""
    by_window: dict[int, list[Cell]] = {}
    for cell in controls:
        by_window.setdefault(cell.window, []).append(cell)
    fleet = 1 + case.share  # for each control of the canary
    holdback, rest = 0.1 * fleet, 0.9 * fleet - case.share
    oldest = max(cell.age_bucket for cell in controls)
    for window in range(windows):
        whole = [cell for cell in by_window[max(by_window)] if cell.age_bucket == oldest]
        for cell in whole:
            yield _thinned(cell, case.share, draw, role="treated", stage=0, window=first + window)
            yield _thinned(cell, holdback, draw, role="control", stage=0, window=first + window)
        for cell in by_window[window]:
            yield _thinned(cell, rest, draw, role="treated", stage=1, window=first + window)
            yield _thinned(cell, holdback, draw, role="control", stage=1, window=first + window)


def _thinned(
    cell: Cell, share: float, draw: np.random.Generator, *, role: str, stage: int = 0, window: int = -1
) -> Cell:
    """A part of a control's devices, which tell what the others do."""
    at_risk = round(cell.at_risk * share)  # an arm has its devices, however chance splits what they tell
    ratio = at_risk / cell.at_risk if cell.at_risk else 0.0
    counts = {name: min(at_risk, int(draw.binomial(getattr(cell, name), ratio))) for name in _COUNTS[2:]}
    metrics = {}
    for name, told in cell.metrics.items():
        if n := min(at_risk, int(draw.binomial(told.n, ratio))):
            mean, spread = told.sum / told.n, max(0.0, told.sumsq / told.n - (told.sum / told.n) ** 2)
            total = n * float(draw.normal(mean, (spread / n) ** 0.5))
            metrics[name] = Moments(n=n, sum=total, sumsq=total * total / n + spread * n)
    latency = {key: int(part) for key, n in cell.latency.items() if (part := draw.binomial(n, ratio))}
    return msgspec.structs.replace(
        cell,
        stage=stage,
        window=cell.window if window < 0 else window,
        role=role,
        at_risk=at_risk,
        sessions=int(draw.binomial(cell.sessions, ratio)),
        error_share=min(float(counts["error_units"]), float(draw.binomial(round(cell.error_share), ratio))),
        due=int(draw.binomial(cell.due, ratio)),
        overdue=0,
        metrics=metrics,
        latency=latency,
        **counts,
    )
