"""Remove a folder that somebody else's command wrote in, however deep it is and whatever its modes are."""

import os
import secrets
from pathlib import Path


def remove_tree(top: Path) -> None:
    """Remove a folder with all that is in it. Raises `OSError` where something cannot be removed.

    Each folder below is moved up into `top` before it is emptied. So there is no recursion, and no path grows longer
    than the system takes. Links are removed, and never followed. Nothing may write in it any more.
    """
    moved, many = top / f".{secrets.token_hex(8)}", 0
    waiting = _emptied(top)
    while waiting:
        folder = waiting.pop()
        for below in _emptied(folder):
            many += 1
            os.rename(below, place := f"{moved}-{many}")
            waiting.append(place)
        os.rmdir(folder)
    top.rmdir()


def _emptied(folder: Path | str) -> list[str]:
    """Remove the files of a folder. Returns the folders in it."""
    os.chmod(folder, 0o700)
    folders = []
    with os.scandir(folder) as entries:
        inside = list(entries)
    for entry in inside:
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)  # else it cannot be moved
            folders.append(entry.path)
        else:
            os.unlink(entry.path)
    return folders
