"""What time is it in a world, and what happens next? Virtual time, one queue of events, and chance from one seed.

1. Nothing here waits, and nothing asks the machine for its time: `now` moves from event to event.
2. Each part of a world has chance of its own, named after it, so that one more draw in one part changes no other.
3. `seeded` lends the world's chance to `secrets`, which the product asks for names and epochs; one world at a time.
"""

import heapq
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

T0 = 2_082_758_400.0  # 2036-01-01T00:00:00Z: what is signed there is valid for machines of any year before
MODEL = "wake"
NAMESPACE = "default"
HOUR_S = 600.0  # of a plan
REFRESH_S = 600.0
REPORT_S = 900.0  # and a window of the gate
ACTIVATE_MAX_AGE_S = 1200.0


class Timeline:
    """The queue of what will happen, and the counts of what was injected and of what came about."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = T0
        self.injected: Counter[str] = Counter()
        self.occurred: Counter[str] = Counter()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def chance(self, part: str) -> random.Random:
        """The chance of one part of the world."""
        return random.Random(f"{self.seed}/{part}")  # noqa: S311 (play, no secret)

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Let `event` happen `delay_s` from now."""
        self._number += 1  # events of one moment happen in the order in which they were asked for
        heapq.heappush(self._queue, (self.now + max(0.0, delay_s), self._number, event))

    def run_until(self, moment: float) -> None:
        """Let everything happen that is due until `moment`."""
        while self._queue and self._queue[0][0] <= moment:
            at, _, event = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            event()
        self.now = moment


@contextmanager
def seeded(chance: random.Random) -> Iterator[None]:
    """Names and epochs that the product draws come from `chance`, so that a world can be played again."""
    drawn = {
        "token_hex": lambda size=32: chance.randbytes(size).hex(),
        "token_urlsafe": lambda size=32: chance.randbytes(size).hex(),
        "token_bytes": lambda size=32: chance.randbytes(size),
    }
    before = {name: getattr(secrets, name) for name in drawn}
    try:
        for name, draw in drawn.items():
            setattr(secrets, name, draw)
        yield
    finally:
        for name, draw in before.items():
            setattr(secrets, name, draw)
