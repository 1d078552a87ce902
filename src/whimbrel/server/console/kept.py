"""Counts of a whole fleet, kept for a while: a page must not count a million devices each time somebody loads it.

What counting takes decides how long it is kept (`CONSOLE_KEPT_TIMES`): a small fleet is counted every second, and a
large one as often as takes a fiftieth of a core. A page says when its devices were counted.
"""

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from whimbrel import limits

T = TypeVar("T")


class Counted(msgspec.Struct, Generic[T], frozen=True):
    """What was counted, and when: `at` in POSIX seconds, `until` by the monotonic clock."""

    value: T
    at: float
    until: float


class KeptCounts:
    """The last counts by subject. Transactions ask for them; threads may, too: the newest one stays."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], Counted[Any]] = {}

    def of(self, subject: tuple[str, ...], count: Callable[[], T], *, now: float) -> Counted[T]:
        """What `count` gives, or gave not long ago."""
        known = self._kept.get(subject)
        if known is not None and time.monotonic() < known.until and known.at <= now:
            return known
        began = time.monotonic()
        value = count()
        ended = time.monotonic()
        kept_s = max(limits.CONSOLE_KEPT_LEAST_S, limits.CONSOLE_KEPT_TIMES * (ended - began))
        made = self._kept[subject] = Counted(value, now, ended + kept_s)
        while len(self._kept) > limits.CONSOLE_MODELS:
            self._kept.pop(next(iter(self._kept)))
        return made


class KeptAnswers:
    """Answers that do not change as long as their subject is the same. The newest ones stay."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._kept: dict[tuple[str, ...], Any] = {}

    def of(self, subject: tuple[str, ...], ask: Callable[[], T]) -> T:
        """The answer about a subject. `subject`: all that it follows from."""
        if subject not in self._kept:
            self._kept[subject] = ask()
            while len(self._kept) > self._most:
                self._kept.pop(next(iter(self._kept)))
        answer: T = self._kept[subject]
        return answer
