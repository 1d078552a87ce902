"""Places for downloads of artifacts: how many at once, and which one gives way?

1. A download holds memory and a client's patience, so there are so many places, and so many an address.
2. Where all are taken, the slowest download gives its place away, if it is slow beyond what networks explain: whoever
   reads a byte a second cannot keep others out. Its client goes on with Range later.
3. Whoever finds no place hears 503 with Retry-After, and comes again.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from whimbrel import limits
from whimbrel.errors import Unavailable


class Download:
    """One that is under way. `cut`: ends it at once."""

    def __init__(self, cut: Callable[[], None] | None) -> None:
        self.began, self.sent_bytes, self.cut = time.monotonic(), 0, cut

    def rate_bytes_s(self, now: float) -> float:
        """Bytes a second since it began; those in buffers on the way count as sent."""
        return self.sent_bytes / max(now - self.began, 1e-3)


class Downloads:
    """The downloads of one listener."""

    def __init__(self, *, most: int = limits.DOWNLOADS, an_address: int = limits.DOWNLOADS_AN_ADDRESS) -> None:
        self._most, self._an_address = most, an_address
        self._under_way: set[Download] = set()
        self._by_client: Counter[str | None] = Counter()

    @contextmanager
    def place(self, download: Download, *, client: str | None) -> Iterator[None]:
        """A place for it. `client`: what it counts for, if anything. Raises `Unavailable` where there is none."""
        if client is not None and self._by_client[client] >= self._an_address:
            raise Unavailable(f"{self._an_address} downloads to this address are under way; come again later")
        if len(self._under_way) >= self._most and not self._take_from_slowest():
            raise Unavailable(f"{self._most} downloads are under way; come again later")
        self._under_way.add(download)
        self._by_client[client] += 1
        try:
            yield
        finally:
            self._under_way.discard(download)
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]

    def _take_from_slowest(self) -> bool:
        now = time.monotonic()
        old = (each for each in self._under_way if each.cut and now - each.began > limits.DOWNLOAD_GRACE_S)
        slowest = min(old, key=lambda each: each.rate_bytes_s(now), default=None)
        if slowest is None or slowest.cut is None or slowest.rate_bytes_s(now) >= limits.DOWNLOAD_RATE_BYTES_S:
            return False
        self._under_way.discard(slowest)
        slowest.cut()
        return True
