"""One device's values: what a report adds to the open tally window, and what that changes in the sums of its arm.

1. A device is one device in a tally window (health/device_window.py). Its first report adds a device-window to the
   tally; its further ones change what that said, within the same cell, and never add another.
2. When a tally window is over, its values join those of the device's windows before. A window is told with these: a
   device that says the same again is one device (health/pairs.py).
3. Of a metric that an experiment compares, a device has one value: the mean over its windows, each less the control's
   level. What changed in it is what is tallied (health/panel.py).
"""

from collections.abc import Collection, Mapping

import msgspec

from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.panel import Panel, Value
from whimbrel.health.report import Window
from whimbrel.health.tally import Cell, cell_of, less


class FoldedValues(msgspec.Struct, frozen=True):
    """A device's values over windows that are over, its open window, and what changes in the tally."""

    values: dict[str, Value]
    device_window: DeviceWindow
    cell: Cell


def fold_values(
    past: Mapping[str, Value],
    before: DeviceWindow | None,
    opened: DeviceWindow,
    report: Window,
    *,
    stage: int,
    chance: int,
    tested: Collection[str],
    levels: Mapping[str, float],
    known_means: Mapping[str, float],
) -> FoldedValues | None:
    """Fold one report. None where the device counts already in the other arm of this window.

    `past`, `before`: the device's values, and the newest window in which it was heard. `opened`: the open window, with
    the place in which the device would be counted now, and nothing told yet. `levels`: the control's, by compared
    metric. `known_means`: what the device knows of itself from before the experiment.
    """
    values = dict(past)
    if before is not None and before.window != opened.window:
        values, before = _with_window(values, before, tested=tested), None
    if before is not None and before.role != opened.role:
        return None
    after = (before or opened).plus(report, chance=chance)
    panels: dict[str, Panel] = {}
    if levels:
        means = after.means()
        after = msgspec.structs.replace(
            after, differences={metric: means[metric] - level for metric, level in levels.items() if metric in means}
        )
        for metric, difference in after.differences.items():
            own = values.setdefault(metric, Value(before=known_means.get(metric)))
            old = before.differences.get(metric) if before is not None else None
            panels[metric] = own.change(old=old, new=difference)
    cell = cell_of(after, stage=stage, tested=tested, past=values)
    if before is not None:
        cell = less(cell, cell_of(before, stage=stage, tested=tested, past=values))
    if report.shadow is not None and cell.shadow is not None:
        units = msgspec.structs.replace(cell.shadow, active=report.shadow.active, candidate=report.shadow.candidate)
        cell = msgspec.structs.replace(cell, shadow=units)
    return FoldedValues(values, after, msgspec.structs.replace(cell, panels=panels) if panels else cell)


def _with_window(values: dict[str, Value], told: DeviceWindow, *, tested: Collection[str]) -> dict[str, Value]:
    """The values with a window that is over. Of compared metrics it is the difference that counts."""
    for name, value in (told.values(tested) | told.differences).items():
        values[name] = values.get(name, Value()).plus(value)
    return values
