"""Versions that the fleet, or a part of it, refuses: what was harmful, in a rollout or in an experiment.

A version that was taken back is never tried again by itself; only a person's logged word lifts its quarantine.
"""

from whimbrel.flows.ports import QuarantinesPort
from whimbrel.flows.records import QuarantineRecord
from whimbrel.health.slices import slice_of
from whimbrel.model.selector import EVERYONE, Expression, Selector


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


def selector_of(slices: tuple[str, ...], *, hardware: str) -> Selector:
    """The devices of some slices of one label. `hardware`: the model's hardware label."""
    labels_and_values = [slice_of(each) for each in slices]
    label = labels_and_values[0][0] or hardware
    values = tuple(value for _, value in labels_and_values)
    return Selector(match_expressions=(Expression(key=label, operator="In", values=values),))
