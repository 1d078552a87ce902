"""Does the active version still answer as its publisher says? Its signed probe runs again while the device is idle.

1. It runs in the same cage as before an activation: weekly, unless the signed limits say otherwise; only at rest, where
   the device is known to be idle and on a charger (a machine without a battery counts as on one).
2. That it was begun is durable first: a device that dies of it tries again when the time is over, not at every start.
3. A fall is told as the metric `recheck_failed` (0 or 1) of a window, and `recheck_accuracy`; its reason is in the
   status. The device goes back only where the signed limits say `on_failed_probe: go_back`. A build that has become too
   slow or too large is told in the status only: this device may be busy with something else.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.agent.device_context import DeviceContext
from whimbrel.agent.marks import Closed, Ended
from whimbrel.agent.model_state import ModelState
from whimbrel.agent.open_in_memory import opened_slot
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.device.slots import Held, SlotName
from whimbrel.device.states import RESTING
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.health.report import Summary
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Serial
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.release import Release, Variant


class Recheck(Document, frozen=True, tag_field="format", tag="whimbrel-recheck-1"):
    """The last run of one version. `at`: when it was begun; or when the version was first at rest (`passed` None)."""

    serial: Serial
    slot: SlotName
    at: float
    passed: bool | None = None
    is_wrong: bool = False  # it answered wrong, and was not only too slow or too large
    reason: Annotated[str, Meta(max_length=limits.REASON_CHARS)] = ""


class Rechecks:
    """Of one model."""

    def __init__(self, state: ModelState, device: DeviceContext) -> None:
        self._state = state
        self._device = device
        self._place = state.places.recheck

    def run_when_due(self, local: LocalLimits) -> None:
        """Run the probe, where its time is over and the device is idle."""
        active, now = self._state.pointer.active, self._device.now()
        if active is None or self._state.journal.state not in RESTING or self._device.network.offline:
            return
        last = self.last_of(active)
        if last is None or last.at > now:  # a version that is new at rest, or a clock that was set back
            self._keep(Recheck(serial=active.serial, slot=active.slot, at=now))
            return
        every_s = limits.RECHECK_S if local.probe_every_s is None else local.probe_every_s
        if now < last.at + every_s or not self._is_idle():
            return
        variant = _variant_of(active, self._device.trust.kept_release(self._state.model, active.serial))
        begun = Recheck(serial=active.serial, slot=active.slot, at=now)
        self._keep(begun, durably=True)
        if variant is None or variant.probe is None or not (variant.probe.inputs or variant.probe.validation):
            return
        try:
            result = self._probe(active, variant)
        except (Unavailable, Refused, UntrustedInput):
            return  # no probe can be made here, or the version cannot be opened now
        reason = result.reason[: limits.REASON_CHARS]
        is_wrong = not result.passed and not result.over_budget
        self._keep(msgspec.structs.replace(begun, passed=result.passed, is_wrong=is_wrong, reason=reason))
        self._tell(active, result, is_wrong=is_wrong)

    def reason_to_leave(self, local: LocalLimits) -> str:
        """Why the version is left for its last run; "" while it is not."""
        active = self._state.pointer.active
        last = self.last_of(active) if active is not None and local.on_failed_probe == "go_back" else None
        return f"its signed probe failed when it ran again: {last.reason}" if last is not None and last.is_wrong else ""

    def last_of(self, held: Held) -> Recheck | None:
        """The last run of this version in this slot."""
        content = self._device.disk.read(self._place)
        try:
            last = documents.parse(Recheck, content, what=str(self._place)) if content else None
        except UntrustedInput:
            return None
        return last if last is not None and (last.serial, last.slot) == (held.serial, held.slot) else None

    def _is_idle(self) -> bool:
        situation = self._device.situation()
        return situation.idle is True and situation.charging is True

    def _probe(self, held: Held, variant: Variant) -> ProbeResult:
        with opened_slot(
            self._state.places, held, lambda: self._device.release_keys.get(self._state.model, held.serial)
        ) as folder:
            request = ProbeRequest(
                path=str(folder / held.entry),
                format=variant.files[0].format,
                signature=variant.signature,
                probe=variant.probe,
                size_bytes=variant.size_bytes,
                folder=str(folder),
            )
            return self._device.prober.probe(request)

    def _tell(self, held: Held, result: ProbeResult, *, is_wrong: bool) -> None:
        if not self._device.api.known:
            return
        metrics = {"recheck_failed": Summary.of(float(is_wrong))}
        if result.accuracy is not None:
            metrics["recheck_accuracy"] = Summary.of(result.accuracy)
        closed = Closed(serial=held.serial, session=False, metrics=metrics)
        self._device.spool.add(self._state.model, [Ended("recheck", held.serial, closed)], names=[])

    def _keep(self, recheck: Recheck, *, durably: bool = False) -> None:
        write = self._device.disk.write if durably else self._device.disk.replace
        write(self._place, documents.encode(recheck))


def _variant_of(held: Held, release: Release | None) -> Variant | None:
    """The build that a slot holds: that with the same files."""
    files = {each.name: None if each.folder else each.file_sha256 for each in held.contents}
    variants = release.variants if release is not None else ()
    return next(
        (
            variant
            for variant in variants
            if {file.name: None if file.packed else file.sha256 for file in variant.files} == files
        ),
        None,
    )
