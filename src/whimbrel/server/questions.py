"""Questions of devices that need the database: a few at once, some that wait, and the others come again later.

Each takes a thread and the database's lock for a moment. Without a bound, a thousand enrolments would take turns with
one rollback of a person, who would wait for most of them.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from whimbrel import limits
from whimbrel.errors import Unavailable

T = TypeVar("T")


class Questions:
    """The questions of one process. `at_once` have a thread each; `waiting` more wait for one."""

    def __init__(self, *, at_once: int = limits.QUESTIONS_AT_ONCE, waiting: int = limits.QUESTIONS_WAITING) -> None:
        self._turn = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._asked = 0

    async def ask(self, work: Callable[[], T]) -> T:
        """Work in a thread, in turn. Raises `Unavailable` where too many wait already."""
        if self._asked >= self._most:
            raise Unavailable("too many devices ask at once; come again later")
        self._asked += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._asked -= 1
