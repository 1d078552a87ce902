"""The tests of a plan, and the harm that each of them bets against.

1. A test bets against "the harm is within what is tolerated", with the margins of the plan's guardrails.
2. Turned round, for plans that ask for proof, the arms swap places and the bet is against harm of the size of a margin.
3. What makes a test of means sharpest comes from the plan, or from the level or the spread in earlier windows.

Called by the ledger, which folds windows into them.
"""

import math
from collections.abc import Container, Mapping

from whimbrel.gate.design_effect import Alikeness
from whimbrel.gate.evidence import BoundFold, MeanFold, one_sided_rho
from whimbrel.gate.guardrails import (
    MOST_OF_VARIANCE,
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
from whimbrel.gate.restarted_tests import LeadingCopy, MeanTest, RateTest
from whimbrel.gate.restarts import Restarts
from whimbrel.health.sketch import steps_of
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import MEASURES, SHARES, TOLERATED_DROP, TOLERATED_RATIO, Mean, Quantile, Rate
from whimbrel.plan.plan import Plan

LATENCY = "latency"  # of tallied pairs: how alike the sessions of one device are


class Tests:
    """The tests of one stage's devices: of all, or of one slice. `alike`: how constant they are, by measure."""

    __slots__ = ("alike", "means", "rates")

    def __init__(
        self, rates: dict[str, RateTest], means: dict[str, MeanTest], *, alike: Mapping[str, Alikeness]
    ) -> None:
        self.rates, self.means, self.alike = rates, means, alike

    def begin(self, hour: int) -> None:
        """Hour `hour` of the stage has come: copies of the tests begin anew."""
        for rate in self.rates.values():
            rate.begin(hour)
        for mean in self.means.values():
            mean.begin(hour)

    def log_e(self, name: str) -> float:
        """ln E of one of them."""
        test = self.rates.get(name) or self.means.get(name)
        return test.log_e() if test is not None else 0.0

    def leading_copy(self, name: str) -> LeadingCopy | None:
        """The copy that carries most of the evidence of one of them; None: that is the test which stands."""
        test = self.rates.get(name) or self.means.get(name)
        return test.leading() if test is not None else None


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
        """Those of all devices of a stage."""
        alike = {name: Alikeness() for name in (*self.rates, LATENCY)}
        ratios = {name: self.margins.ratios[name] for name in self.rates}
        ratios |= dict.fromkeys(self.quantiles, 1.0)
        ratios |= {over_limit(limit_ms): TOLERATED_RATIO for limit_ms in self.limits_ms}
        rates = {
            name: RateTest(ratio, alike[alike_in(name, self.rates)], restarts=Restarts())
            for name, ratio in ratios.items()
        }
        means = {name: MeanTest(self._mean_test(name), restarts=Restarts()) for name in self.means}
        return Tests(rates, means, alike=alike)

    def _mean_test(self, name: str) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.rise(margin) if direction == "higher_is_worse" else MeanFold.drop(margin)
        if name in self.margins.ratios:
            return MeanFold.growth(self.margins.ratios[name])
        if name in self.margins.rises:
            return MeanFold.rise(self.margins.rises[name])
        return MeanFold.drop(self.margins.drops[name], share=name in SHARES)

    def of_slice(self, everyone: Tests) -> Tests:
        """Those of one slice. Its devices are taken to be at least as constant as `everyone`."""
        alike = {name: Alikeness() for name in self.class_rates}
        rates = {
            name: RateTest(self.margins.ratios[name], own, everyone.alike[name], restarts=Restarts())
            for name, own in alike.items()
        }
        means = {name: MeanTest(self._mean_test(name), restarts=Restarts()) for name in self.class_means}
        return Tests(rates, means, alike=alike)

    def reversed(self, everyone: Tests) -> Tests | None:
        """The tests turned round, without copies: proof is of the whole stage. None where a plan asks for none."""
        criteria = self.proven
        if criteria is None:
            return None
        ratios = {name: self._reverse_ratio(name, criteria) for name in self.rates}
        ratios |= dict.fromkeys(self.quantiles, 1.0)
        rates = {
            name: RateTest(ratio, everyone.alike[alike_in(name, self.rates)].swapped())
            for name, ratio in ratios.items()
        }
        means = {name: MeanTest(self._reverse_mean(name, criteria)) for name in self.means}
        return Tests(rates, means, alike=everyone.alike)

    def _reverse_ratio(self, name: str, criteria: SuccessCriteria) -> float:
        margin = criteria.limit_on(MEASURES[name].estimate, "ratio") or PROVEN_RATIO
        return 1 / max(margin, self.margins.ratios[name])

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
        if isinstance(fold, MeanFold) and fold.share:
            if not fold.begins:
                return None
            return sharpest_at(min(SEEN_DROP - TOLERATED_DROP, MOST_OF_VARIANCE * fold.variance_c), alpha=self._alpha)
        if metric in self.margins.drops:
            return sharpest_at(SEEN_DROP - TOLERATED_DROP, alpha=self._alpha)
        before = fold.before_c if fold.before_c.n > 1 else fold.before_t
        if before.n <= 1:
            return None
        return sharpest_at(SEEN_DEVIATIONS * math.sqrt(before.variance()), alpha=self._alpha)


def alike_in(name: str, rates: Container[str]) -> str:
    """What the windows of a device have in common, for a test of this name: the rate itself, or its latency."""
    return name if name in rates else LATENCY


def sharpest_at(difference: float, *, alpha: float) -> float:
    """The mixture's parameter with which a test of means finds a difference of this size soonest."""
    return one_sided_rho(v_opt=2 * math.log(1 / alpha) / difference**2, alpha=min(alpha, 0.4))


def over_limit(limit_ms: float) -> str:
    """The name of the test of the sessions over a limit of latency: every limit of a plan has one."""
    return f"latency_over:{limit_ms}"
