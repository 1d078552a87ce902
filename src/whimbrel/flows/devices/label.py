"""People give a device labels of their own, to find it by: an owner, a site, a batch.

They are kept apart from the labels that the device tells, and no policy sees them: a device decides by its own labels,
which need never leave it, so a label that only the server knows could not move it.
"""

from collections.abc import Collection, Mapping

from whimbrel import limits
from whimbrel.errors import Conflict, NotFound, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.ports import GovernedPort
from whimbrel.flows.devices.records import DeviceRecord
from whimbrel.flows.ports import AuditPort


def label_device(
    devices: GovernedPort,
    registry: AuditPort,
    device_id: str,
    *,
    labels: Mapping[str, str],
    without: Collection[str],
    because: str,
    actor: str,
    now: float,
) -> DeviceRecord:
    """Set the operator's labels `labels`, and take away those named `without`.

    Raises `NotFound` for no such device or label, `Conflict` for a label that the device tells itself, `Refused` for
    more labels than a device may have.
    """
    device = devices.device(device_id)
    before = device.operator_labels
    for key in sorted(labels):
        if key in device.labels:
            raise Conflict(
                f"{device_id} tells {key}={device.labels[key]} itself, and filters go by that; choose another name"
            )
    for key in sorted(without):
        if key not in before:
            names = ", ".join(sorted(before)) or "none"
            raise NotFound(f"{device_id} has no label {key!r} of an operator; it has: {names}")
    after = {key: value for key, value in before.items() if key not in without} | dict(labels)
    if len(after) > limits.LABELS:
        raise Refused(f"{device_id} would have {len(after)} labels of operators; at most {limits.LABELS} are kept")
    if after != before:
        devices.set_operator_labels(device_id, after)
        audit(
            registry,
            device=device_id,
            actor=actor,
            action="label_device",
            because=because,
            now=now,
            evidence={"before": before, "after": after},
        )
    return devices.device(device_id)
