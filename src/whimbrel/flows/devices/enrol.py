"""May this id enrol? A blocked one may not; one that was removed may, and is a new device from then on."""

import msgspec

from whimbrel.errors import Refused
from whimbrel.flows.devices.ports import AccessPort


def admit_enrolment(devices: AccessPort, device_id: str, *, now: float) -> None:
    """Raise `Refused` for an id that is blocked; note that a removed one is back."""
    access = devices.access([device_id]).get(device_id)
    if access is None or access.state == "open":
        return
    if access.state == "blocked":
        raise Refused(f"{device_id} is blocked by the operator, and may not enrol until it is unblocked")
    back = msgspec.structs.replace(access, state="open", since=now, because="it enrolled again", actor=device_id)
    devices.set_access(back)
