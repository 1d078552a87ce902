"""Which predictions does a rollout expect? The references that its two versions were signed with."""

from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.gate.guardrails import drift_limits
from whimbrel.gate.ledger import References
from whimbrel.model.documents import parse
from whimbrel.model.release import Reference, Release


def reference_of(registry: RegistryPort, model: str, serial: int) -> Reference | None:
    """The reference of a version; None where it was released without one."""
    return parse(Release, registry.release_bytes(model, serial), what="a stored release").reference


def references_of(registry: RegistryPort, rollout: RolloutRecord) -> References:
    """The expected shares of both arms, where the rollout's plan watches them."""
    if not drift_limits(rollout.plan):
        return References()
    target = reference_of(registry, rollout.model, rollout.target)
    baseline = reference_of(registry, rollout.model, rollout.baseline)
    return References(treated=target.bin_shares if target else None, control=baseline.bin_shares if baseline else None)
