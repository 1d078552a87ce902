"""How far is a download? What apps, the status and the log are told while bytes come.

1. A download is told of when it begins, at most once a second while it goes on, and when it ends or pauses.
2. The rate is that of the last ten seconds. Where nothing came in them, the time left is not known.
3. A total is an estimate: where a patch fails, the file comes by a dearer way, and the total grows.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from whimbrel import limits
from whimbrel.health.report import WayName


class DownloadProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is being fetched. `bytes_here` of `bytes_total` came, also in earlier passes.

    `way`: "delta" or "chain" (a patch, several), "compressed" or "whole". `rate_bytes_per_s` and `left_s` are None
    where they are not known. `ended`: all bytes are here, or (`bytes_here` below `bytes_total`) the download pauses.
    """

    model: str
    serial: int
    version: str
    way: WayName
    bytes_here: int
    bytes_total: int
    rate_bytes_per_s: float | None = None
    left_s: float | None = None
    ended: bool = False

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.bytes_here / self.bytes_total if self.bytes_total else 1.0


class Expected(msgspec.Struct, frozen=True):
    """What a fetch begins with: the way of most of its bytes, the bytes that are here, and all of them."""

    way: WayName
    bytes_here: int
    bytes_total: int


def together(each: Sequence[Expected]) -> Expected:
    """Several files: the way is that of the one of which most is missing."""
    most = max(each, key=lambda file: file.bytes_total - file.bytes_here)
    return Expected(most.way, sum(file.bytes_here for file in each), sum(file.bytes_total for file in each))


class ProgressMeter:
    """The downloads of one agent, one at a time. `tell` hears of them; it must not raise."""

    def __init__(
        self,
        tell: Callable[[DownloadProgress], object] = lambda _: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._monotonic = monotonic
        self._latest: dict[str, DownloadProgress] = {}
        self._current: DownloadProgress | None = None
        self._whole_files_bytes = 0  # of this fetch
        self._told_at = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def latest(self, model: str) -> DownloadProgress | None:
        """What was last known of a download of `model`, by this process."""
        return self._latest.get(model)

    @contextmanager
    def downloading(self, model: str, *, serial: int, version: str, expected: Expected) -> Iterator[None]:
        """A fetch of all files of a version. After the block it is over where `complete` was called, else it pauses."""
        now = self._monotonic()
        self._whole_files_bytes = 0
        self._samples = deque([(now, expected.bytes_here)])
        begun = DownloadProgress(
            model=model,
            serial=serial,
            version=version,
            way=expected.way,
            bytes_here=expected.bytes_here,
            bytes_total=expected.bytes_total,
        )
        self._keep(begun, now=now)
        try:
            yield
        finally:
            now = self._monotonic()
            ended = self._with_rate(self._current or begun, now=now)
            self._keep(msgspec.structs.replace(ended, left_s=None, ended=True), now=now)
            self._current = None

    def fetching(self, way: WayName) -> None:
        """The next bytes come by `way`."""
        if self._current is not None:
            self._current = msgspec.structs.replace(self._current, way=way)

    def at(self, position: int) -> None:
        """So many bytes of the file or patch that is being fetched are here."""
        if self._current is None:
            return
        now, here = self._monotonic(), self._whole_files_bytes + position
        self._current = msgspec.structs.replace(self._current, bytes_here=here)
        if now - self._told_at >= limits.PROGRESS_EVERY_S:
            self._samples.append((now, here))
            while now - self._samples[0][0] > limits.PROGRESS_RATE_S and len(self._samples) > 1:
                self._samples.popleft()
            self._keep(self._with_rate(self._current, now=now), now=now)

    def fetched(self, size_bytes: int) -> None:
        """A file or patch of this size is here, whole."""
        self._whole_files_bytes += size_bytes

    def complete(self) -> None:
        """Everything is here."""
        if self._current is not None:
            self._current = msgspec.structs.replace(self._current, bytes_total=self._current.bytes_here)

    def instead(self, size_bytes: int) -> None:
        """A way failed; the next one takes so many bytes more."""
        if self._current is not None:
            more = self._current.bytes_total + size_bytes
            self._current = msgspec.structs.replace(self._current, bytes_total=more)

    def _with_rate(self, progress: DownloadProgress, *, now: float) -> DownloadProgress:
        (since, before), here = self._samples[0], progress.bytes_here
        rate = (here - before) / (now - since) if now > since and here > before else None
        total = max(progress.bytes_total, here)
        left_s = (total - here) / rate if rate else None
        return msgspec.structs.replace(progress, bytes_total=total, rate_bytes_per_s=rate, left_s=left_s)

    def _keep(self, progress: DownloadProgress, *, now: float) -> None:
        self._current = self._latest[progress.model] = progress
        self._told_at = now
        self._tell(progress)


_WAYS: dict[WayName, str] = {
    "delta": "as a patch",
    "chain": "as several patches",
    "compressed": "compressed",
    "whole": "as a whole file",
}


def sentence(progress: DownloadProgress) -> str:
    """For people: "1.2 MB of 5.8 MB (20%) as a patch, 340.0 kB/s, 14 s left"."""
    here, total, rate = progress.bytes_here, progress.bytes_total, progress.rate_bytes_per_s
    speed = f", {size_words(rate)}/s" if rate else ""
    if progress.ended and here >= total:
        return f"all {size_words(total)} came {_WAYS[progress.way]}{speed}"
    words = f"{size_words(here)} of {size_words(total)} ({100 * progress.share:.0f}%) {_WAYS[progress.way]}"
    if progress.ended:
        return f"{words}; paused"
    return words + speed + ("" if progress.left_s is None else f", {duration_words(progress.left_s)} left")


def size_words(size_bytes: float) -> str:
    """Bytes in powers of 1000, as disks and tariffs have them: "340.0 kB", "5.8 MB"."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def duration_words(seconds: float) -> str:
    """One unit: "14 s", "3 min", "2 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.0f} h"
