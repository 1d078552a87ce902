"""What do the devices of a small fleet tell of each version, also outside of any rollout? Their past.

1. In a small fleet no device may be left as a control. What a device told while it ran the version before is then the
   best that its new windows can be compared with. Large fleets have a control, so nothing is kept of theirs.
2. A window counts here by the version that the device ran, once, whether or not it counts in a rollout too.
3. Sums by device and week, in the tally, under a name that no rollout has. What is older than five weeks is not read.

Written by `ingest`; read by `rollouts/judge`, where no device can be a control.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection

from whimbrel import limits
from whimbrel.flows.ports import FleetPort, TallyPort
from whimbrel.health.report import Summary, Window
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.measures import SHARES

_DEVICE = "device"  # the label of the slice that is one device
_NAME_CHARS = 64  # of a tally's name, in the database


class PastTally:
    """The windows of one transaction that go into devices' pasts."""

    def __init__(self, fleet: FleetPort, *, now: float) -> None:
        self._fleet = fleet
        self._week = _week(now)
        self._small: dict[str, bool] = {}
        self._cells: dict[str, list[Cell]] = defaultdict(list)

    def add(self, device_id: str, window: Window) -> None:
        """Count a window, where the model's fleet is small."""
        if window.serial is not None and self._is_small(window.model):
            self._cells[past_name(window.model, window.serial)].append(_cell(device_id, window, week=self._week))

    def write(self) -> None:
        """Write what was counted."""
        for name, cells in self._cells.items():
            self._fleet.tally(name, cells)

    def _is_small(self, model: str) -> bool:
        if model not in self._small:
            self._small[model] = self._fleet.is_held_by_at_most(model, devices=limits.SMALL_FLEET)
        return self._small[model]


def past_name(model: str, serial: int) -> str:
    """The name under which the tally keeps what devices told of a version."""
    name = f"past/{serial}/{model}"
    return name if len(name) <= _NAME_CHARS else f"past/{hashlib.sha256(name.encode()).hexdigest()[:48]}"


def past_cells(fleet: TallyPort, model: str, serial: int, *, now: float) -> dict[str, list[Cell]]:
    """What each device told of a version in the last weeks, by device."""
    week = _week(now)
    cells = fleet.cells(past_name(model, serial), before_window=week + 1, from_window=max(0, week - limits.PAST_WEEKS))
    by_device: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_device[cell.slices[_DEVICE]].append(cell)
    return by_device


def of_devices(by_device: dict[str, list[Cell]], devices: Collection[str]) -> list[Cell]:
    """The cells of some devices, in a fixed order."""
    return [cell for device in sorted(by_device.keys() & set(devices)) for cell in by_device[device]]


def _week(now: float) -> int:
    return int(now // limits.PAST_WINDOW_S)


def _cell(device_id: str, window: Window, *, week: int) -> Cell:
    return Cell(
        stage=0,
        window=week,
        role="control",
        slices={_DEVICE: device_id},
        at_risk=1,
        sessions=window.sessions,
        unused=0 if window.used else 1,
        crashed=window.crashed,
        error_units=1 if window.inferences else 0,
        error_share=window.errors / window.inferences if window.inferences else 0.0,
        metrics={name: Moments.of(_mean(told)) for name, told in window.metrics.items() if _is_credible(name, told)},
        latency=window.latency,
    )


def _mean(told: Summary) -> float:
    return told.sum / told.n


def _is_credible(name: str, told: Summary) -> bool:
    """Whether the metric was told, and is no share that no share can be."""
    return told.n > 0 and (name not in SHARES or 0 <= _mean(told) <= 1)
