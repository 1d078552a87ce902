"""Which versions were taken back, and are forbidden by the policy alone? Each is a draft for the publisher's key.

A draft is no row: it follows from the quarantine of all devices and the signed line. So it ends when the publisher
signs it (`whimbrel version revoke --drafts`), or when a person lifts the quarantine.

Called by the admin API, and by the controller of signatures.
"""

from typing import Protocol

import msgspec

from whimbrel.flows.audit_chain import ChainedEntry
from whimbrel.flows.ports import RegistryPort
from whimbrel.model.release import Line


class DraftRevocation(msgspec.Struct, frozen=True, kw_only=True):
    """A version that should be revoked, and why. `at`: when it was taken back, in POSIX seconds."""

    model: str
    serial: int
    version: str
    semantic_version: str
    because: str
    at: float


class LoggedRegistryPort(RegistryPort, Protocol):
    """The registry, with what was done to a model."""

    def audit_log(self, *, model: str | None = None) -> list[ChainedEntry]: ...


def draft_revocations(registry: LoggedRegistryPort, model: str, *, line: Line) -> list[DraftRevocation]:
    """The versions of a model that every device refuses and that its `line` still allows, by serial.

    A version that was good, and is only passed over on a way back to an older one, is none.
    """
    versions = {version.serial: version for version in registry.versions(model)}
    baseline = registry.model(model).baseline
    passed_over = {
        (serial, entry.at)
        for entry in registry.audit_log(model=model)
        for serial in entry.evidence.get("quarantined", ())
        if serial != entry.evidence.get("leaves", serial)
    }
    newest: dict[int, DraftRevocation] = {}
    for entry in registry.quarantines(model):
        version = versions.get(entry.serial)
        if version is None or (entry.serial, entry.at) in passed_over:
            continue
        if not entry.selector.everyone or not line.allows(entry.serial) or entry.serial == baseline:
            continue
        draft = DraftRevocation(
            model=model,
            serial=entry.serial,
            version=version.version,
            semantic_version=version.semantic_version,
            because=entry.because,
            at=entry.at,
        )
        if entry.serial not in newest or newest[entry.serial].at < entry.at:
            newest[entry.serial] = draft
    return [newest[serial] for serial in sorted(newest)]
