"""Are the files that are published among those that were signed?

1. Each published file must be signed under its name with its digest. Signed files that are not published (a README) are
   no harm, and are counted.
2. People sign a folder and publish a part of it: all published names may lie below one folder of the signed ones. A
   bundle over a single file names it "."; then the digest alone counts, and one file is published.
3. A folder that travels packed was signed as the files in it: their names begin with the folder's, or are those below
   it where the folder itself was signed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.paths import shown
from whimbrel.model.release import File

_SINGLE = "."


class Contents(msgspec.Struct, frozen=True):
    """A file of a variant as a signer saw it: its digest, or those of the files in a folder that travels packed."""

    name: str
    sha256: str = ""
    inside: dict[str, str] = {}

    @property
    def digests(self) -> dict[str, str]:
        """By path, as in the folder of the variant."""
        return {f"{self.name}/{path}": digest for path, digest in self.inside.items()} or {self.name: self.sha256}


def contents_of(file: File, unpacked: Path | None = None) -> Contents:
    """The contents of a file. `unpacked`: the folder that a packed one was unpacked to; it must be given for such."""
    if not file.packed:
        return Contents(file.name, sha256=file.sha256)
    if unpacked is None:
        raise UntrustedInput(f"{file.name} travels packed, and was not unpacked")
    return Contents(file.name, inside=dict(sorted(_digests_below(unpacked))))


def uncovered(contents: Sequence[Contents], signed: Mapping[str, str]) -> str | None:
    """A sentence on the first file that is not signed; None where all are."""
    wanted = {path: digest for each in contents for path, digest in each.digests.items()}
    if set(signed) == {_SINGLE}:
        if len(wanted) > 1:
            return f"one file was signed, and {len(wanted)} are published; sign their folder"
        (name, digest), expected = next(iter(wanted.items())), signed[_SINGLE]
        return None if digest == expected else _differs(name, digest, expected)
    if len(contents) == 1 and any(name in signed for name in contents[0].inside):
        return _objection(contents[0].inside, signed)
    return _objection(wanted, signed)


def _objection(wanted: Mapping[str, str], signed: Mapping[str, str]) -> str | None:
    first = next(iter(wanted))
    folders = [name.removesuffix(first) for name in signed if name == first or name.endswith(f"/{first}")]
    if not folders:
        names = ", ".join(shown(name) for name in list(signed)[:5])
        return f"{shown(first)} is not among the files that were signed ({names}{', ...' * (len(signed) > 5)})"
    objections = [_objection_below(folder, wanted, signed) for folder in folders[: limits.FILES]]
    return None if None in objections else objections[0]


def _objection_below(folder: str, wanted: Mapping[str, str], signed: Mapping[str, str]) -> str | None:
    for name, digest in wanted.items():
        expected = signed.get(folder + name)
        if expected is None:
            return f"{shown(name)} is not among the files that were signed"
        if expected != digest:
            return _differs(name, digest, expected)
    return None


def _differs(name: str, digest: str, expected: str) -> str:
    return f"{shown(name)} has the SHA-256 {digest}; signed was {expected}"


def _digests_below(folder: Path) -> list[tuple[str, str]]:
    digests = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digests.append((path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()))
    return digests
