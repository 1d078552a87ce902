"""How does a file get its new contents, whole or not at all, also when the power goes?

Temporary file in the same folder, fsync, replace, fsync the folder. The one durable write of the project, for bodies
only: the nouns and minds never write.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` at `path`. A reader sees the old bytes or the new ones, never a mixture, and never neither.

    Raises `OSError`; the old contents are then still there and the temporary file is gone.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable (POSIX; a no-op where a folder cannot be opened, as on Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
