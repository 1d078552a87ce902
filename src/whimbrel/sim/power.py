"""The modelled disk of a simulated device: when its power goes, and what becomes durable as time passes.

1. A process or the power ends before the n-th change of the disk. `ModelledDisk.crash` decides what a power cut leaves.
2. A change that is over 40 s old is durable without a sync: Linux writes dirty pages after 30 s, and a journal commits
   every 5 s. Otherwise a file that is never synced would keep the contents of the device's first day.
"""

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from whimbrel.sim.disk import ModelledDisk, PowerCut

_FLUSHED_S = 40.0
_TAKES_ROOM = frozenset({"create", "append", "add_folder"})


class DeviceDisk(ModelledDisk):
    """The disk of one device. `lends`: the disk that lent its files last (a world has one thread)."""

    lends: ClassVar["DeviceDisk | None"] = None

    def __init__(self, chance: random.Random, now: Callable[[], float]) -> None:
        super().__init__()
        self.full = False
        self.changes_left: int | None = None  # changes until the process ends
        self._chance = chance
        self._now = now
        self._flushed_at = now()
        self.before = self._before_change
        self.notes_callers = False

    def _before_change(self, what: str, path: Path) -> None:
        if self.changes_left is not None:
            self.changes_left -= 1
            if self.changes_left < 0:
                raise PowerCut
        if self.full and what in _TAKES_ROOM:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    @contextmanager
    def lend(self, *given: Path, made: Path | None = None) -> Iterator[tuple[Path, ...]]:
        """Lend paths of this disk. No real file is needed: the cage reads this disk, and patches are applied to it."""
        DeviceDisk.lends = self
        yield given if made is None else (*given, made)

    def switch_off(self) -> None:
        """Write nothing from now on."""
        self.is_off = True

    def pass_time(self) -> None:
        """Make durable what a kernel would have written by now. Called between cycles."""
        if self._now() - self._flushed_at > _FLUSHED_S:
            self.settle()
            self._flushed_at = self._now()

    def lose_power(self) -> None:
        """Keep what a power cut leaves, for the next boot."""
        self._adopt(self.crash(self._chance.randrange), boot=self._boot + 1)
        self._locks.clear()

    def begin(self) -> None:
        """Begin a new process on the same disk."""
        self.is_off, self.changes_left = False, None
        self.let_go()

    def _adopt(self, left: ModelledDisk, *, boot: int) -> None:
        self._nodes, self._names, self._durable_names = left._nodes, left._names, left._durable_names
        self._changes, self._last, self._boot = left._changes, left._last, boot
        self._flushed_at = self._now()
