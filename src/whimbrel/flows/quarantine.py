"""Versions that the fleet, or a part of it, refuses: what was harmful, in a rollout or in an experiment.

A version that was taken back is never tried again by itself; only a person's logged word lifts its quarantine.
"""

from whimbrel.flows.ports import QuarantinesPort
from whimbrel.flows.records import QuarantineRecord
from whimbrel.model.selector import EVERYONE, Selector


def quarantine(
    registry: QuarantinesPort,
    model: str,
    serial: int,
    *,
    because: str,
    now: float,
    selector: Selector = EVERYONE,
) -> None:
    """Let the devices of `selector` refuse a version of a model."""
    registry.quarantine(
        QuarantineRecord(
            namespace=registry.namespace,
            model=model,
            serial=serial,
            at=now,
            because=because,
            selector=selector,
        )
    )


def refused_serials(registry: QuarantinesPort, model: str) -> dict[int, str]:
    """The versions that every device refuses, and why."""
    return {entry.serial: entry.because for entry in registry.quarantines(model) if entry.selector.everyone}
