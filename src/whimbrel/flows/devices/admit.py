"""A person admits a device: it is evidence from then on, however it came in.

A device that a shared token let in after a rollout began may have been invented for its sake, so it moves nothing
(flows/reports/proven.py). A person who knows it says so here.
"""

from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import GovernedPort
from whimbrel.flows.devices.records import DeviceRecord
from whimbrel.flows.ports import AuditPort


def admit_device(
    devices: GovernedPort, registry: AuditPort, device_id: str, *, because: str, actor: str, now: float
) -> DeviceRecord:
    """Make a device count in all rollouts and experiments, from its next window on. Raises `NotFound`."""
    before = devices.device(device_id)
    if before.admission != "person":
        devices.admit(device_id, at=now)
        evidence = {"admission": before.admission, "admitted_at": before.admitted_at}
        audit(
            registry,
            device=device_id,
            actor=actor,
            action="admit_device",
            because=because,
            now=now,
            evidence=evidence,
        )
    return devices.device(device_id)
