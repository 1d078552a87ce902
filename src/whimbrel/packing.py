"""Pack a folder as one artifact: a tar file that is the same on every machine, and is unpacked with distrust.

1. The same tree of names and contents gives the same bytes: sorted names, no times, no owners, one mode, ustar (pax
   headers only for names that ustar cannot hold), no compression. Modes and times do not travel.
2. Only plain files and folders are packed; a link or a device in the folder is refused, not followed.
3. An archive is not trusted: absolute paths, `..`, links, devices, names that some system cannot hold, names that
   differ only by case, too many files and too many bytes are refused before anything is kept.
4. Unpacking goes to a sibling folder that takes its place by one rename, all of it durable.

Used by publishing (a Core ML package is a folder) and by the agent.
"""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from whimbrel import limits
from whimbrel.durable import fsync, fsync_folder
from whimbrel.errors import Conflict, UntrustedInput
from whimbrel.model.paths import DEPTH, clash, file_and_folder, path_objection, shown

_MODE_FILE = 0o644
_MODE_FOLDER = 0o755


def pack(folder: Path, archive: Path) -> None:
    """Write the tree under `folder` to `archive`, durably. The folder's own name does not travel.

    Raises `UntrustedInput` for what cannot travel, and `OSError`; no archive is left then.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise UntrustedInput(f"{folder} is not a folder; expected one to pack")
    members = sorted(_walk(folder, folder), key=lambda member: os.fsencode(member[0]))
    _check_names([name for name, _ in members], what=str(folder))
    handle, temporary = tempfile.mkstemp(prefix=f".{archive.name}.", suffix=".tmp", dir=archive.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
                for name, path in members:
                    _add(tar, name, path)
            file.flush()
            fsync(file.fileno())
        os.chmod(temporary, _MODE_FILE)
        os.replace(temporary, archive)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(archive.parent)


def unpack(
    archive: Path,
    folder: Path,
    *,
    bytes_max: int = limits.ARTIFACT_BYTES,
    files_max: int = limits.PACKAGE_FILES,
) -> None:
    """Make `folder`, which must not be there yet, from `archive`. A reader sees all of it or nothing.

    Raises `UntrustedInput` for an archive that is not to be trusted, `Conflict` where `folder` exists, and `OSError`;
    nothing is left then.
    """
    if folder.exists() or folder.is_symlink():
        raise Conflict(f"{folder} exists already; unpack to a new name")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        with archive.open("rb") as file:
            _unpack(file, temporary, what=archive.name, bytes_max=bytes_max, files_max=files_max)
        os.chmod(temporary, _MODE_FOLDER)
        _fsync_tree(temporary)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(folder.parent)


# --- packing ---


def _walk(top: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    with os.scandir(folder) as entries:
        children = list(entries)
    for entry in children:
        path = Path(entry.path)
        if entry.is_symlink():
            raise UntrustedInput(f"{path} is a link; replace it by what it points to, then pack again")
        if not entry.is_dir() and not entry.is_file():
            raise UntrustedInput(f"{path} is neither a file nor a folder; take it out, then pack again")
        name = path.relative_to(top).as_posix()
        if name.count("/") >= DEPTH:
            raise UntrustedInput(f"{top} is more than {DEPTH} folders deep; make it flatter, then pack again")
        yield name, path
        if entry.is_dir():
            yield from _walk(top, path)


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    member = tarfile.TarInfo(name)
    if path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, _MODE_FOLDER
        tar.addfile(member)
        return
    # A link that replaced the file since the walk is not followed.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        member.size, member.mode = os.fstat(file.fileno()).st_size, _MODE_FILE
        tar.addfile(member, file)


# --- unpacking ---


def _unpack(file: IO[bytes], top: Path, *, what: str, bytes_max: int, files_max: int) -> None:
    try:
        # Typed for what tarfile asks of a file: reading, seeking, telling.
        with tarfile.open(fileobj=cast(IO[bytes], _Careful(file)), mode="r:", encoding="utf-8", errors="strict") as tar:
            members = _members(tar, file, what=what, bytes_max=bytes_max, files_max=files_max)
            for member in members:
                target = top / member.name
                if member.isdir():
                    target.mkdir(mode=_MODE_FOLDER, parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(mode=_MODE_FOLDER, parents=True, exist_ok=True)
                _extract(tar, member, target, what=what)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise UntrustedInput(f"{what} is not a whole tar archive: {error}; fetch or pack it again") from error


def _members(
    tar: tarfile.TarFile, file: IO[bytes], *, what: str, bytes_max: int, files_max: int
) -> list[tarfile.TarInfo]:
    """All headers. They are checked before the first byte is written."""
    members: list[tarfile.TarInfo] = []
    total = 0
    while (member := tar.next()) is not None:
        name = member.name
        if len(members) >= files_max:
            raise UntrustedInput(f"{what} holds more than {files_max} files")
        if not member.isdir() and member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise UntrustedInput(f"{what}: {shown(name)} is a link, device or sparse file; only files and folders")
        if member.sparse is not None:
            raise UntrustedInput(f"{what}: {shown(name)} is a sparse file; only plain files")
        total += member.size
        if member.size < 0 or total > bytes_max:
            raise UntrustedInput(f"{what} holds more than {bytes_max} bytes")
        members.append(member)
    if not _ends(file, members[-1] if members else None):
        raise UntrustedInput(f"{what} does not end as a tar archive does; fetch or pack it again")
    _check_names([member.name for member in members], what=what)
    folders = {member.name for member in members if member.isdir()}
    files = {member.name for member in members} - folders
    if (both := file_and_folder(files, beside=folders)) is not None:
        raise UntrustedInput(f"{what}: {shown(both)} is both a file and a folder")
    return members


class _Careful:
    """A file that does not read what an archive's header merely claims: tarfile reads long names whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= limits.COPY_CHUNK_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._read(size)


def _ends(file: IO[bytes], last: tarfile.TarInfo | None) -> bool:
    """Whether two or more zero blocks, and nothing else, follow the last member: tarfile does not check it."""
    place = 0
    if last is not None:
        size = 0 if last.isdir() else last.size
        place = last.offset_data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    file.seek(place)
    rest = file.read(2 * tarfile.RECORDSIZE)
    return len(rest) >= 2 * tarfile.BLOCKSIZE and not any(rest) and not file.read(1)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, *, what: str) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise UntrustedInput(f"{what}: {shown(member.name)} has no contents")
    left = member.size
    with source, target.open("xb") as file:
        while left:
            chunk = source.read(min(limits.COPY_CHUNK_BYTES, left))
            if not chunk:
                raise UntrustedInput(f"{what} ends inside {shown(member.name)}; fetch it again")
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), _MODE_FILE)
        fsync(file.fileno())


def _fsync_tree(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        fsync_folder(Path(folder))


# --- names ---


def _check_names(names: list[str], *, what: str) -> None:
    """Raises `UntrustedInput` for the first name that some system cannot hold, or holds as the same as another."""
    if len(names) > limits.PACKAGE_FILES:
        raise UntrustedInput(f"{what} holds {len(names)} files; at most {limits.PACKAGE_FILES} are packed")
    for name in names:
        if objection := path_objection(name):
            raise UntrustedInput(f"{what}: {shown(name)} {objection}")
    if (clashing := clash(names)) is not None:
        raise UntrustedInput(f"{what}: {clashing}")
