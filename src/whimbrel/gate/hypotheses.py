"""Which tests does a plan have, and against which harm does each of them bet?

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
    QUANTILES,
    RATES,
    SEEN_BATTERY,
    SEEN_DEVIATIONS,
    SEEN_DROP,
    TOLERATED_DROP,
    TOLERATED_RATIO,
    compared_means,
    guard_weights,
    margins,
)
from whimbrel.health.sketch import steps_of
from whimbrel.plan.criteria import SuccessCriteria
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
    """The tests of one plan. `bounds`: every limit of latency that some stage sets; `means`: the metrics compared."""

    def __init__(self, plan: Plan) -> None:
        self.margins = margins(plan)
        self.means = compared_means(plan)
        every = [plan.criteria(index) for index in range(len(plan.stages))]
        self.bounds = sorted({each.latency_p99_max_ms for each in every if each.latency_p99_max_ms is not None})
        self.proven = every[-1] if plan.promote == "when_proven" else None
        self._users = "user_reports" in guard_weights(plan)
        self._alpha = plan.alpha

    def tests(self) -> Tests:
        """Those of one copy, for all devices."""
        ratios = self.margins.ratios
        rates = {name: RateFold(ratios[name]) for name in RATES}
        rates |= {name: RateFold(1.0) for name in QUANTILES}
        rates |= {f"latency_over:{bound}": RateFold(TOLERATED_RATIO) for bound in self.bounds}
        if self._users:
            rates["user_reports"] = RateFold(ratios["user_reports"])
        return Tests(rates, {name: self._mean_test(name) for name in self.means})

    def _mean_test(self, name: str) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.rise(margin) if direction == "higher_is_worse" else MeanFold.drop(margin)
        if name == "battery":
            return MeanFold.growth(self.margins.ratios[name])
        return MeanFold.drop(self.margins.drops[name])

    def of_slice(self) -> Tests:
        """Those of one slice."""
        return Tests(
            {name: RateFold(self.margins.ratios[name]) for name in RATES}, {"accuracy": self._mean_test("accuracy")}
        )

    def reversed(self) -> Tests | None:
        """The tests turned round; None where the plan asks for no proof."""
        criteria = self.proven
        if criteria is None:
            return None
        wanted = {"crash": criteria.crash_ratio_max or PROVEN_RATIO, "error": PROVEN_RATIO, "silence": PROVEN_RATIO}
        rates = {name: RateFold(1 / max(margin, self.margins.ratios[name])) for name, margin in wanted.items()}
        rates |= {name: RateFold(1.0) for name in QUANTILES}
        if self._users:
            margin = max(criteria.user_reports_ratio_max or PROVEN_RATIO, self.margins.ratios["user_reports"])
            rates["user_reports"] = RateFold(1 / margin)
        return Tests(rates, {name: self._reverse_mean(name, criteria) for name in self.means})

    def _reverse_mean(self, name: str, criteria: SuccessCriteria) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.at_most(margin) if direction == "higher_is_worse" else MeanFold.at_least(margin)
        if name == "battery":
            margin = 1 + (criteria.battery_increase_max or PROVEN_RATIO - 1)
            return MeanFold.growth_within(max(margin, self.margins.ratios[name]))
        asked = criteria.accuracy_drop_max if name == "accuracy" else None
        return MeanFold.at_least(max(asked or PROVEN_DROP, self.margins.drops[name]))

    def steps_proven(self) -> int:
        """Buckets of latency within which a version is to be proven."""
        increase = self.proven.latency_increase_max if self.proven else None
        return steps_of(1 + increase if increase else PROVEN_RATIO)

    def rho(self, name: str, fold: MeanFold | BoundFold) -> float | None:
        """The mixture's parameter; but for shares, it depends on the level or the spread in earlier windows."""
        alpha, seen = self._alpha, SEEN_DROP - TOLERATED_DROP
        if name == "battery" and isinstance(fold, MeanFold):
            if not fold.before_c.n or not fold.before_c.sum:
                return None
            seen = SEEN_BATTERY * abs(fold.before_c.sum / fold.before_c.n)
        elif name not in {"accuracy", "feedback"}:
            before = fold.before_c if fold.before_c.n > 1 else fold.before_t
            if before.n <= 1:
                return None
            seen = SEEN_DEVIATIONS * math.sqrt(before.variance())
        return one_sided_rho(v_opt=2 * math.log(1 / alpha) / seen**2, alpha=min(alpha, 0.4))
