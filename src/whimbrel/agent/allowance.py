"""How much may be fetched, and how fast? A day's budget on metered networks, and a cap on the bandwidth.

1. What is not known to be unmetered is metered. A day is a day of the trusted time, in UTC; a clock that goes back
   brings no new budget.
2. The counter is on the disk before the bytes are here, a megabyte ahead: a restart may lose some of the budget, and
   never wins any.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.documents import Document

_DAY_S = 86400


class Spent(Document, frozen=True, tag_field="format", tag="whimbrel-budget-1"):
    """The file: how much of a day's budget is used, or set aside."""

    day: int = 0
    bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class Allowance:
    """`budget_bytes()`: a day's bytes, None without a bound. `pause` waits so many seconds, or until it is stopped."""

    def __init__(
        self,
        path: Path,
        *,
        disk: Disk,
        now: Callable[[], float],
        budget_bytes: Callable[[], int | None],
        bytes_per_s: int | None,
        pause: Callable[[float], object],
    ) -> None:
        self._path = path
        self._disk = disk
        self._now = now
        self._budget_bytes = budget_bytes
        self._bytes_per_s = bytes_per_s
        self._pause = pause
        self._budget: int | None = None
        self._kept = self._read()
        self._used = self._kept.bytes
        self._begun, self._since = time.monotonic(), 0

    def begin(self) -> int | None:
        """Before a download: the bytes that are left for today; None without a bound."""
        self._budget = self._budget_bytes()
        self._begun, self._since = time.monotonic(), 0
        if self._budget is None:
            return None
        today = int(self._now() // _DAY_S)
        if today > self._kept.day:
            self._used = 0
            self._keep(Spent(day=today))
        elif today < self._kept.day - 1:  # the clock was ahead: the count stays, and ends with today
            self._keep(Spent(day=today, bytes=self._used))
        return max(0, self._budget - self._used)

    def spend(self, count: int) -> bool:
        """`count` bytes came; waits where that was too fast. False: no more today."""
        self._since += count
        if self._bytes_per_s:
            early_s = self._since / self._bytes_per_s - (time.monotonic() - self._begun)
            if early_s > 0:
                self._pause(early_s)
        if self._budget is None:
            return True
        self._used += count
        if self._used > self._kept.bytes:
            self._keep(msgspec.structs.replace(self._kept, bytes=self._used + limits.MIB))
        return self._used < self._budget

    def end(self) -> None:
        """What was set aside and not used is given back."""
        if self._budget is not None and self._used != self._kept.bytes:
            self._keep(msgspec.structs.replace(self._kept, bytes=self._used))

    def _keep(self, spent: Spent) -> None:
        self._disk.write(self._path, documents.encode(spent))
        self._kept = spent

    def _read(self) -> Spent:
        content = self._disk.read(self._path)
        try:
            return documents.parse(Spent, content, what=str(self._path)) if content else Spent()
        except UntrustedInput:
            return Spent()
