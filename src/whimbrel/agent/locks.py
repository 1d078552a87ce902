"""Who may touch this folder now? Advisory locks on files (flock), which the kernel lets go when a process dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whimbrel.errors import Conflict

_TRY_AGAIN_S = 0.02


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, waiting for it: for the moments in which sessions start and slots are swapped."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def held_alone(path: Path, *, what: str, wait_s: float = 0.5) -> Iterator[None]:
    """Hold the lock at `path`. Raises `Conflict` when somebody else still has it after `wait_s`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        until = time.monotonic() + wait_s
        while not try_lock(handle):
            if time.monotonic() > until:
                raise Conflict(f"{what} is in use by another agent; stop that one first, or take another folder")
            time.sleep(_TRY_AGAIN_S)
        yield
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Take the lock of an open file, if nobody has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock at `path` now."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
