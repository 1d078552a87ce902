"""The sources of an artifact: mirrors in the owner's order, the server last. One that failed is not asked for a while.

Artifacts are named by their hash, so a mirror can only waste time: whose bytes were wrong is asked last for a while.
"""

import random
from collections.abc import Callable

from whimbrel import limits
from whimbrel.agent.backoff import Backoff, Busy, after_s_of


class Mirrors:
    """Base URLs; `<base>/<sha256>` is an artifact."""

    def __init__(self, bases: tuple[str, ...], *, now: Callable[[], float], chance: random.Random) -> None:
        self._bases = {base: Backoff(chance) for base in dict.fromkeys(bases)}
        self._now = now

    @property
    def last(self) -> str:
        """The server."""
        return next(reversed(self._bases))

    def order(self) -> list[str]:
        """Whom to ask now, one after the other. Raises `Busy` where all asked to be left alone for a while."""
        now = self._now()
        ready = [base for base, backoff in self._bases.items() if not backoff.waiting(now)]
        if ready:
            return ready
        first = min(self._bases.values(), key=lambda backoff: backoff.until)
        raise Busy(first.problem, after_s=first.until - now)

    def failed(self, base: str, error: Exception, *, rest_s: float = 0.0) -> None:
        """`base` did not give what was asked for, and rests for `rest_s` at least.

        A lone server's waits are the caller's, unless it named its own.
        """
        after = after_s_of(error)
        if base not in self._bases:
            return  # of a partial file, and no mirror any more
        if len(self._bases) > 1:
            after = max(after, rest_s)
        if len(self._bases) > 1 or after:
            self._bases[base].failed(self._now(), str(error), cap_s=limits.MIRROR_WAIT_S, at_least_s=after)

    def worked(self, base: str) -> None:
        """It gave what was asked for."""
        self._bases[base].worked()
