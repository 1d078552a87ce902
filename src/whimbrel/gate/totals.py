"""The sums of one arm of a cohort over all windows: what point estimates are made of.

Kept by the ledger; read by the estimates and the gate.
"""

import operator

from whimbrel.health.tally import Cell
from whimbrel.plan.measures import SUMS

_PLACES = {name: place for place, name in enumerate(SUMS)}
_tally_sums = operator.attrgetter(*SUMS)


class Totals:
    """Sums of one arm, of all devices or of a slice: `totals["crashed"]` is that of the cells' `crashed`."""

    __slots__ = ("_sums", "latency", "metrics", "sessions")

    def __init__(self) -> None:
        self._sums: list[float] = [0] * len(SUMS)
        self.sessions = 0
        self.metrics: dict[str, tuple[int, float]] = {}
        self.latency: dict[int, int] = {}

    def __getitem__(self, name: str) -> float:
        return self._sums[_PLACES[name]]

    def add(self, cell: Cell) -> None:
        """One cell more."""
        self._sums = [total + more for total, more in zip(self._sums, _tally_sums(cell), strict=True)]
        self.sessions += cell.sessions
        for name, moments in cell.metrics.items():
            n, total = self.metrics.get(name, (0, 0.0))
            self.metrics[name] = n + moments.n, total + moments.sum
        for key, count in cell.latency.items():
            self.latency[key] = self.latency.get(key, 0) + count

    @property
    def timed(self) -> int:
        """Sessions of which the latency is known."""
        return sum(self.latency.values())

    def mean(self, metric: str) -> float | None:
        """The metric's mean; None where nothing was reported."""
        n, total = self.metrics.get(metric, (0, 0.0))
        return total / n if n else None
