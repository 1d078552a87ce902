"""The time of a world: virtual time, one queue of events, and chance from one seed.

1. Nothing here waits, and nothing asks the machine for its time: `now` moves from event to event.
2. Each part of a world has its own random generator, named after the part. One more draw in a part changes no other.
3. The product asks `secrets` for names and epochs. `seeded` lets `secrets` use the world's chance, one world at a time.
"""

import heapq
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

T0 = 2_082_758_400.0  # 2036-01-01T00:00:00Z: what is signed then is still valid on machines of any year before
MODEL = "wake"
NAMESPACE = "default"
HOUR_S = 600.0  # of a plan
ROUND_S = 180.0  # between two rounds of the controllers
REFRESH_S = 600.0
REPORT_S = 900.0  # and a window of the gate
ACTIVATE_MAX_AGE_S = 1200.0


class Timeline:
    """The queue of coming events, and the counts of injected faults and of other events."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = T0
        self.injected: Counter[str] = Counter()
        self.occurred: Counter[str] = Counter()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def chance(self, part: str) -> random.Random:
        """The random generator of one part of the world."""
        return random.Random(f"{self.seed}/{part}")  # noqa: S311 (a simulation, no secret)

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Put `event` into the queue, `delay_s` from now."""
        self._number += 1  # events of the same time happen in the order in which they were put into the queue
        heapq.heappush(self._queue, (self.now + max(0.0, delay_s), self._number, event))

    def run_until(self, end: float) -> None:
        """Run all events until `end`, a POSIX time."""
        while self._queue and self._queue[0][0] <= end:
            at, _, event = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            event()
        self.now = end


@contextmanager
def seeded(chance: random.Random) -> Iterator[None]:
    """Let the product draw its names and epochs from `chance`, so that a world can be played again."""
    replacements = {
        "token_hex": lambda size=32: chance.randbytes(size).hex(),
        "token_urlsafe": lambda size=32: chance.randbytes(size).hex(),
        "token_bytes": lambda size=32: chance.randbytes(size),
    }
    before = {name: getattr(secrets, name) for name in replacements}
    try:
        for name, draw in replacements.items():
            setattr(secrets, name, draw)
        yield
    finally:
        for name, draw in before.items():
            setattr(secrets, name, draw)
