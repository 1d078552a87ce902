"""The sums of one arm of a cohort over all windows: what point estimates are made of.

Kept by the ledger; read by the estimates and the gate.
"""

import bisect
import itertools
import operator

from whimbrel.health.tally import Cell
from whimbrel.plan.measures import SUMS

_PLACES = {name: place for place, name in enumerate(SUMS)}
_tally_sums = operator.attrgetter(*SUMS)


class Totals:
    """Sums of one arm, of all devices or of a slice: `totals["crashed"]` is that of the cells' `crashed`."""

    __slots__ = ("_ordered", "_sums", "latency", "metrics", "sessions", "timed")

    def __init__(self) -> None:
        self._sums: list[float] = [0] * len(SUMS)
        self.sessions = 0
        self.metrics: dict[str, tuple[int, float]] = {}
        self.latency: dict[int, int] = {}
        self.timed = 0  # sessions of which the latency is known
        self._ordered: tuple[list[int], list[int]] | None = None  # its buckets, and the sessions up to each of them

    def __getitem__(self, name: str) -> float:
        return self._sums[_PLACES[name]]

    def add(self, cell: Cell) -> None:
        """One cell more."""
        self._sums = [total + more for total, more in zip(self._sums, _tally_sums(cell), strict=True)]
        self.sessions += cell.sessions
        for name, moments in cell.metrics.items():
            n, total = self.metrics.get(name, (0, 0.0))
            self.metrics[name] = n + moments.n, total + moments.sum
        if cell.latency:
            for key, count in cell.latency.items():
                self.latency[key] = self.latency.get(key, 0) + count
            self.timed += sum(cell.latency.values())
            self._ordered = None

    def quantile(self, p: float) -> int | None:
        """The sketch bucket of the p-quantile of latency (`sketch.quantile_key`); None where no session was timed.

        Edges and estimates ask for many quantiles between two windows, so the order of the buckets is kept.
        """
        if not self.timed:
            return None
        if self._ordered is None:
            keys = sorted(self.latency)
            self._ordered = keys, list(itertools.accumulate(self.latency[key] for key in keys))
        keys, below = self._ordered
        return keys[bisect.bisect_left(below, max(1, p * self.timed))]

    def mean(self, metric: str) -> float | None:
        """The metric's mean; None where nothing was reported."""
        n, total = self.metrics.get(metric, (0, 0.0))
        return total / n if n else None
