"""Versions that slots hold sealed, opened into memory: for a session, and for a probe.

1. A session opens the file into an anonymous file (memfd), which has no name in any folder and is gone with the
   process. What a runtime opens is `/proc/self/fd/N`.
2. A probe is a process of its own behind the walls of the cage, which may open no other process's files. So it gets a
   private folder of a file system in memory (`/dev/shm`), which is removed after it; what a power cut leaves of it is
   gone with the memory.
3. Where a system has neither, such a version is not taken, and why is said.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whimbrel.agent.places import Places
from whimbrel.device.journal import Candidate
from whimbrel.device.slots import Content, Held
from whimbrel.errors import Unavailable, UntrustedInput, reason_of

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 (a private folder is made in it)


class OpenInMemory:
    """A sealed version, opened for one session. Close it."""

    def __init__(self, places: Places, held: Held, identity: str) -> None:
        """Raises `UntrustedInput` where the file opens to other bytes, `OSError` for too little memory."""
        self._fd = os.memfd_create("whimbrel", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(self._fd), "wb") as memory:
                _open(places, held, _sealed_content(held), identity, memory.write)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """What a runtime of this process opens."""
        return Path(f"/proc/self/fd/{self._fd}")

    def close(self) -> None:
        """Give the memory back; what has it open or mapped keeps it for so long."""
        os.close(self._fd)


@contextmanager
def opened_slot(places: Places, held: Held, release_key: Callable[[], str]) -> Iterator[Path]:
    """The folder of a version with its files open, for a probe: its slot, or a folder in memory.

    Raises `Unavailable` where there is no such memory here, or no key.
    """
    if not held.is_sealed_at_rest:
        with places.disk.lend(places.slot(held.slot)) as (folder,):
            yield folder
        return
    content = _sealed_content(held)
    try:
        with tempfile.TemporaryDirectory(prefix="whimbrel-open-", dir=_IN_MEMORY) as private:
            path = Path(private, content.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as memory:
                _open(places, held, content, release_key(), memory.write)
            yield Path(private)
    except OSError as error:
        raise Unavailable(f"serial {held.serial} cannot be opened in memory: {reason_of(error)}") from error


def objection_to_memory(candidate: Candidate, active: Held | None, *, sealed_at_rest: bool) -> str:
    """Why a candidate cannot stay sealed in its slot; "" where it can, or need not."""
    if candidate.shadow is not None and active is not None and active.is_sealed_at_rest:
        return "nothing is tried in the shadow of a version that stays sealed (sealed_at_rest)"
    if not sealed_at_rest or all(file.sealed is None for file in candidate.files):
        return ""
    if len(candidate.files) > 1 or candidate.files[0].packed:
        return (
            "a version of one file: this device keeps sealed versions sealed (sealed_at_rest), and opens one file into "
            f"memory; serial {candidate.serial} has several, or a folder"
        )
    if candidate.shadow is not None:
        return f"its rollout: serial {candidate.serial} stays sealed here (sealed_at_rest), and has no shadow"
    return memory_problem()


def memory_problem() -> str:
    """Why versions cannot be opened in memory alone on this system; "" where they can."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir() and os.access(_IN_MEMORY, os.W_OK):
        return ""
    return (
        "another system: sealed_at_rest opens versions into memory (memfd and /dev/shm, of Linux), which this one has "
        "not; turn the option off to keep them open on the disk"
    )


def _sealed_content(held: Held) -> Content:
    return next(content for content in held.contents if content.opens_to is not None)


def _open(places: Places, held: Held, content: Content, identity: str, write: Callable[[bytes], int]) -> None:
    from whimbrel import agefile

    if content.opens_to is None:
        raise UntrustedInput(f"{content.name} is not sealed")
    with places.disk.lend(places.slot(held.slot) / content.name) as (source,), source.open("rb") as sealed:
        actual = agefile.open_file(sealed, _Writer(write), identity=identity, bytes_max=content.opens_to.size_bytes)
    if actual != content.opens_to.sha256:
        raise UntrustedInput(
            f"{content.name} opened to other bytes than the release names: SHA-256 {actual}; the agent fetches it anew"
        )


class _Writer:
    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write

    def write(self, content: bytes, /) -> int:
        return self._write(content)
