"""Which builds of a rollout's version run, in which hardware classes, and within which budgets?

Devices tell the build that they chose. The budgets are those that the release gives it, which its probe keeps or not.

Called by the admin API, where a rollout is asked for alone.
"""

import msgspec

from whimbrel.flows.ports import FleetPort, ModelsPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.version_fit import release_of


class BuildRunning(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices of a hardware class run a build, and its budgets; None where the release has none."""

    hardware_class: str
    variant: str
    devices: int
    latency_ms_max: float | None
    memory_mib_max: int | None


def builds_running(registry: ModelsPort, fleet: FleetPort, rollout: RolloutRecord) -> list[BuildRunning]:
    """The builds of the rollout's target by hardware class; none where the version has one build for all."""
    variants = release_of(registry, rollout.model, rollout.target).variants
    if len(variants) < 2:
        return []
    probes = {variant.name: variant.probe for variant in variants}
    running = fleet.variants_running(rollout.model, rollout.target)
    return [
        BuildRunning(
            hardware_class=hardware_class,
            variant=name,
            devices=devices,
            latency_ms_max=probe.latency_ms_max if (probe := probes.get(name)) is not None else None,
            memory_mib_max=probe.memory_mib_max if probe is not None else None,
        )
        for (hardware_class, name), devices in sorted(running.items())
    ]
