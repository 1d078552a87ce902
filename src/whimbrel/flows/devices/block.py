"""A device is blocked, and unblocked: while it is blocked it gets no token, and its messages are refused.

1. The device goes on with the model that it has: it decides by public documents, which nobody can be kept from reading.
2. What was acknowledged before the block counts. What comes after it is refused, also with a token that is still good.
3. A blocked device is not missed: its silence says nothing about a version.
4. A block outlasts a new enrolment. Only `unblock` ends it.
"""

from collections.abc import Sequence

import msgspec

from whimbrel.errors import Conflict
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import GovernedPort
from whimbrel.flows.devices.records import AccessState, DeviceAccess, DeviceRecord
from whimbrel.flows.ports import AuditPort


def block_device(
    devices: GovernedPort,
    registry: AuditPort,
    device_id: str,
    *,
    unended: Sequence[str],
    because: str,
    actor: str,
    now: float,
) -> DeviceRecord:
    """Block a device. `unended`: the rollouts and experiments in whose cohorts it is not missed from now on.

    Raises `NotFound`, or `Conflict` where it is blocked already.
    """
    device = devices.device(device_id)
    if device.is_blocked:
        raise Conflict(f"{device_id} is blocked already; see: whimbrel device show {device_id}")
    devices.set_access(_access(device, "blocked", because=because, actor=actor, now=now))
    devices.expect_no_report(device_id, rollouts=unended)
    audit(registry, device=device_id, actor=actor, action="block_device", because=because, now=now)
    return devices.device(device_id)


def unblock_device(
    devices: GovernedPort, registry: AuditPort, device_id: str, *, because: str, actor: str, now: float
) -> DeviceRecord:
    """Let a blocked device speak again. Raises `NotFound`, or `Conflict` where it is not blocked."""
    device = devices.device(device_id)
    if not device.is_blocked:
        raise Conflict(f"{device_id} is not blocked; there is nothing to undo")
    devices.set_access(_access(device, "open", because=because, actor=actor, now=now))
    audit(registry, device=device_id, actor=actor, action="unblock_device", because=because, now=now)
    return devices.device(device_id)


def _access(device: DeviceRecord, state: AccessState, *, because: str, actor: str, now: float) -> DeviceAccess:
    before = device.access or DeviceAccess(device_id=device.device_id, state="open", since=now)
    return msgspec.structs.replace(before, state=state, since=now, because=because, actor=actor)
