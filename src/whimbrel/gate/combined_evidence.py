"""The evidence of harm in all: the weighted average of the E-values of all tests of a rollout.

1. The weights are fixed by the plan before anything is seen, so the whole rollout has one false-alarm budget.
2. A guardrail whose severity is `hold` or `warn` is left out of what goes back; the groups are nested.
3. A limit that the control breaks too proves nothing: the world changed, not the version.

Called by the gate.
"""

import math
from collections.abc import Collection, Mapping

import msgspec

from whimbrel.gate.evidence import log_mean_exp, one_sample_log_e, ratio_bounds
from whimbrel.gate.guardrails import BETS, LATENCY_TAIL, cohort_share
from whimbrel.gate.ledger import Cohort, Lane, Ledger
from whimbrel.gate.totals import Totals
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.health.sketch import count_above
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import MEASURES, OneSample, Rate, Severity
from whimbrel.plan.plan import Plan


class CombinedEvidence(msgspec.Struct, frozen=True):
    """All tests of a rollout, and what the proof of each guardrail does."""

    lanes: list[Lane]
    severities: Mapping[str, Severity]

    def log_e(self, *kinds: Severity) -> float:
        """ln of the weighted sum of the E-values whose proof does one of these things; no kinds: of all."""
        lanes = self._of(kinds)
        return log_mean_exp([lane.log_e for lane in lanes], [lane.weight for lane in lanes]) if lanes else -math.inf

    def lead(self, *kinds: Severity) -> Lane:
        """The test that carries most of it."""
        by_name = sorted(self._of(kinds), key=lambda lane: lane.guardrail)
        return max(by_name, key=lambda lane: lane.log_e + math.log(lane.weight))

    def _of(self, kinds: Collection[Severity]) -> list[Lane]:
        return [lane for lane in self.lanes if not kinds or self.severities[lane.guardrail] in kinds]

    @property
    def best(self) -> dict[str, float]:
        """The greatest ln E of every guardrail."""
        table: dict[str, float] = {}
        for lane in self.lanes:
            table[lane.guardrail] = max(table.get(lane.guardrail, -math.inf), lane.log_e)
        return {name: round(log, 6) for name, log in sorted(table.items())}

    def proven(self, needed: float) -> Severity | None:
        """What is to be done, if anything is proven. The groups are nested: every alarm is one of the whole budget."""
        if self.log_e("rollback") >= needed:
            return "rollback"
        if self.log_e("rollback", "hold") >= needed:
            return "hold"
        return "warn" if self.log_e() >= needed else None


def combine(plan: Plan, now: GateInput, ledger: Ledger, total: Counts) -> CombinedEvidence:
    """Every test with its weight, at the limits in force. `total`: the counts of all stages."""
    criteria = plan.criteria(now.stage)
    lanes = ledger.lanes(limit_ms=criteria.latency_p99_max_ms)
    for stage in range(len(plan.stages)):
        share = cohort_share(len(plan.stages), stage)
        cohort = ledger.cohorts.get(stage)
        for name, test in _one_sample_tests(ledger):
            lanes.append(Lane(name, ledger.weights[name] * share, _limit_log_e(cohort, test, criteria)))
    lanes += ledger.bound_lanes(criteria)
    if "version_reports" in ledger.weights:
        lanes.append(Lane("version_reports", ledger.weights["version_reports"], ledger.version_reports.log_e(BETS)))
    lanes += ledger.drift_lanes(now.stage)
    attempts = total.activated_t + total.failed_t
    failures = one_sample_log_e(
        events=total.failed_t + total.went_back_t, trials=attempts, limit=ledger.margins.failure
    )
    lanes.append(Lane("failure", ledger.weights["failure"], failures))
    if ledger.cluster != 1:
        lanes = [msgspec.structs.replace(lane, log_e=lane.log_e / ledger.cluster) for lane in lanes]
    return CombinedEvidence(lanes, ledger.severities)


def _one_sample_tests(ledger: Ledger) -> list[tuple[str, OneSample]]:
    rows = (row for row in MEASURES.values() if row.name in ledger.weights)
    return [(row.name, row.test) for row in rows if isinstance(row.test, OneSample)]


def _limit_log_e(cohort: Cohort | None, test: OneSample, criteria: SuccessCriteria) -> float:
    """One sample against an absolute limit; no evidence where the control breaks it too, or none is in force."""
    limit = getattr(criteria, test.criterion)
    if cohort is None or not limit:
        return 0.0
    share = limit if test.rate is not None else LATENCY_TAIL
    if share >= 1:
        return 0.0
    events, trials = _counted(cohort.totals["treated"], test, limit)
    events_c, trials_c = _counted(cohort.totals["control"], test, limit)
    if trials_c and events_c / trials_c > share:
        return 0.0
    return one_sample_log_e(events=events, trials=trials, limit=share)


def _counted(totals: Totals, test: OneSample, limit: float) -> tuple[float, float]:
    """What a limit counts in one arm, and out of how many."""
    rate = MEASURES[test.rate].test if test.rate is not None else None
    if isinstance(rate, Rate):
        return totals[rate.events], totals[rate.exposure]
    return count_above(totals.latency, limit), totals.timed


def crash_ratio(ledger: Ledger, stage: int, alpha: float) -> dict[str, float | None]:
    """The confidence set of the crash rate's ratio in the judged cohort."""
    cohort = ledger.cohorts.get(stage)
    low, high = ratio_bounds(cohort.crashes if cohort else [], alpha=alpha, digits=4)
    return {"low": low, "high": high if math.isfinite(high) else None}
