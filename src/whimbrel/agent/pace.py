"""How often may policies make a device act? A budget of a day, which short bursts may spend as they like.

A policy may ask for a look every tenth of a second, and its key may be stolen: a battery, a data plan and a server
would pay for it. So a device looks and reports as a rollout asks, until the budget is used up; then as it fills again.
"""

from whimbrel import limits

_DAY_S = 86400.0


class Pace:
    """One budget, of this process. The times are the pass clock's; one that was set back fills nothing."""

    def __init__(self, a_day: int = limits.POLICY_ACTS_A_DAY) -> None:
        self._most, self._left, self._at = float(a_day), float(a_day), 0.0

    def spend(self, now: float) -> None:
        """Note that the device acted at `now`, in POSIX seconds."""
        if self._at and now > self._at:
            self._left = min(self._most, self._left + (now - self._at) * self._most / _DAY_S)
        self._at, self._left = now, max(0.0, self._left - 1)

    @property
    def least_s(self) -> float:
        """Seconds to the next act at least: none, while anything of the budget is left."""
        return 0.0 if self._left >= 1 else _DAY_S / self._most
