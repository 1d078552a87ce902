"""Advisory locks on files (flock; on Windows of one byte). They end when the process that holds them dies.

1. Only the folder's owner can open a lock's file, and where the folder is a group's, the group: whoever can read a file
   can hold a lock on it for ever.
2. Nobody waits without end: a wait that takes too long names who holds the lock.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.folder import PRIVATE_FILE, is_shared
from whimbrel.device.ports import Disk, Hold
from whimbrel.errors import Conflict, Unavailable, reason_of

_TRY_AGAIN_S = 0.02
_WINDOWS_PLACE = 2**30  # the byte that is locked: beyond what a file holds, for Windows lets nobody read locked bytes


class FileHold:
    """A lock that is held."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def release(self) -> None:
        """Let go; a second time does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


def take_hold(path: Path, *, make: bool, wait: bool) -> FileHold | None:
    """The lock at `path`, or None when somebody has it (with `wait`: when they let go). `make`: also a new file."""
    handle = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | getattr(os, "O_CLOEXEC", 0), PRIVATE_FILE)
    try:
        _close_to_others(handle, path.parent)
        _lock(handle, wait=wait)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return FileHold(handle)


def _close_to_others(handle: int, folder: Path) -> None:
    """Mend the mode of a file that an older agent made, and let a group in that the folder is shared with."""
    if not hasattr(os, "fchmod"):
        return
    mode = PRIVATE_FILE | (0o060 if is_shared(folder) else 0)
    with suppress(OSError):  # another user's file
        if os.fstat(handle).st_mode & 0o777 != mode:
            os.fchmod(handle, mode)


def _lock(handle: int, *, wait: bool) -> None:
    # Raises `BlockingIOError` where somebody has it, and `wait` is False.
    if sys.platform != "win32":
        fcntl = importlib.import_module("fcntl")
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return
    msvcrt = importlib.import_module("msvcrt")
    while True:
        os.lseek(handle, _WINDOWS_PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # LK_LOCK would give up after ten seconds
        except OSError as error:
            if not wait:
                raise BlockingIOError from error
            time.sleep(_TRY_AGAIN_S)
        else:
            return


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock at `path` now."""
    try:
        hold = take_hold(path, make=False, wait=False)
    except FileNotFoundError:
        return False
    if hold is None:
        return True
    hold.release()
    return False


@contextmanager
def locked(path: Path, *, disk: Disk[Path]) -> Iterator[None]:
    """Hold the lock at `path`, waiting for it: for the moments in which sessions start and slots are swapped.

    Raises `Unavailable` where somebody has it for longer than `limits.LOCK_WAIT_S`, and `OSError`.
    """
    until = time.monotonic() + limits.LOCK_WAIT_S
    pause_s = _TRY_AGAIN_S / 20
    while (hold := disk.hold(path)) is None:
        if time.monotonic() > until:
            raise Unavailable(
                f"the lock {path} is held for more than {limits.LOCK_WAIT_S:g} s{_by(path)}; such a lock is held for "
                "moments: end that process, or find out why it hangs"
            )
        time.sleep(pause_s)
        pause_s = min(_TRY_AGAIN_S, 2 * pause_s)
    try:
        yield
    finally:
        hold.release()


def holder(path: Path) -> str:
    """Who holds the lock at `path`, as "process 17 (python)"; "" where the system does not say (proc(5), locks)."""
    with suppress(OSError, ValueError, IndexError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode and int(fields[4]) > 0:
                name = Path(f"/proc/{int(fields[4])}/comm").read_text().strip()
                return f"process {fields[4]} ({''.join(each for each in name if each.isprintable())})"
    return ""


def _by(path: Path) -> str:
    return f" by {by}" if (by := holder(path)) else ""


@contextmanager
def held_alone(path: Path, *, disk: Disk[Path], what: str, wait_s: float = 0.5) -> Iterator[None]:
    """Hold the lock at `path`. Raises `Conflict` when somebody else still has it after `wait_s`, `Unavailable`."""
    until = time.monotonic() + wait_s
    while (hold := _hold(path, disk=disk)) is None:
        if time.monotonic() > until:
            raise Conflict(f"{what} is in use by another agent{_in(path)}; stop that one first, or take another folder")
        time.sleep(_TRY_AGAIN_S)
    try:
        yield
    finally:
        hold.release()


def _in(path: Path) -> str:
    return f", {holding}" if (holding := holder(path)) else ""


def _hold(path: Path, *, disk: Disk[Path]) -> Hold | None:
    try:
        return disk.hold(path)
    except OSError as error:
        raise Unavailable(f"the folder {path.parent} cannot be written to: {reason_of(error)}") from error
