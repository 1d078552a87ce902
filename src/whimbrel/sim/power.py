"""When does a simulated device's disk lose its power, and what does time make durable? The modelled disk, in use.

1. A process or the power ends before a change of the disk that was counted down to; what a power cut leaves is
   `ModelledDisk.crash`'s business.
2. What was changed over 40 s ago is durable without being synced: Linux writes dirty pages after 30 s, and a journal
   commits every 5 s. Without that, a file that nobody syncs would be as old as the device.
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
    """The disk of one device. `lends`: the one that lent its files last; a world is one thread."""

    lends: ClassVar["DeviceDisk | None"] = None

    def __init__(self, chance: random.Random, now: Callable[[], float]) -> None:
        super().__init__()
        self.full = False
        self.changes_left: int | None = None  # until the process ends
        self._chance = chance
        self._now = now
        self._flushed_at = now()
        self.before = self._suffer
        self.notes_callers = False

    def _suffer(self, what: str, path: Path) -> None:
        if self.changes_left is not None:
            self.changes_left -= 1
            if self.changes_left < 0:
                raise PowerCut
        if self.full and what in _TAKES_ROOM:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    @contextmanager
    def lend(self, *given: Path, made: Path | None = None) -> Iterator[tuple[Path, ...]]:
        """Nothing here needs a real file: the cage reads this disk, and what applies patches (`belief`) works on it."""
        DeviceDisk.lends = self
        yield given if made is None else (*given, made)

    def switch_off(self) -> None:
        """Nothing is written from now on."""
        self.is_off = True

    def pass_time(self) -> None:
        """Make durable what the kernel has written by now. Called between cycles, a while apart."""
        if self._now() - self._flushed_at > _FLUSHED_S:
            self.settle()
            self._flushed_at = self._now()

    def lose_power(self) -> None:
        """What the disk holds after a power cut, at the next boot."""
        self._adopt(self.crash(self._chance.randrange), boot=self._boot + 1)
        self._locks.clear()

    def begin(self) -> None:
        """A new process on the same disk."""
        self.is_off, self.changes_left = False, None
        self.let_go()

    def _adopt(self, left: ModelledDisk, *, boot: int) -> None:
        self._nodes, self._names, self._durable_names = left._nodes, left._names, left._durable_names
        self._changes, self._last, self._boot = left._changes, left._last, boot
        self._flushed_at = self._now()
