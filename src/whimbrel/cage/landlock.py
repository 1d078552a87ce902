"""The files that a caged process may read: a list that the kernel keeps (Landlock, landlock(7)), set for good.

1. Nothing may be written, made, removed, renamed or run anywhere. What is on the list may be read. A command that
   people run on purpose (`command.py`) may run programs in named places, and write in folders of its own.
2. Where the kernel is new enough, there is no TCP either, no abstract Unix socket, no signal to a process outside.
3. It holds for the thread that calls, and for threads that it starts later. So it is set before there are others.
4. Kernels before 5.13, and those that were built or started without Landlock, have none: nothing is done then.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_RUN, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE_SINCE, _TCP_SINCE, _DEVICES_SINCE, _SCOPES_SINCE = 3, 4, 5, 6
_ALL_FILE_RIGHTS, _REFER, _TRUNCATE, _DEVICE_COMMANDS = (1 << 13) - 1, 1 << 13, 1 << 14, 1 << 15
_ALL_TCP = 0b11  # bind, connect
_ALL_SCOPES = 0b11  # abstract Unix sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The version of Landlock that the kernel has (1, 2, ...); 0 where there is none."""
    if sys.platform != "linux":
        return 0
    with suppress(OSError, AttributeError):
        return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))
    return 0


def restrict(
    readable: Iterable[Path],
    *,
    listed: Iterable[Path] = (),
    runnable: Iterable[Path] = (),
    writable: Iterable[Path] = (),
) -> int:
    """Leave this thread with reading these files and folders, and nothing else. Returns the version that holds, or 0.

    `listed`: folders whose names, and those of the folders below, may be seen. `runnable`: places whose programs may be
    run, and read. `writable`: folders in which everything may be done, and files that may be written.

    What does not exist is passed over. The process must have given up new privileges before.
    """
    kernel = version()
    if kernel == 0 or _has_other_threads():
        return 0
    libc = ctypes.CDLL(None)
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(_ruleset(kernel)), ctypes.c_size_t(_size(kernel)), 0)
    if ruleset < 0:
        return 0
    try:
        for path in readable:
            _allow(libc, ruleset, path, _READ_FILE | (_READ_FOLDER if path.is_dir() else 0))
        for path in listed:
            _allow(libc, ruleset, path, _READ_FOLDER)
        for path in runnable:
            _allow(libc, ruleset, path, _RUN | _READ_FILE | (_READ_FOLDER if path.is_dir() else 0))
        everything = _ruleset(kernel).files & ~_DEVICE_COMMANDS
        for path in writable:
            _allow(libc, ruleset, path, everything if path.is_dir() else _WRITE_FILE | _READ_FILE)
        return kernel if libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _ruleset(kernel: int) -> _Ruleset:
    files = _ALL_FILE_RIGHTS
    files |= _REFER if kernel >= 2 else 0
    files |= _TRUNCATE if kernel >= _TRUNCATE_SINCE else 0
    files |= _DEVICE_COMMANDS if kernel >= _DEVICES_SINCE else 0
    return _Ruleset(files, _ALL_TCP if kernel >= _TCP_SINCE else 0, _ALL_SCOPES if kernel >= _SCOPES_SINCE else 0)


def _size(kernel: int) -> int:
    """Bytes of the structure that this kernel knows: an older one refuses what follows, unless it is zero."""
    return 24 if kernel >= _SCOPES_SINCE else 16 if kernel >= _TCP_SINCE else 8


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, allowed: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_PathBeneath(allowed, handle)), 0)
    finally:
        os.close(handle)


def _has_other_threads() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) > 1
    except OSError:
        return False
