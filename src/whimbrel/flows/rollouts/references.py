"""Which predictions a rollout expects: the references that its two versions were signed with."""

from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.versions import reference_of
from whimbrel.gate.guardrails import drift_limits
from whimbrel.gate.ledger import References


def references_of(registry: RegistryPort, rollout: RolloutRecord) -> References:
    """The expected shares of both arms, where the rollout's plan watches them."""
    if not drift_limits(rollout.plan):
        return References()
    target = reference_of(registry, rollout.model, rollout.target)
    baseline = reference_of(registry, rollout.model, rollout.baseline)
    return References(treated=target.bin_shares if target else None, control=baseline.bin_shares if baseline else None)
