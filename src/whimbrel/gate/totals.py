"""What did one arm of a cohort report in all? Sums over its windows: what point estimates are made of.

Kept by the ledger; read by the estimates and the gate.
"""

from whimbrel.health.tally import Cell


class Totals:
    """Sums of one arm, of all devices or of a slice."""

    __slots__ = (
        "at_risk",
        "crashed",
        "due",
        "error_share",
        "error_units",
        "latency",
        "metrics",
        "overdue",
        "user_reports",
    )

    def __init__(self) -> None:
        self.at_risk = self.crashed = self.error_units = self.due = self.overdue = self.user_reports = 0
        self.error_share = 0.0
        self.metrics: dict[str, tuple[int, float]] = {}
        self.latency: dict[int, int] = {}

    def add(self, cell: Cell) -> None:
        """One cell more."""
        self.at_risk += cell.at_risk
        self.crashed += cell.crashed
        self.error_units += cell.error_units
        self.error_share += cell.error_share
        self.due += cell.due
        self.overdue += cell.overdue
        self.user_reports += cell.user_reports
        for name, seen in cell.metrics.items():
            n, total = self.metrics.get(name, (0, 0.0))
            self.metrics[name] = n + seen.n, total + seen.sum
        for key, count in cell.latency.items():
            self.latency[key] = self.latency.get(key, 0) + count

    def mean(self, metric: str) -> float | None:
        """The metric's mean; None where nothing was reported."""
        n, total = self.metrics.get(metric, (0, 0.0))
        return total / n if n else None
