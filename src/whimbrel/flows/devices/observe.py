"""What the messages of devices say besides what is counted: waits, builds, and signs of a second installation.

1. A message of a device that is blocked or removed is left out, where it was not acknowledged before.
2. What is noted is written once a round (`write`), after the windows were counted.

Called by `ingest`, for the messages of one transaction.
"""

from collections.abc import Iterable, Mapping

from whimbrel.flows.audit import audit
from whimbrel.flows.device_records import DeviceMessage, SequenceMark
from whimbrel.flows.devices.duplicates import sign_of_duplicate, with_sign
from whimbrel.flows.devices.ports import ObservedPort
from whimbrel.flows.devices.records import BuildOnDevice, DeviceAccess, Waiting
from whimbrel.flows.ports import AuditPort
from whimbrel.health.report import Batch


def admitted(port: ObservedPort, records: Iterable[DeviceMessage]) -> tuple[DeviceMessage, ...]:
    """The messages that count: without those of removed devices, and of blocked ones from after their block."""
    records = tuple(records)
    access = port.access(sorted({record.device_id for record in records}))
    return tuple(record for record in records if _counts(access.get(record.device_id), record)) if access else records


def _counts(access: DeviceAccess | None, record: DeviceMessage) -> bool:
    if access is None or access.state == "open":
        return access is None or record.at >= access.not_before
    return access.state == "blocked" and record.at <= access.since


class Observations:
    """What the batches of one transaction say of their devices."""

    def __init__(self, port: ObservedPort, registry: AuditPort) -> None:
        self._port, self._registry = port, registry
        self._waiting: dict[tuple[str, str], Waiting] = {}
        self._builds: dict[tuple[str, str], BuildOnDevice] = {}
        self._signs: list[tuple[str, str, float]] = []  # device, sentence, when

    def see(self, device_id: str, batch: Batch, marks: Mapping[str, SequenceMark], *, at: float) -> None:
        """Look at one batch. `marks`: those of the device before the batch is counted, by epoch."""
        for model, waits_for in batch.waiting.items():
            self._waiting[device_id, model] = Waiting(device_id=device_id, model=model, waits_for=waits_for, at=at)
        for model, build in batch.builds.items():
            self._builds[device_id, model] = BuildOnDevice(device_id=device_id, model=model, build=build)
        because = sign_of_duplicate(marks, batch)
        if because:
            self._signs.append((device_id, because, at))

    def write(self) -> None:
        """Write down what was noted. People are told of a duplicate by the audit log, once."""
        self._port.note_waiting(*self._waiting.values())
        self._port.note_builds(*self._builds.values())
        for device_id, because, at in self._signs:
            after = with_sign(self._port.duplicate(device_id), device_id, because, at=at)
            self._port.save_duplicate(after)
            if after.noticed_at == at:
                audit(
                    self._registry,
                    device=device_id,
                    actor="tally",
                    action="notice_duplicate",
                    because=f"two installations report as {device_id}: {because}",
                    now=at,
                    evidence={"signs": after.signs, "first_at": after.first_at},
                )
