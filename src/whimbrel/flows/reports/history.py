"""What is known of a model's fleet: what its devices told in its rollouts, as sums and shares.

1. Only controls of the newest rollouts count, so that what is told is the life of a good version.
2. Nothing is smoothed or guessed here; a forecast that needs a number which is not known takes its own default, and
   says so.
3. Delays are from a device's assignment to its activation, in rollouts that had a day at least to be heard of.

Called by the admin API for forecasts.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord, VersionRecord
from whimbrel.health.report import WayName
from whimbrel.health.sketch import GAMMA, quantile_key
from whimbrel.health.tally import Cell
from whimbrel.model.documents import Document
from whimbrel.model.release import Release
from whimbrel.model.ways import NOTHING, Step, ways

_DELAY_GROUPS = 4
_LEAST_DELAYS = 20  # fewer devices tell no habit


class Running(Document, frozen=True):
    """Devices on one version, and what they would fetch to reach the version that was asked about."""

    version: str | None  # None: none yet
    serial: int | None
    devices: int
    way: WayName | None = None
    size_bytes: int | None = None


class Delays(Document, frozen=True):
    """How long devices took from their assignment to the version: mean hours of the fastest quarter, the next, ..."""

    mean_h: tuple[float, ...] = ()
    never: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share that was assigned and did not activate
    devices: int = 0


class History(Document, frozen=True):
    """Sums over the control devices of the newest rollouts. `active`: device-windows in which the model ran."""

    model: str
    devices: int
    running: tuple[Running, ...] = ()
    hardware: dict[str, int] = {}
    rollouts: int = 0
    at_risk: int = 0
    active: int = 0
    crashed: int = 0
    errors: float = 0.0
    at_risk_by_hour: tuple[int, ...] = (0,) * 24
    active_by_hour: tuple[int, ...] = (0,) * 24
    labelled: int = 0
    right: float = 0.0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    due: int = 0
    overdue: int = 0
    tried: int = 0  # installs
    failed: int = 0
    window_s: float = 300.0  # of the newest rollout
    refresh_s: float = 300.0
    delays: Delays = Delays()


def history_of(
    registry: RegistryPort,
    fleet: FleetPort,
    model: str,
    *,
    running: Sequence[Running],
) -> History:
    """The history of `model`. `running`: its inventory, as `inventory_of` finds it."""
    record = registry.model(model)
    rollouts = [each for each in registry.rollouts(model=model) if each.hour_s == 3600.0][-limits.HISTORY_ROLLOUTS :]
    sums = _Sums()
    tried = failed = 0
    for rollout in rollouts:
        for cell in fleet.cells(rollout.id, before_window=limits.HISTORY_WINDOWS):
            if cell.role == "control":
                sums.add(cell, rollout)
        for counts in fleet.counts(rollout.id).values():
            tried += counts.activated_t + counts.failed_t
            failed += counts.failed_t
    p50, p99 = (quantile_key(sums.latency, p) for p in (0.5, 0.99))
    return History(
        model=model,
        devices=fleet.count_devices(model),
        running=tuple(running),
        hardware=fleet.classes(model),
        rollouts=len(rollouts),
        at_risk=sum(sums.at_risk),
        active=sum(sums.active),
        crashed=sums.crashed,
        errors=sums.errors,
        at_risk_by_hour=tuple(sums.at_risk),
        active_by_hour=tuple(sums.active),
        labelled=sums.labelled,
        right=sums.right,
        latency_p50_ms=None if p50 is None else GAMMA**p50,
        latency_p99_ms=None if p99 is None else GAMMA**p99,
        due=sums.due,
        overdue=sums.overdue,
        tried=tried,
        failed=failed,
        window_s=rollouts[-1].window_s if rollouts else 300.0,
        refresh_s=min(record.settings.refresh_s, record.settings.rollout_refresh_s),  # as while something rolls out
        delays=_delays([each for rollout in rollouts for each in fleet.delays(rollout.id, least_s=86400.0)]),
    )


class _Sums:
    def __init__(self) -> None:
        self.at_risk, self.active = [0] * 24, [0] * 24
        self.crashed = self.labelled = self.due = self.overdue = 0
        self.errors = self.right = 0.0
        self.latency: dict[int, int] = defaultdict(int)

    def add(self, cell: Cell, rollout: RolloutRecord) -> None:
        hour = int((rollout.created_at + (cell.window + 0.5) * rollout.window_s) // 3600) % 24
        self.at_risk[hour] += cell.at_risk
        self.active[hour] += cell.error_units
        self.crashed += cell.crashed
        self.errors += cell.error_share
        self.due += cell.due - cell.due_again
        self.overdue += cell.overdue - cell.overdue_again
        if accuracy := cell.metrics.get("accuracy"):
            self.labelled += accuracy.n
            self.right += accuracy.sum
        for key, count in cell.latency.items():
            self.latency[key] += count


def _delays(seconds: Sequence[float | None]) -> Delays:
    activated = sorted(each for each in seconds if each is not None)
    if len(activated) < _LEAST_DELAYS:
        return Delays(devices=len(seconds))
    edges = [round(n * len(activated) / _DELAY_GROUPS) for n in range(_DELAY_GROUPS + 1)]
    groups = [activated[low:high] for low, high in itertools.pairwise(edges)]
    return Delays(
        mean_h=tuple(sum(group) / len(group) / 3600 for group in groups),
        never=1 - len(activated) / len(seconds),
        devices=len(seconds),
    )


def inventory_of(
    inventory: dict[int | None, int],
    versions: Sequence[VersionRecord],
    *,
    releases: dict[int, Release],
    steps: Sequence[Step],
    target: int | None,
) -> list[Running]:
    """Devices by version, the most frequent first; with the way and bytes to `target`, by the rule of devices."""
    names = {version.serial: version.version for version in versions}
    rows = []
    for serial, devices in sorted(inventory.items(), key=lambda item: (-item[1], item[0] or 0)):
        if not devices or serial == target:
            continue
        way, size = (None, None) if target is None else _way(releases[target], releases.get(serial or 0), steps)
        rows.append(Running(version=names.get(serial or 0), serial=serial, devices=devices, way=way, size_bytes=size))
    return rows


def _way(target: Release, base: Release | None, steps: Sequence[Step]) -> tuple[WayName, int]:
    """Of the largest variant's files, the cheapest ways; the dearest of them names the whole."""
    variant = max(target.variants, key=lambda each: each.size_bytes)
    here = base.digests if base is not None else ()
    names: list[WayName] = ["delta"]
    total = 0
    for file in variant.files:
        if file.sha256 in here:
            continue
        cheapest = ways(steps, target=file.sha256, size_bytes=file.size_bytes, here=here)
        total += cheapest[0].size_bytes if cheapest else file.artifact_bytes
        if not cheapest:
            names.append("whole")
        elif cheapest[0].steps[0].base == NOTHING:
            names.append("compressed")
        elif len(cheapest[0].steps) > 1:
            names.append("chain")
    order: tuple[WayName, ...] = ("delta", "chain", "compressed", "whole")
    return max(names, key=order.index), total
