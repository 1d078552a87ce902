"""Assemble an artifact with the fewest bytes fetched: by patches from what is here, or by the whole file.

1. Ways come from the signed delta index, the cheapest first; a way that fails gives way to the next, and the whole file
   is the last. What was fetched in vain is counted too, and all ways together cost at most what the whole file costs.
2. A patch is verified by its digest before it is read, and what it makes by the digest that the release names.
3. The codec and numpy are imported only to apply a patch; where they are not installed, whole files are taken.
"""

import functools
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType

import msgspec

from whimbrel import limits
from whimbrel.agent.backoff import Busy
from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download, Unfinished
from whimbrel.agent.progress import Expected
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.health.report import WayName
from whimbrel.model.release import File
from whimbrel.model.ways import NOTHING, Step, Way, ways


class Assembly:
    """Brings artifacts into the folder of a `Download`. `moved_by`: bytes that came, by the way that they were for."""

    def __init__(self, download: Download, *, disk: Disk) -> None:
        self._download = download
        self._disk = disk
        self.moved_by: dict[WayName, int] = {}

    @property
    def moved(self) -> int:
        """Bytes that came, by whatever way."""
        return sum(self.moved_by.values())

    def bring(self, file: File, steps: Collection[Step], here: Mapping[str, Path]) -> WayName:
        """Have all bytes of `file` at `Download.path(file)`; the way that led here.

        `here`: artifacts of this device, by digest.
        Raises `Unfinished`, `Unavailable`.
        """
        missing = self._missing(file)
        patching = _codec() if steps and missing > 0 else None
        failed, before = False, self.moved
        for way in _ways(file, steps, here, below=missing)[: limits.DELTA_TRIES]:
            if patching is None or self.moved - before + way.size_bytes > missing:
                break
            if failed:
                self._download.meter.instead(way.size_bytes)
            try:
                for step in way.steps:
                    patch = _as_file(file, step.sha256, step.size_bytes)
                    self._fetch(patch, _named(way))
                    self._verify(patch)
                self._apply(patching, file, way, here)
                return _named(way)
            except (Unfinished, Busy):
                raise
            except (UntrustedInput, Refused, Unavailable):
                failed = True  # its bytes are in `moved_by`, so that the fleet sees what ways cost
        if failed:
            self._download.meter.instead(file.size_bytes)
        self._fetch(file, "whole")
        return "whole"

    def expected(self, file: File, steps: Collection[Step], here: Collection[str]) -> Expected:
        """What `bring` begins with, by the cheapest way that can be gone here."""
        missing = self._missing(file)
        possible = _ways(file, steps, here, below=missing) if steps and can_patch() else []
        if missing <= 0 or not possible:
            return Expected("whole", file.size_bytes - max(0, missing), file.size_bytes)
        way = possible[0]
        lacking = sum(self._missing(_as_file(file, step.sha256, step.size_bytes)) for step in way.steps)
        return Expected(_named(way), way.size_bytes - lacking, way.size_bytes)

    def room(self, file: File, steps: Collection[Step], here: Collection[str]) -> int:
        """Bytes that the disk must still take until `file` is here, by the cheapest way or whole, whichever is more."""
        missing = self._missing(file)
        unpacked = file.size_bytes if file.packed else 0
        possible = _ways(file, steps, here, below=missing) if steps else []
        if not possible:
            return missing + unpacked
        between = sum(step.target_bytes for step in possible[0].steps[:-1])
        return max(missing, possible[0].size_bytes + between + file.size_bytes) + unpacked

    def _missing(self, file: File) -> int:
        return file.size_bytes - (self._disk.size(self._download.path(file)) or 0)

    def _fetch(self, file: File, way: WayName) -> None:
        before = self._download.moved
        self._download.meter.fetching(way)
        try:
            self._download.fetch(file)
            self._download.meter.fetched(file.size_bytes)
        finally:
            moved = self._download.moved - before
            if moved:
                self.moved_by[way] = self.moved_by.get(way, 0) + moved

    def _verify(self, patch: File) -> None:
        actual = self._disk.sha256(self._download.path(patch))
        if actual != patch.sha256:
            self._download.refuse(patch)
            raise UntrustedInput(f"the patch {patch.sha256} came with SHA-256 {actual}")

    def _apply(self, patching: ModuleType, file: File, way: Way, here: Mapping[str, Path]) -> None:
        base = here.get(way.steps[0].base)
        if base is None:
            base = self._download.path(_as_file(file, NOTHING, 0))
            self._disk.append(base, b"")
        for step in way.steps:
            patch = _as_file(file, step.sha256, step.size_bytes)
            out = self._download.path(_as_file(file, step.target, step.target_bytes))
            with self._disk.lend(base, self._download.path(patch), made=out) as (before, change, after):
                patching.apply_files(
                    before,
                    change,
                    after,
                    expect_sha256=bytes.fromhex(step.target),
                    expect_bytes=step.target_bytes,
                )
            if base not in here.values():
                self._disk.remove(base)
            base = out
        for step in way.steps:
            self._download.discard(_as_file(file, step.sha256, step.size_bytes))


@functools.cache  # asked in every cycle, and what is installed stays as it is while a process lives
def can_patch() -> bool:
    """Whether patches can be applied here; found without an import of the codec."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "pcodec", "zstandard"))


def _codec() -> ModuleType | None:
    if not can_patch():
        return None  # before numpy is in memory for nothing
    try:
        from whimbrel import patchfile  # here: an idle agent must not hold numpy and the codecs in memory
    except ImportError:
        return None
    return patchfile


def _as_file(like: File, sha256: str, size_bytes: int) -> File:
    return msgspec.structs.replace(like, sha256=sha256, size_bytes=size_bytes)


def _ways(file: File, steps: Collection[Step], here: Collection[str], *, below: int) -> list[Way]:
    return ways(steps, target=file.sha256, size_bytes=file.size_bytes, here=here, below=below)


def _named(way: Way) -> WayName:
    if len(way.steps) > 1:
        return "chain"
    return "compressed" if way.steps[0].base == NOTHING else "delta"
