"""How do an artifact's bytes come here for the fewest bytes fetched? By patches from what is here, or whole.

1. Ways come from the signed delta index, the cheapest first; a way that fails gives way to the next, and the whole file
   is the last. What was fetched in vain is counted too.
2. A patch is verified by its digest before it is read, and what it makes by the digest that the release names.
3. The codec and numpy are imported only to apply a patch; where they are not installed, whole files are taken.
"""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from whimbrel.agent.disk import Disk
from whimbrel.agent.download import Download, Unfinished
from whimbrel.errors import Refused, Unavailable, UntrustedInput
from whimbrel.model.release import File
from whimbrel.model.ways import NOTHING, Step, Way, ways


class Brought(msgspec.Struct, frozen=True):
    """`moved`: bytes fetched. `by`: how it came, for people. `failed`: ways that did not lead here."""

    moved: int
    by: str
    failed: tuple[str, ...] = ()


class Assembly:
    """Brings artifacts into the folder of a `Download`."""

    def __init__(self, download: Download, *, disk: Disk, artifacts_url: str) -> None:
        self._download = download
        self._disk = disk
        self._url = artifacts_url

    def bring(self, file: File, steps: Collection[Step], here: Mapping[str, Path]) -> Brought:
        """Have all bytes of `file` at `Download.path(file)`. `here`: artifacts of this device, by digest.

        Raises `Unfinished` with the bytes that were moved, `Unavailable`, `UntrustedInput`.
        """
        missing = file.size_bytes - (self._disk.size(self._download.path(file)) or 0)
        patching = _codec() if steps and missing > 0 else None
        moved = 0
        failed: list[str] = []
        for way in ways(steps, target=file.sha256, size_bytes=missing, here=here.keys()) if patching else []:
            try:
                for step in way.steps:
                    patch = _as_file(file, step.sha256, step.size_bytes)
                    moved += self._download.fetch(patch, f"{self._url}/{step.sha256}")
                    self._verify(patch)
                self._apply(patching, file, way, here)
                return Brought(moved, _named(way), tuple(failed))
            except Unfinished as error:
                raise Unfinished(moved + error.moved, str(error)) from error
            except (UntrustedInput, Refused, Unavailable) as error:
                failed.append(str(error))
        try:
            moved += self._download.fetch(file, f"{self._url}/{file.sha256}")
        except Unfinished as error:
            raise Unfinished(moved + error.moved, str(error)) from error
        return Brought(moved, "whole", tuple(failed))

    def _verify(self, patch: File) -> None:
        found = self._disk.sha256(self._download.path(patch))
        if found != patch.sha256:
            self._download.discard(patch)
            raise UntrustedInput(f"the patch {patch.sha256} came with SHA-256 {found}")

    def _apply(self, patching: Any, file: File, way: Way, here: Mapping[str, Path]) -> None:
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


def _codec() -> Any:
    try:
        return importlib.import_module("whimbrel.patchfile")
    except ImportError:
        return None


def _as_file(like: File, sha256: str, size_bytes: int) -> File:
    return msgspec.structs.replace(like, sha256=sha256, size_bytes=size_bytes)


def _named(way: Way) -> str:
    first = "compressed" if way.steps[0].base == NOTHING else "a patch"
    return first if len(way.steps) == 1 else f"a chain of {len(way.steps)} patches"
