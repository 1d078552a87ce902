"""The status: what each model runs and why, for people and other processes. A cycle writes `status.json`; whoever reads
it gets what sessions open now, also where they left a version since then (open_now.py).
"""

import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from whimbrel.agent.disk import Disk, RealDisk
from whimbrel.agent.installation import Installation
from whimbrel.agent.open_now import open_now
from whimbrel.agent.places import Places
from whimbrel.agent.progress import DownloadProgress, sentence
from whimbrel.device.journal import Journal
from whimbrel.device.states import State
from whimbrel.errors import NotFound, Unavailable, UntrustedInput, reason_of
from whimbrel.model import documents
from whimbrel.policy.policy import Policy


def model_status(
    each: Installation, *, policy: Policy | None, trouble: str, problem: str | None, progress: DownloadProgress | None
) -> dict[str, Any]:
    """One model's. `trouble`: what the last try met; `problem`: what is wrong with its documents; `progress`: of its
    last download.
    """
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
        "download": _download_status(journal, progress),
        "waits_for": each.waits_for or trouble or None,
        "recheck": _recheck_status(each),
        "sealed": _sealed_status(each),
        "went_back": None,
        "stays": each.leaving.kept_because or None,
        "sequence": policy.sequence if policy else None,
        "refused": {str(refusal.serial): refusal.reason for refusal in journal.refused},
        "overridden": {
            str(refusal.serial): refusal.overridden_by for refusal in journal.refused if refusal.overridden_by
        },
        "problem": problem,
    }


def _sealed_status(each: Installation) -> str | None:
    """How the active version is kept, where it travelled sealed: "opened", or "at rest" (opened in memory alone)."""
    active = each.state.pointer.active
    if active is None or not active.sealed:
        return None
    return "at rest" if active.is_sealed_at_rest else "opened"


def _recheck_status(each: Installation) -> dict[str, Any] | None:
    active = each.state.pointer.active
    last = each.rechecks.last_of(active) if active is not None else None
    return {"at": last.at, "passed": last.passed, "reason": last.reason} if last is not None else None


def _shadow_status(journal: Journal) -> dict[str, Any] | None:
    candidate = journal.candidate
    if journal.state is not State.SHADOWING or candidate is None or candidate.shadow is None:
        return None
    return {
        "serial": candidate.serial,
        "sample_percent": candidate.shadow.how.sample_ppm / 10_000,
        "crashes": candidate.shadow.crashes,
    }


def _download_status(journal: Journal, progress: DownloadProgress | None) -> dict[str, Any] | None:
    candidate = journal.candidate
    if journal.state is not State.DOWNLOADING or candidate is None or progress is None:
        return None
    return (
        msgspec.to_builtins(progress) | {"sentence": sentence(progress)}
        if progress.serial == candidate.serial
        else None
    )


class StatusFile:
    """`status.json` of one agent's folder."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self._path = folder / "status.json"
        self._disk = disk
        self._written: dict[str, Any] = {}  # by this process

    def begin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Write it where there is none yet: the first cycle of a folder may take long."""
        if not self._written and self._disk.size(self._path) is None:
            self.write(status())

    def write(self, status: dict[str, Any]) -> None:
        """Write what changed: a trial is looked at every few seconds, and flash wears. Best effort."""
        if status != self._written:
            with suppress(OSError):
                self._disk.replace(self._path, documents.encode(status))
                self._written = status


_DOING = {  # state -> what is done with the candidate
    State.OFFERED: "waits to fetch",
    State.DOWNLOADING: "fetches",
    State.VERIFYING: "checks",
    State.STAGED: "tries",
    State.PROBING: "tries",
    State.READY: "is ready to change to",
    State.SHADOWING: "tries beside it",
}


def state_words(status: Mapping[str, Any]) -> str:
    """What a model's status says of its state, for people: "on trial", "fetches serial 3", "committed, and refuses
    serial 3": what is refused is the version that was tried, not the one that runs well.
    """
    state = State(status["state"])
    if state in _DOING:
        return f"{_DOING[state]} serial {status['candidate']}"
    if state is State.QUARANTINED and status["serial"]:
        refused = ", ".join(f"serial {serial}" for serial in status["refused"] if serial not in status["overridden"])
        return f"{State.COMMITTED.value}, and refuses {refused or 'the version that it tried'}"
    return "nothing under way" if state is State.IDLE else state.value


def waits_for_words(status: Mapping[str, Any]) -> str:
    """What a model waits for, or how far its download is; "" where it waits for nothing."""
    download = status.get("download")
    if download and not status["waits_for"]:
        return str(download["sentence"])
    return status["waits_for"] or status["problem"] or ""


def status_sentence(status: Mapping[str, Any]) -> str:
    """One model's status in a line."""
    words = f"runs {status['version'] or 'nothing yet'}, {state_words(status)} ({status['because']})"
    waits, own = status["waits_for"], own_words(status)
    words = f"{words}; waits for {waits}" if waits else words
    return f"{words}; {own}" if own else words


def own_words(status: Mapping[str, Any]) -> str:
    """What the device decided by itself: why it left a version, or why it stays on one; "" for nothing."""
    if went_back := status.get("went_back"):
        return f"went back from serial {went_back['from']} by itself: {went_back['reason']}; told at the next cycle"
    return status.get("stays") or ""


def read_status(folder: Path, *, disk: Disk = RealDisk()) -> dict[str, Any]:
    """What the last cycle wrote, and what sessions open since then. Works while an agent runs, and when none does.

    Raises `NotFound`, `UntrustedInput`, `Unavailable`.
    """
    try:
        content = disk.read(folder / "status.json")
    except OSError as error:
        raise Unavailable(f"{folder} cannot be read: {reason_of(error)}") from error
    if content is None:
        if not (folder / "agent.json").exists():
            raise NotFound(f"{folder} is not an agent's folder: it has no agent.json")
        raise NotFound(f"no agent ran in {folder} yet; run `whimbrel agent check --folder {shlex.quote(str(folder))}`")
    status = documents.parse(dict[str, Any], content, what=str(folder / "status.json"))
    for model, each in status.get("models", {}).items():
        with suppress(OSError, UntrustedInput):  # another user may read the status alone
            each.update(open_now(Places(folder / "models" / model, disk=disk), model, each))
    return status
