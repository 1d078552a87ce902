"""The tests of a plan, and the harm that each of them bets against.

1. A test bets against "the harm is within what is tolerated", with the margins of the plan's guardrails.
2. Turned round, for plans that ask for proof, the arms swap places and the bet is against harm of the size of a margin.
3. What makes a test of means sharpest comes from the plan, or from the level or the spread in earlier windows.

Called by the ledger, which folds windows into them.
"""

import math

from whimbrel.gate.evidence import BoundFold, MeanFold, RateFold, one_sided_rho
from whimbrel.gate.guardrails import (
    BETS,
    PROVEN_DROP,
    PROVEN_RATIO,
    PROVEN_WARMER,
    SEEN_DEVIATIONS,
    SEEN_DROP,
    SEEN_GROWTH,
    by_class,
    compared_means,
    margins,
    watched,
)
from whimbrel.health.sketch import steps_of
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import MEASURES, TOLERATED_DROP, TOLERATED_RATIO, Mean, Quantile, Rate
from whimbrel.plan.plan import Plan


class Tests:
    """The tests of one copy, for all devices or one class."""

    __slots__ = ("means", "rates", "rhos")

    def __init__(self, rates: dict[str, RateFold], means: dict[str, MeanFold]) -> None:
        self.rates, self.means = rates, means
        self.rhos: dict[str, float] = {}

    def log_e(self, name: str) -> float:
        """ln E of one of them."""
        if name in self.rates:
            return self.rates[name].log_e(BETS)
        if name in self.means and name in self.rhos:
            return self.means[name].log_e(self.rhos[name])
        return 0.0


class Hypotheses:
    """The tests of one plan. `rates` and `quantiles`: of which sums; `means`: of which metrics.

    `class_rates` and `class_means`: those of a slice. `limits_ms`: every limit of latency that some stage sets.
    """

    def __init__(self, plan: Plan) -> None:
        rows, sliced = watched(plan), by_class(plan)
        self.margins = margins(plan)
        self.rates = {row.name: row.test for row in rows if isinstance(row.test, Rate)}
        self.quantiles = {row.name: row.test.p for row in rows if isinstance(row.test, Quantile)}
        self.means = compared_means(plan)
        self.class_rates = tuple(row.name for row in sliced if isinstance(row.test, Rate))
        self.class_means = tuple(row.name for row in sliced if isinstance(row.test, Mean))
        every = [plan.criteria(index) for index in range(len(plan.stages))]
        self.limits_ms = sorted({each.latency_p99_max_ms for each in every if each.latency_p99_max_ms is not None})
        self.proven = every[-1] if plan.promote == "when_proven" else None
        self._alpha = plan.alpha

    def tests(self) -> Tests:
        """Those of one copy, for all devices."""
        rates = {name: RateFold(self.margins.ratios[name]) for name in self.rates}
        rates |= {name: RateFold(1.0) for name in self.quantiles}
        rates |= {over_limit(limit_ms): RateFold(TOLERATED_RATIO) for limit_ms in self.limits_ms}
        return Tests(rates, {name: self._mean_test(name) for name in self.means})

    def _mean_test(self, name: str) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.rise(margin) if direction == "higher_is_worse" else MeanFold.drop(margin)
        if name in self.margins.ratios:
            return MeanFold.growth(self.margins.ratios[name])
        if name in self.margins.rises:
            return MeanFold.rise(self.margins.rises[name])
        return MeanFold.drop(self.margins.drops[name])

    def of_slice(self) -> Tests:
        """Those of one slice."""
        return Tests(
            {name: RateFold(self.margins.ratios[name]) for name in self.class_rates},
            {name: self._mean_test(name) for name in self.class_means},
        )

    def reversed(self) -> Tests | None:
        """The tests turned round; None where the plan asks for no proof."""
        criteria = self.proven
        if criteria is None:
            return None
        rates = {name: self._reverse_rate(name, criteria) for name in self.rates}
        rates |= {name: RateFold(1.0) for name in self.quantiles}
        return Tests(rates, {name: self._reverse_mean(name, criteria) for name in self.means})

    def _reverse_rate(self, name: str, criteria: SuccessCriteria) -> RateFold:
        margin = criteria.limit_on(MEASURES[name].estimate, "ratio") or PROVEN_RATIO
        return RateFold(1 / max(margin, self.margins.ratios[name]))

    def _reverse_mean(self, name: str, criteria: SuccessCriteria) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.at_most(margin) if direction == "higher_is_worse" else MeanFold.at_least(margin)
        estimate = MEASURES[name].estimate
        if name in self.margins.ratios:
            margin = 1 + (criteria.limit_on(estimate, "increase") or PROVEN_RATIO - 1)
            return MeanFold.growth_within(max(margin, self.margins.ratios[name]))
        if name in self.margins.rises:
            return MeanFold.at_most(max(PROVEN_WARMER, self.margins.rises[name]))
        return MeanFold.at_least(max(criteria.limit_on(estimate, "drop") or PROVEN_DROP, self.margins.drops[name]))

    def steps_proven(self) -> int:
        """Buckets of latency within which a version is to be proven."""
        increase = self.proven.latency_increase_max if self.proven else None
        return steps_of(1 + increase if increase else PROVEN_RATIO)

    def rho(self, metric: str, fold: MeanFold | BoundFold) -> float | None:
        """The mixture's parameter; but for shares, it depends on the level or the spread in earlier windows."""
        if metric in self.margins.ratios and isinstance(fold, MeanFold):
            if not fold.before_c.n or not fold.before_c.sum:
                return None
            return sharpest_at(SEEN_GROWTH * abs(fold.before_c.sum / fold.before_c.n), alpha=self._alpha)
        if metric in self.margins.drops:
            return sharpest_at(SEEN_DROP - TOLERATED_DROP, alpha=self._alpha)
        before = fold.before_c if fold.before_c.n > 1 else fold.before_t
        if before.n <= 1:
            return None
        return sharpest_at(SEEN_DEVIATIONS * math.sqrt(before.variance()), alpha=self._alpha)


def sharpest_at(difference: float, *, alpha: float) -> float:
    """The mixture's parameter with which a test of means finds a difference of this size soonest."""
    return one_sided_rho(v_opt=2 * math.log(1 / alpha) / difference**2, alpha=min(alpha, 0.4))


def over_limit(limit_ms: float) -> str:
    """The name of the test of the sessions over a limit of latency: every limit of a plan has one."""
    return f"latency_over:{limit_ms}"
