"""Write a file so that it has its new contents or its old ones, also when the power goes.

The one durable write of the project: a temporary file in the same folder, fsync, replace, fsync of the folder. Only
bodies use it: nouns and minds never write. Its single steps are behind `Files`, so that a modelled disk runs the same
steps.

`trouble` turns the system's error of a write that failed into a sentence; `try_to_write` asks a disk itself.
"""

import errno
import importlib
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from whimbrel.errors import DiskFull, Unavailable, reason_of

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PROBE_BYTES = 64 * 1024  # with less room than this SQLite cannot make the 32 KiB index of its write-ahead log
_FULL_FSYNC = 51 if sys.platform == "darwin" else None  # F_FULLFSYNC, sys/fcntl.h of macOS


class Files(Protocol):
    """The single steps. Each raises `OSError`; none but `sync` makes anything durable."""

    def create(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Make a new file. Raises where one is there."""

    def sync(self, path: Path) -> None:
        """Make a file's bytes, or the names in a folder, durable."""

    def move(self, source: Path, target: Path) -> None:
        """Rename. A file at `target` is replaced."""

    def remove(self, path: Path) -> None:
        """Remove a file. Do nothing where none is there."""

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there."""

    def add_folder(self, path: Path) -> None:
        """Make one folder, unless it is there."""


class RealFiles:
    """The steps on the real file system."""

    def create(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        handle = os.open(path, flags, mode)
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, mode)  # independent of the umask
            file.write(content)

    def sync(self, path: Path) -> None:
        if path.is_dir():
            fsync_folder(path)
            return
        with path.open(
            "rb" if os.name == "posix" else "rb+"
        ) as file:  # Windows flushes only a file that may be written
            fsync(file.fileno())

    def move(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def is_folder(self, path: Path) -> bool:
        return path.is_dir()

    def add_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)


_REAL = RealFiles()


def write_durably(path: Path, content: bytes, *, mode: int = 0o644, files: Files = _REAL) -> None:
    """Put `content` at `path`. A reader sees the old bytes or the new ones, never a mixture, and never neither.

    Raises `OSError`; the old contents are then still there and the temporary file is gone.
    """
    temporary = temporary_for(path)
    try:
        files.create(temporary, content, mode=mode)
        files.sync(temporary)
        files.move(temporary, path)
    except BaseException:
        with suppress(OSError):
            files.remove(temporary)
        raise
    files.sync(path.parent)


def replace(path: Path, content: bytes, *, files: Files = _REAL) -> None:
    """Put `content` at `path` atomically for readers, and not durably: for what may be lost when the power goes."""
    temporary = temporary_for(path)
    try:
        files.create(temporary, content)
        files.move(temporary, path)
    except BaseException:
        with suppress(OSError):
            files.remove(temporary)
        raise


def make_folders(path: Path, *, files: Files = _REAL) -> None:
    """Make a folder and those above it; their names are durable afterwards."""
    missing = []
    while not files.is_folder(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        files.add_folder(folder)
        files.sync(folder.parent)


def temporary_for(path: Path) -> Path:
    """A new name beside `path`, which `is_temporary` recognises."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file of this name was being written when its process ended."""
    return name.startswith(".") and name.endswith(".tmp")


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable (POSIX; a no-op where a folder cannot be opened, as on Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        fsync(handle)
    finally:
        os.close(handle)


def fsync(handle: int) -> None:
    """Write an open file's bytes to the disk itself (macOS: F_FULLFSYNC, as fsync(2) stops at the drive's cache)."""
    if _FULL_FSYNC is not None:
        with suppress(OSError):  # a file system without it, such as a network's
            importlib.import_module("fcntl").fcntl(handle, _FULL_FSYNC)
            return
    os.fsync(handle)


def trouble(error: OSError, *, doing: str) -> Unavailable:
    """The system's error as ours: which file or folder, and what to do. `doing`: such as "storing the model"."""
    where = "" if error.filename is None else f" at {_named(error.filename)}"
    if error.errno in _FULL:
        quota = " (its quota is used up)" if error.errno == errno.EDQUOT else ""
        return DiskFull(f"{doing} failed: the disk is full{quota}{where}; free some space and try again")
    if error.errno == errno.EROFS:
        return Unavailable(f"{doing} failed: the file system is read-only{where}; mount it for writing, or use another")
    return Unavailable(f"{doing} failed{where}: {reason_of(error)}")


def try_to_write(folder: Path, *, doing: str, files: Files = _REAL) -> None:
    """Write a small file into `folder`, and remove it. Raises `DiskFull` or `Unavailable` where that does not work.

    A database says only that it cannot write. This says why.
    """
    probe = temporary_for(folder / "probe")
    try:
        files.create(probe, bytes(_PROBE_BYTES))
        files.sync(probe)  # some file systems look for room only now
    except OSError as error:
        raise trouble(OSError(error.errno, error.strerror, str(folder)), doing=doing) from error
    finally:
        with suppress(OSError):
            files.remove(probe)


def _named(filename: object) -> str:
    """A file's name for people: the folder, where the name is a temporary one."""
    path = Path(os.fsdecode(filename)) if isinstance(filename, str | bytes) else Path(str(filename))
    return str(path.parent if is_temporary(path.name) else path)
