"""Folders that a test's process may not write, also where the tests run as root."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def as_somebody_without_rights() -> Iterator[None]:
    """Root writes everywhere: what root runs here, nobody runs."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A new folder that every user can reach: pytest closes its own to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def can_mount() -> bool:
    """Whether this process may mount file systems: root may, and root in most containers may not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder), size="1m"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def mounted(folder: Path, *, size: str) -> Iterator[Path]:
    """A file system of its own in memory. Raises `OSError` or `CalledProcessError` where that is not allowed."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
