"""How often the devices of a model are in use, and how often one crashes, as earlier rollouts told.

From the stored tallies of the newest rollout that saw enough; nothing else of the fleet is kept by time.
"""

import math

from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.gate.power import Usage

_WINDOWS = 2000  # of a rollout, the newest: a week of five minutes
_LEAST = 100  # device-windows, before a rollout is believed
_LOOKED_AT = 5  # rollouts, the newest


def usage_of(registry: RegistryPort, fleet: FleetPort, model: str) -> Usage:
    """The usage in the newest rollout of `model` that saw at least 100 device-windows; else what is assumed."""
    for rollout in reversed([each for each in registry.rollouts(model=model) if each.shares][-_LOOKED_AT:]):
        if (usage := _usage_in(fleet, rollout)) is not None:
            return usage
    return Usage()


def _usage_in(fleet: FleetPort, rollout: RolloutRecord) -> Usage | None:
    cells = fleet.cells(rollout.id, before_window=2**31 - 1)
    # The first cohort: all devices stand in it, on one side or the other, and each once.
    first = [cell for cell in cells if cell.stage == 0]
    last = max((cell.window for cell in first), default=0)
    first = [cell for cell in first if cell.window > last - _WINDOWS]
    at_risk = sum(cell.at_risk for cell in first)
    counts = fleet.counts(rollout.id).get(0)
    devices = counts.reported_t + counts.reported_c if counts else 0
    if at_risk < _LEAST or not devices:
        return None
    windows = last - min(cell.window for cell in first) + 1
    hours = windows * rollout.window_s / rollout.hour_s
    control = [cell for cell in first if cell.role == "control"]
    exposed = sum(cell.at_risk for cell in control)
    rate = sum(cell.crashed for cell in control) / exposed if exposed else 0.0
    accuracy = [cell.metrics["accuracy"] for cell in control if "accuracy" in cell.metrics]
    n, total, squares = (sum(getattr(each, name) for each in accuracy) for name in ("n", "sum", "sumsq"))
    spread = math.sqrt(max(1e-6, (squares - total * total / n) / (n - 1))) if n > 1 else None
    return Usage(
        active_an_hour=at_risk / devices / hours,
        crash_rate=max(rate, 0.5 / exposed) if exposed else Usage().crash_rate,  # half an event where none was seen
        accuracy_sd=spread,
        source=f"as rollout {rollout.id} saw it: {at_risk:,} device-windows of {devices:,} devices in {hours:.1f} h",
    )
