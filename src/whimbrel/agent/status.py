"""`status.json`: what each model runs and why, as the last cycle found it, for people and other processes."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whimbrel.agent.disk import Disk, RealDisk
from whimbrel.agent.installation import Installation
from whimbrel.device.journal import Journal
from whimbrel.device.states import State
from whimbrel.errors import NotFound, Unavailable
from whimbrel.model import documents
from whimbrel.policy.policy import Policy


def model_status(each: Installation, *, policy: Policy | None, trouble: str, problem: str | None) -> dict[str, Any]:
    """One model's. `trouble`: what the last try met; `problem`: what is wrong with its documents."""
    journal, pointer = each.state.journal, each.state.pointer
    candidate = journal.candidate
    return {
        "state": journal.state.value,
        "serial": pointer.serial,
        "version": pointer.active.version if pointer.active else None,
        "wanted": each.decision.serial if each.decision else None,
        "because": each.decision.because if each.decision else "no policy is known yet",
        "candidate": candidate.serial if candidate else None,
        "shadow": _shadow_status(journal),
        "waits_for": each.waits_for or trouble or None,
        "sequence": policy.sequence if policy else None,
        "refused": {str(refusal.serial): refusal.reason for refusal in journal.refused},
        "overridden": {
            str(refusal.serial): refusal.overridden_by for refusal in journal.refused if refusal.overridden_by
        },
        "problem": problem,
    }


def state_words(model: Mapping[str, Any]) -> str:
    """A model's state for people: what is refused is the version that was tried, not the one that runs well."""
    if model["state"] != State.QUARANTINED.value or not model["serial"]:
        return str(model["state"])
    refused = ", ".join(f"serial {serial}" for serial in model["refused"] if serial not in model["overridden"])
    return f"{State.COMMITTED.value}, and refuses {refused or 'the version that it tried'}"


def _shadow_status(journal: Journal) -> dict[str, Any] | None:
    candidate = journal.candidate
    if journal.state is not State.SHADOWING or candidate is None or candidate.shadow is None:
        return None
    return {
        "serial": candidate.serial,
        "sample_percent": candidate.shadow.how.sample_ppm / 10_000,
        "crashes": candidate.shadow.crashes,
    }


class StatusFile:
    """`status.json` of one agent's folder."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._path = folder / "status.json"
        self._disk = disk
        self._written: dict[str, Any] = {}  # by this process

    def write(self, status: dict[str, Any]) -> None:
        """Write what changed: a trial is looked at every few seconds, and flash wears. Best effort."""
        if status != self._written:
            with suppress(OSError):
                self._disk.replace(self._path, documents.encode(status))
                self._written = status


def read_status(folder: Path) -> dict[str, Any]:
    """What the last cycle wrote. Works while an agent runs, and when none does. Raises `NotFound`, `UntrustedInput`."""
    try:
        content = RealDisk().read(folder / "status.json")
    except OSError as error:
        raise Unavailable(f"{folder} cannot be read: {error}") from error
    if content is None:
        if not (folder / "agent.json").exists():
            raise NotFound(f"{folder} is not an agent's folder: it has no agent.json")
        raise NotFound(f"no agent ran in {folder} yet; run `whimbrel agent check --folder {shlex.quote(str(folder))}`")
    return documents.parse(dict[str, Any], content, what=str(folder / "status.json"))
