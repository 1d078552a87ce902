"""Whose is the agent's folder? Of the user that the agent runs as, and nobody else reads it.

1. A folder that is made is private (0700): whoever can open a lock's file can hold the lock for ever, and whoever reads
   the folder learns what the device runs.
2. A folder of somebody else is refused: its owner could exchange the models under the agent. Root decides for itself,
   and a folder that belongs to root was given to this user by root.
3. Files that may hold a secret (a proxy's password in `agent.json`) are for the owner alone. Those that an older agent
   left open are closed.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from whimbrel.durable import make_folders
from whimbrel.errors import Refused

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
PRIVATE_FILES = "agent.json", "credential.json"
_ROOT = 0


def claim(folder: Path) -> None:
    """Make the folder, or take it as it is where it may be taken. Raises `Refused` and `OSError`."""
    if not folder.exists():
        make_folders(folder)
        folder.chmod(PRIVATE_FOLDER)
    if not hasattr(os, "geteuid"):  # Windows: its own permissions hold
        return
    status = folder.stat()
    if problem := owner_problem(folder, owner=status.st_uid, user=os.geteuid()):
        raise Refused(problem)
    for name in PRIVATE_FILES:
        with suppress(OSError):  # not there yet, or root's
            if (folder / name).stat().st_mode & ~PRIVATE_FILE & 0o777:
                (folder / name).chmod(PRIVATE_FILE)


def owner_problem(folder: Path, *, owner: int, user: int) -> str:
    """Why `user` may not keep models in a folder of `owner`; "" where it may."""
    if user == _ROOT or owner in {user, _ROOT}:
        return ""
    return (
        f"{folder} belongs to user {owner}, and this process runs as user {user}: its owner could exchange the models; "
        f"run as user {owner}, have root do `chown {user}` on the folder, or take another one"
    )


def is_shared(folder: Path) -> bool:
    """Whether the folder's owner lets a group write to it: apps of other users are meant to share it."""
    return bool(folder.stat().st_mode & stat.S_IWGRP)
