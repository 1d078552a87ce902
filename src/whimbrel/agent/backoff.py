"""When to try again after a failure: exponential, with full jitter, and not before the other side allows it."""

import random

from whimbrel import limits
from whimbrel.device.ports import Answer, Stream
from whimbrel.errors import Unavailable
from whimbrel.retry_after import seconds_of


class Busy(Unavailable):
    """The server said when to come again."""

    def __init__(self, message: str, *, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


def check_patience(url: str, answer: Answer | Stream, *, now: float) -> None:
    """Raises `Busy` where the answer asks to come again later, and says when."""
    if answer.status not in {429, 503, 507}:
        return
    after_s = seconds_of(answer.headers.get("retry-after", ""), now=now, most_s=limits.RETRY_AFTER_S)
    if after_s is not None:
        raise Busy(f"{url} answered {answer.status}, and asks to come again later", after_s=after_s)


class Backoff:
    """Exponential, with full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter)."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._failures = 0
        self.until = 0.0
        self.problem = ""

    def failed(self, now: float, problem: str, *, cap_s: float, at_least_s: float = 0.0) -> None:
        """Wait longer than the last time, at most `cap_s`."""
        ceiling = min(cap_s, limits.BACKOFF_FIRST_S * 2 ** min(self._failures, limits.BACKOFF_DOUBLINGS))
        self._failures += 1
        self.until = now + at_least_s + self._chance.uniform(0, ceiling)
        self.problem = problem

    def worked(self) -> None:
        """Begin anew."""
        self._failures, self.until, self.problem = 0, 0.0, ""

    def waiting(self, now: float) -> bool:
        """Whether it is too early; a clock that was set back is no reason to wait for years."""
        return now < self.until <= now + 86400


def after_s_of(error: Exception) -> float:
    """How long the other side asked for, where it did."""
    return error.after_s if isinstance(error, Busy) else 0.0
