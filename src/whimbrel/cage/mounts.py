"""All files are read-only, but for some folders: by mounts of the process's own (mount_namespaces(7)).

Landlock says who may read and write a file's content. It says nothing of modes, owners, times and extended attributes
(landlock(7), "Current limitations"): a caged command could make a private key readable for everybody. Nobody changes
any of these on a mount that is read-only.

1. The process leaves its mounts first, so that nobody else sees a change.
2. It must have the right to mount: as root, or in a user namespace of its own. Where it has not, or where the kernel is
   older than 5.12, nothing is done, and that is said.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_MOUNT_SETATTR = 442  # the same on all machines
_CLONE_NEWNS = 0x00020000  # linux/sched.h
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000  # linux/fcntl.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18  # linux/mount.h
_READ_ONLY = 1  # MOUNT_ATTR_RDONLY


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def keep_writable_only(folders: Sequence[Path]) -> bool:
    """Leave this process with write access to these folders alone. Returns whether that holds.

    Raises `OSError` where it failed half-way. The working folder is entered again, on its new mount.
    """
    if sys.platform != "linux":
        return False
    with suppress(AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
            return False
        names = [os.fsencode(folder) for folder in folders]
        for name in names:
            if libc.mount(name, name, None, _MS_BIND | _MS_REC, None) != 0:
                return False
        if not _set(libc, b"/", _AT_RECURSIVE, _Attributes(set=_READ_ONLY)):
            return False
        for name in names:
            if not _set(libc, name, 0, _Attributes(clear=_READ_ONLY)):
                raise OSError(ctypes.get_errno(), f"{os.fsdecode(name)} cannot be made writable")
        os.chdir(os.getcwd())
        return True
    return False


def _set(libc: ctypes.CDLL, place: bytes, flags: int, attributes: _Attributes) -> bool:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return bool(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, place, flags, ctypes.byref(attributes), size) == 0)
