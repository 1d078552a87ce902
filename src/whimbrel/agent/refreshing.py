"""When does a device refresh? As often as its policies say, later and later where that fails, and before a swap.

A device has a least period of its own (`least_s`): the policies of a rollout may ask it to look more often than its
network or its battery can bear. And no policy keeps it from the news for more than a day, or makes it look for news
all day long (pace.py), since its key may be stolen.
What it does by its own decision, before a swap, waits for no period.
"""

import random
from collections.abc import Callable

from whimbrel import limits
from whimbrel.agent.backoff import Backoff, after_s_of
from whimbrel.agent.pace import Pace
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.ports import Clock
from whimbrel.errors import Unavailable, UntrustedInput

_DEFAULT_PERIOD_S = 300.0  # until a policy says otherwise


class Refreshing:
    """The refreshes of one device. `next_at`: when the next one is due."""

    def __init__(
        self, trust: TrustClient, *, now: Clock, chance: random.Random, least_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`least_s`: seconds between two refreshes at least, as the device bears it now."""
        self._trust = trust
        self._least_s = least_s
        self._waits_s = 0.0
        self._now = now
        self._chance = chance
        self._backoff = Backoff(chance)
        self._pace = Pace()
        self.next_at = 0.0

    @property
    def period_s(self) -> float:
        """Seconds between two refreshes; also the longest that anything that failed waits."""
        periods = (policy.refresh_s for policy in self._trust.policies.values())
        return min(limits.PERIOD_MOST_S, min(periods, default=_DEFAULT_PERIOD_S))

    @property
    def problem(self) -> str:
        """Why the last one failed; "" where it did not."""
        return self._backoff.problem

    def is_due(self, now: float) -> bool:
        """Whether it is time. A clock that was set back is no reason to wait; a server that asked for patience is."""
        longest_s = 2 * max(self.period_s, self._waits_s) + (limits.RETRY_AFTER_S if self._backoff.problem else 0)
        return not now < self.next_at <= now + longest_s

    def refresh(self) -> None:
        """Refresh now. Raises `Unavailable`, `UntrustedInput`."""
        now = self._now()
        self._trust.refresh(now)
        self._backoff.worked()
        self._pace.spend(now)
        self._waits_s = max(self.period_s * self._chance.uniform(0.9, 1.0), self._least_s(), self._pace.least_s)
        self.next_at = now + self._waits_s

    def attempt(self, now: float) -> bool:
        """Refresh; where that fails, later again. Returns whether it worked."""
        try:
            self.refresh()
        except (Unavailable, UntrustedInput) as error:
            self._backoff.failed(now, str(error), cap_s=self.period_s, at_least_s=after_s_of(error))
            self.next_at = self._backoff.until
            return False
        return True
