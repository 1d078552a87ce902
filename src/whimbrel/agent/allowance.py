"""How much may be fetched, and how fast? A day's budget on metered networks, and a cap on the bandwidth.

1. What is not known to be unmetered is metered. A day is a day of the trusted time, in UTC; a clock that goes back
   brings no new budget.
2. The counter is on the disk before the bytes are here, a megabyte ahead: a restart may lose some of the budget, and
   never wins any.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.device.journal import Candidate
from whimbrel.errors import UntrustedInput
from whimbrel.model import documents
from whimbrel.model.documents import Document
from whimbrel.policy.policy import Policy

_DAY_S = 86400


def day_budget_bytes(
    policies: Mapping[str, Policy], candidates: Mapping[str, Candidate | None], *, own_mib: int
) -> int | None:
    """What a metered network may carry in a day: the least of what the policies ask for, in the cohorts of their
    candidates, and of the settings (`own_mib`; 0: no bound). None: no bound.
    """
    asked = [own_mib or None]
    for model, policy in policies.items():
        candidate = candidates.get(model)
        rollout, stage = (candidate.rollout, candidate.stage) if candidate else (None, 0)
        asked.append(policy.conditions_of(rollout, role="treated", stage=stage).metered_mib_a_day)
    budgets = [mib for mib in asked if mib is not None]
    return min(budgets) * limits.MIB if budgets else None


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
        return self.left

    @property
    def left(self) -> int | None:
        """Bytes that are left of the budget that the download began with; None without a bound."""
        return None if self._budget is None else max(0, self._budget - self._used)

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
