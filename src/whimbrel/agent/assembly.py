"""Assemble an artifact with the fewest bytes fetched: by patches from what is here, or by the whole file.

1. Ways come from the signed delta index, the cheapest first; a way that fails gives way to the next, and the whole file
   is the last. What was fetched in vain is counted too, and all ways together cost at most what the whole file costs.
2. A patch is verified by its digest before it is read, and what it makes by the digest that the release names.
3. Of a sealed artifact the age file is fetched, or a patch that is one, and opened here with the release's key. The key
   is asked for before the first byte is fetched. What comes out must hash to what the release names, as ever.
4. The codec and numpy are imported only to apply a patch; where they are not installed, whole files are taken.
"""

import functools
import importlib.util
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType

import msgspec

from whimbrel import limits
from whimbrel.agent.backoff import Busy
from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download, Unfinished
from whimbrel.agent.progress import Expected
from whimbrel.errors import InvariantBroken, Refused, Unavailable, UntrustedInput
from whimbrel.health.report import WayName
from whimbrel.model.release import File
from whimbrel.model.ways import NOTHING, Step, Way, ways


class Assembly:
    """Brings artifacts into the folder of a `Download`. `moved_by`: bytes that came, by the way that they were for."""

    def __init__(
        self, download: Download, *, disk: Disk, release_key: Callable[[], str] | None = None, opens: bool = True
    ) -> None:
        """`release_key`: gives what opens sealed artifacts. `opens`: False where they are to stay sealed."""
        self._download = download
        self._disk = disk
        self._release_key = release_key
        self._opens = opens
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
        if file.sealed is not None and self._opens and self._is_here(file):
            return "whole"  # it was opened before the power went
        identity = self._identity(file)
        steps = self._usable(file, steps)
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
                    self._verify(patch, what="patch")
                self._apply(patching, file, way, here, identity=identity)
                return _named(way)
            except (Unfinished, Busy):
                raise
            except (UntrustedInput, Refused, Unavailable):
                failed = True  # its bytes are in `moved_by`, so that the fleet sees what ways cost
        if failed:
            self._download.meter.instead(file.artifact_bytes)
        artifact = as_artifact(file)
        self._fetch(artifact, "whole")
        if file.sealed is not None:
            self._verify(artifact, what="sealed file")
            self._open(artifact, file, identity)
        return "whole"

    def expected(self, file: File, steps: Collection[Step], here: Collection[str]) -> Expected:
        """What `bring` begins with, by the cheapest way that can be gone here."""
        missing, steps = self._missing(file), self._usable(file, steps)
        possible = _ways(file, steps, here, below=missing) if steps and can_patch() else []
        if missing <= 0 or not possible:
            return Expected("whole", file.artifact_bytes - max(0, missing), file.artifact_bytes)
        way = possible[0]
        lacking = sum(self._missing(_as_file(file, step.sha256, step.size_bytes)) for step in way.steps)
        return Expected(_named(way), way.size_bytes - lacking, way.size_bytes)

    def room(self, file: File, steps: Collection[Step], here: Collection[str]) -> int:
        """Bytes that the disk must still take until `file` is here, by the cheapest way or whole, whichever is more."""
        missing, steps = self._missing(file), self._usable(file, steps)
        unpacked = file.size_bytes if file.packed else 0
        if file.sealed is not None and self._opens and not self._is_here(file):
            unpacked += file.size_bytes  # it lies beside the sealed one while it is opened
        possible = _ways(file, steps, here, below=missing) if steps else []
        if not possible:
            return missing + unpacked
        between = sum(step.target_bytes for step in possible[0].steps[:-1])
        return max(missing, possible[0].size_bytes + between + file.size_bytes) + unpacked

    def _missing(self, file: File) -> int:
        if file.sealed is not None and self._opens and self._is_here(file):
            return 0
        artifact = as_artifact(file)
        return artifact.size_bytes - (self._disk.size(self._download.path(artifact)) or 0)

    def _is_here(self, file: File) -> bool:
        """Whether all bytes of a file are here, opened; their hash is looked at before it is staged."""
        return self._disk.size(self._download.path(file)) == file.size_bytes

    def _usable(self, file: File, steps: Collection[Step]) -> list[Step]:
        """The steps that may lead to `file`: sealed ones for a sealed file that is opened here, and plain ones else."""
        if file.sealed is not None and not self._opens:
            return []  # what is in the slots is sealed, so there is nothing to patch
        return [step for step in steps if step.sealed is (file.sealed is not None)]

    def _identity(self, file: File) -> str:
        if file.sealed is None:
            return ""
        if self._release_key is None:
            raise InvariantBroken(f"{file.name} is sealed, and nobody was asked for its key")
        return self._release_key()

    def _open(self, artifact: File, file: File, identity: str) -> None:
        """Open the sealed `artifact` to where `file` is collected, and remove the sealed one.

        Where it is to stay sealed, it is only looked at. Staging makes the file durable; where the power goes before,
        it is fetched again.
        """
        path = self._download.path(file)
        opened = path.with_suffix(".opened")
        if self._opens:
            actual = self._opened_to(opened, self._download.path(artifact), identity, bytes_max=file.size_bytes)
        else:
            actual = self._look_into(self._download.path(artifact), identity, bytes_max=file.size_bytes)
        if actual != file.sha256:
            self._disk.remove(opened)  # the sealed file stays: it is what the release names, and would come again
            raise UntrustedInput(
                f"{file.name} was opened and has SHA-256 {actual}; the release says {file.sha256}, so its publisher "
                "sealed another file"
            )
        if not self._opens:
            return
        self._disk.move(opened, path)
        self._download.discard(artifact)

    def _look_into(self, sealed: Path, identity: str, *, bytes_max: int) -> str:
        """The SHA-256 of what a sealed file holds, which is written nowhere."""
        from whimbrel import agefile

        with self._disk.lend(sealed) as (source,), source.open("rb") as reads:
            return agefile.open_file(reads, agefile.Nowhere(), identity=identity, bytes_max=bytes_max)

    def _opened_to(self, opened: Path, sealed: Path, identity: str, *, bytes_max: int) -> str:
        from whimbrel import agefile  # here: few devices have sealed models

        self._disk.remove(opened)
        try:
            with (
                self._disk.lend(sealed, made=opened) as (source, target),
                source.open("rb") as reads,
                target.open("wb") as writes,
            ):
                return agefile.open_file(reads, writes, identity=identity, bytes_max=bytes_max)
        except UntrustedInput:
            self._disk.remove(opened)
            raise

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

    def _verify(self, fetched: File, *, what: str) -> None:
        actual = self._disk.sha256(self._download.path(fetched))
        if actual != fetched.sha256:
            self._download.refuse(fetched)
            raise UntrustedInput(f"the {what} {fetched.sha256} came with SHA-256 {actual}")

    def _apply(self, patching: ModuleType, file: File, way: Way, here: Mapping[str, Path], *, identity: str) -> None:
        base = here.get(way.steps[0].base)
        if base is None:
            base = self._download.path(_as_file(file, NOTHING, 0))
            self._disk.append(base, b"")
        for step in way.steps:
            patch = _as_file(file, step.sha256, step.size_bytes)
            out = self._download.path(_as_file(file, step.target, step.target_bytes))
            open_patch = self._download.path(patch)
            if step.sealed:
                open_patch = open_patch.with_suffix(".opened")
                self._opened_to(open_patch, self._download.path(patch), identity, bytes_max=step.size_bytes)
            with self._disk.lend(base, open_patch, made=out) as (before, change, after):
                patching.apply_files(
                    before,
                    change,
                    after,
                    expect_sha256=bytes.fromhex(step.target),
                    expect_bytes=step.target_bytes,
                )
            if base not in here.values():
                self._disk.remove(base)
            if step.sealed:
                self._disk.remove(open_patch)
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


def as_artifact(file: File) -> File:
    """What is fetched for `file` where it comes whole: the sealed file, or the file itself."""
    if file.sealed is None:
        return file
    return msgspec.structs.replace(file, sha256=file.sealed.sha256, size_bytes=file.sealed.size_bytes, sealed=None)


def _as_file(like: File, sha256: str, size_bytes: int) -> File:
    return msgspec.structs.replace(like, sha256=sha256, size_bytes=size_bytes, sealed=None)


def _ways(file: File, steps: Collection[Step], here: Collection[str], *, below: int) -> list[Way]:
    return ways(steps, target=file.sha256, size_bytes=file.size_bytes, here=here, below=below)


def _named(way: Way) -> WayName:
    if len(way.steps) > 1:
        return "chain"
    return "compressed" if way.steps[0].base == NOTHING else "delta"
