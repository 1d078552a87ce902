"""What do the devices of a small fleet tell of each version, also outside of any rollout? Their past.

1. In a small fleet no device may be left as a control. What a device told while it ran the version before is then the
   best that its new windows can be compared with. Large fleets have a control, so nothing is kept of theirs.
2. A window counts here by the version that the device ran, once, whether or not it counts in a rollout too. What a
   device tells at once, after it was out of reach, is one device-window, as it is in a rollout.
3. Sums by device and week, in the tally, under a name that no rollout has. What is older than five weeks is not read.

Written by `ingest`; read by `rollouts/judge`, where no device can be a control.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection

import msgspec

from whimbrel import limits
from whimbrel.flows.ports import FleetPort, TallyPort
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.report import Summary, Window
from whimbrel.health.tally import Cell, cell_of
from whimbrel.plan.measures import SHARES

_DEVICE = "device"  # the label of the slice that is one device
_NAME_CHARS = 64  # of a tally's name, in the database


class PastTally:
    """The windows of one transaction that go into devices' pasts."""

    def __init__(self, fleet: FleetPort, *, now: float) -> None:
        self._fleet = fleet
        self._week = _week(now)
        self._small: dict[str, bool] = {}
        self._told: dict[str, dict[str, DeviceWindow]] = defaultdict(dict)

    def add(self, device_id: str, window: Window, *, chance: int) -> None:
        """Count a window, where the model's fleet is small. `chance` draws the session that stands for its latency."""
        if window.serial is None or not self._is_small(window.model):
            return
        told = self._told[past_name(window.model, window.serial)]
        nothing = DeviceWindow(window=self._week, role="control", slices={_DEVICE: device_id})
        metrics = {name: told for name, told in window.metrics.items() if _is_credible(name, told)}
        report = msgspec.structs.replace(window, metrics=metrics, predictions={}, shadow=None)
        told[device_id] = told.get(device_id, nothing).plus(report, chance=chance)

    def write(self) -> None:
        """Write what was counted."""
        for name, told in self._told.items():
            self._fleet.tally(name, [cell_of(each, stage=0) for each in told.values()])

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


def _is_credible(name: str, told: Summary) -> bool:
    """Whether the metric was told, and is no share that no share can be."""
    return told.n > 0 and (name not in SHARES or 0 <= told.sum / told.n <= 1)
