"""The time within a pass: the wall's time at its beginning, and what the monotonic clock says has passed since.

A clock that is set in the middle of a pass moves nothing before the next one.
"""

from whimbrel.device.ports import Clock


class PassClock:
    """A `Clock`. Before the first pass it is the wall's."""

    def __init__(self, wall: Clock, monotonic: Clock) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._begun: tuple[float, float] | None = None

    def begin(self, now: float) -> None:
        """A pass begins, at `now` by the wall."""
        self._begun = now, self._monotonic()

    def __call__(self) -> float:
        if self._begun is None:
            return self._wall()
        wall, monotonic = self._begun
        return wall + (self._monotonic() - monotonic)
