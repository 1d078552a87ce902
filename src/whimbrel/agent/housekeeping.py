"""Removes what nobody needs any more from the agent's folder: documents, downloads, and what a power cut left over."""

from collections.abc import Mapping
from pathlib import Path

from whimbrel import durable
from whimbrel.agent.disk import Disk, RealDisk
from whimbrel.agent.download import Download
from whimbrel.agent.installation import Installation
from whimbrel.agent.open_in_memory import remove_left_open
from whimbrel.agent.release_keys import ReleaseKeys
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.states import PREPARING


class Housekeeping:
    """Called at the end of a pass, when all models are as they will be."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        trust: TrustClient,
        download: Download,
        release_keys: ReleaseKeys,
        installations: Mapping[str, Installation],
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._trust = trust
        self._download = download
        self._release_keys = release_keys
        self._installations = installations
        self._leftovers: set[Path] | None = None  # of the last pass; None before the first

    def tidy(self) -> None:
        """Forget releases and downloads that no model needs."""
        releases: set[tuple[str, int]] = set()
        digests: set[str] = set()
        for model, each in self._installations.items():
            pointer, journal = each.state.pointer, each.state.journal
            versions = (pointer.active, pointer.fallback, pointer.stopped, journal.candidate)
            releases |= {(model, version.serial) for version in versions if version is not None}
            if each.decision is not None and each.decision.serial is not None:
                releases.add((model, each.decision.serial))
            if journal.candidate is not None and journal.state in PREPARING:
                digests |= {file.sha256 for file in journal.candidate.files} | each.preparation.fetching
                digests |= {file.artifact_sha256 for file in journal.candidate.files}
        self._release_keys.keep_only(releases)
        self._trust.keep_releases(releases)
        self._download.keep_only(digests)

    def sweep(self) -> None:
        """Remove what was being written when the power went: what is there in two passes running."""
        if self._leftovers is not None and not self._leftovers:
            return
        if self._leftovers is None and isinstance(self._disk, RealDisk):  # the first pass of this process
            for each in self._installations.values():
                remove_left_open(each.state.places)
        folders = [self._folder, self._folder / "models", self._download.folder, *self._trust.folders]
        for each in self._installations.values():
            folders += [each.state.places.folder, each.state.places.summaries]
        temporary = {
            folder / name for folder in folders for name in self._disk.names(folder) if durable.is_temporary(name)
        }
        for path in temporary & (self._leftovers or set()):
            self._disk.remove(path)
        self._leftovers = temporary - (self._leftovers or set())
