"""Which version apps open has changed: whoever asked for it hears of it, after the swap.

1. What is told is the difference between what was told last (`told.json`) and the pointers. So a swap that was made
   while nobody listened, or by a process that ended at once, is told by the next one that listens.
2. It is written down before it is told: a hook that starts its own process anew is not called again.
3. A hook is in nobody's way: the swap is over, no lock of it is held, and what the hook raises is logged.
4. The first time a folder is opened with a hook, the version that is active already is no change.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from whimbrel.agent.disk import Disk
from whimbrel.agent.model_state import ModelState
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.model.ids import Name, Serial

log = logging.getLogger(__name__)

ChangeKind = Literal["activated", "went_back"]


class VersionChange(msgspec.Struct, frozen=True, kw_only=True):
    """Another version of `model` is active: `activated` is newer than the one before, `went_back` is older or none.

    `serial`, `version` and `path` (its file, or its folder where it is one) are None where no version is active any
    more; `serial_before` and `version_before` where none was.
    """

    kind: ChangeKind
    model: str
    serial: int | None
    version: str | None
    path: Path | None
    serial_before: int | None
    version_before: str | None


class _Version(Document, frozen=True):
    serial: Serial
    version: str


class _Told(Document, frozen=True, tag_field="format", tag="whimbrel-told-1"):
    models: dict[Name, _Version | None] = {}


class Changes:
    """The changes of one agent's models. Without a `hook` nothing is looked at, and nothing is written."""

    def __init__(self, path: Path, *, disk: Disk, hook: Callable[[VersionChange], object] | None) -> None:
        self._path = path
        self._disk = disk
        self._hook = hook
        self._told: dict[Name, _Version | None] | None = None

    def look(self, states: Iterable[ModelState]) -> None:
        """Tell of what changed since the last time."""
        if self._hook is None:
            return
        if self._told is None:
            self._told = self._read()
        for state in states:
            active = state.pointer.active
            now = _Version(serial=active.serial, version=active.version) if active is not None else None
            before = self._told.get(state.model)
            is_known = state.model in self._told
            if is_known and now == before:
                continue
            self._told[state.model] = now
            with suppress(OSError):  # a full disk: this process still remembers what it told
                self._disk.write(self._path, documents.encode(_Told(models=self._told)))
            if is_known:
                self._tell(self._hook, _change(state, before, now))

    def _tell(self, hook: Callable[[VersionChange], object], change: VersionChange) -> None:
        try:
            hook(change)
        except Exception:
            log.exception("the hook on_change failed for %s; the version is active all the same", change.model)

    def _read(self) -> dict[Name, _Version | None]:
        try:
            content = self._disk.read(self._path)
            return dict(documents.parse(_Told, content, what=str(self._path)).models) if content else {}
        except (OSError, UntrustedInput):
            return {}


def _change(state: ModelState, before: _Version | None, now: _Version | None) -> VersionChange:
    is_newer = now is not None and (before is None or now.serial > before.serial)
    active = state.pointer.active
    return VersionChange(
        kind="activated" if is_newer else "went_back",
        model=state.model,
        serial=now.serial if now else None,
        version=now.version if now else None,
        path=state.places.entry(active) if active and not active.is_sealed_at_rest else None,
        serial_before=before.serial if before else None,
        version_before=before.version if before else None,
    )
