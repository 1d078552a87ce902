"""May this id enrol? A blocked one may not; one that was removed may, and is a new device from then on."""

import msgspec

from whimbrel.errors import Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import AccessPort
from whimbrel.flows.ports import AuditPort


def admit_enrolment(devices: AccessPort, device_id: str, *, now: float) -> None:
    """Raise `Refused` for an id that is blocked; note that a removed one is back."""
    access = devices.access([device_id]).get(device_id)
    if access is None or access.state == "open":
        return
    if access.state == "blocked":
        raise Refused(f"{device_id} is blocked by the operator, and may not enrol until it is unblocked")
    back = msgspec.structs.replace(access, state="open", since=now, because="it enrolled again", actor=device_id)
    devices.set_access(back)


def audit_enrolment(registry: AuditPort, device_id: str, *, token: str, now: float) -> None:
    """Note that a device enrolled, or enrolled again. `token`: the name of its enrolment token."""
    audit(
        registry,
        device=device_id,
        actor=device_id,
        action="enrol_device",
        because=f"with the enrolment token {token!r}",
        now=now,
        evidence={"token": token},
    )
