"""How long do the treated devices of a rollout take? What the policy tells its controls is kept in the rollout's row.

1. It is looked at with every window, and written only when it moved so far that it matters (`delays.differs`): each
   change is a new policy for the whole fleet.
2. A bounded sample: the devices of each stage that began first. They are not chosen by how long they take.
3. A device that failed is left out here; it stays among those assigned.
"""

import msgspec

from whimbrel import limits
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.rollout.delays import Waited, differs, learned, longest_wait_s


def learn_delays(registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, now: float) -> RolloutRecord:
    """The rollout as it is stored now. Raises `Conflict` where somebody moved it meanwhile."""
    waited = [
        Waited((now if activated_at is None else activated_at) - begun_at, activated_at is not None)
        for begun_at, activated_at in fleet.begun(rollout.id, a_stage=limits.DELAY_SAMPLE)
    ]
    table = learned(waited, longest_s=longest_wait_s(rollout.hour_s))
    if not differs(rollout.delays, table, hour_s=rollout.hour_s):
        return rollout
    after = msgspec.structs.replace(rollout, delays=table)
    registry.save_rollout(after, before=rollout)
    return after
