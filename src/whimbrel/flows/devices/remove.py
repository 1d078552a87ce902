"""A device is removed: it is gone from the inventory, and what it told counts no more from then on.

1. It leaves the cohorts of every rollout and experiment that has not ended: it is counted nowhere, and not missed.
2. Its credential and its tokens are over. Its id may enrol again, and is then a new device.
3. What stays: the sums that its reports were added to (a sum names nobody), its place in rollouts that have ended, its
   tickets, its sequence marks (so that no window counts twice, should it come back), and the audit log.
"""

from collections.abc import Sequence

from whimbrel.errors import Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import GovernedPort
from whimbrel.flows.devices.records import DeviceAccess
from whimbrel.flows.ports import AuditPort


def remove_device(
    devices: GovernedPort,
    registry: AuditPort,
    device_id: str,
    *,
    unended: Sequence[str],
    because: str,
    actor: str,
    now: float,
) -> int:
    """Remove a device. `unended`: rollouts and experiments that it leaves. Returns how many cohorts it was in.

    Raises `NotFound`, or `Refused` where it is blocked.
    """
    device = devices.device(device_id)
    if device.is_blocked:
        raise Refused(
            f"{device_id} is blocked, and once it is removed its id may enrol again; "
            f"leave it blocked, or unblock it first: whimbrel device unblock {device_id}"
        )
    left = devices.remove(device_id, rollouts=unended)
    devices.set_access(
        DeviceAccess(device_id=device_id, state="removed", since=now, not_before=now, because=because, actor=actor)
    )
    evidence = {"cohorts": left, "labels": device.labels, "operator_labels": device.operator_labels}
    audit(registry, device=device_id, actor=actor, action="remove_device", because=because, now=now, evidence=evidence)
    return left
