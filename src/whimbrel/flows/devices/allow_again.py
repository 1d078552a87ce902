"""A person allows an enrolled id to come back with another key: its disk was wiped, or its board was replaced.

1. The permission ends by itself, and when it was used once.
2. It may name the key that comes back (`whimbrel agent status` shows it). Else it still takes an enrolment token, and
   the first that comes has the id.
3. Until then the device goes on as it is: if it was not wiped after all, nothing happened to it.
"""

import msgspec

from whimbrel import limits
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import EnrolmentPort
from whimbrel.flows.devices.records import DeviceRecord
from whimbrel.flows.ports import AuditPort


def allow_again(
    enrolments: EnrolmentPort,
    registry: AuditPort,
    device: DeviceRecord,
    *,
    for_s: float = limits.ALLOW_AGAIN_S,
    public_key: str | None = None,
    because: str,
    actor: str,
    now: float,
) -> float:
    """Let a device enrol with another key. Returns until when. `public_key`: with this one alone.

    Raises `Refused` for a device that is blocked, `UntrustedInput` for a span that is too long.
    """
    if device.is_blocked:
        raise Refused(f"{device.device_id} is blocked; unblock it first: whimbrel device unblock {device.device_id}")
    if not 0 < for_s <= limits.ALLOW_AGAIN_MAX_S:
        raise UntrustedInput(f"an id may be allowed back for at most {limits.ALLOW_AGAIN_MAX_S / 86400:g} days")
    known = enrolments.known(device.device_id, lock=True)
    if known is None:
        raise NotFound(f"no device {device.device_id!r} is enrolled; it may enrol as a new one")
    until = now + for_s
    changed = msgspec.structs.replace(known, allowed_again_until=until, allowed_again_key=public_key)
    enrolments.save(changed, labels=None, at=now)
    evidence = {"until": until, "public_key": public_key}
    audit(
        registry,
        device=device.device_id,
        actor=actor,
        action="allow_again",
        because=because,
        now=now,
        evidence=evidence,
    )
    return until
