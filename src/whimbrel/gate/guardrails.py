"""What a plan watches during a rollout, and which share of the false-alarm budget each guardrail has.

1. The table of plan/measures.py says what can be watched, and how; a plan chooses from it.
2. Weights are fixed by the plan before anything is seen: an average of E-values with fixed weights is an E-value.
3. A stage's cohort has a test of its own, since a control device stands in several cohorts and its crash may enter a
   product once. Copies of it begin anew every hour (`restarts`): healthy history would drag a late regression's
   evidence down.
4. A plan's guardrails change margins, severities and shares, and add tests of means for metrics of the devices' own.
   What a test of a limit does when it is proven follows the guardrail of what it limits.
5. Rates and accuracy have half of their share on all devices together, and half evenly on the slices of each label.

Used by the ledger, the gate and whoever folds many simulated rollouts at once.
"""

import msgspec

from whimbrel.health.sketch import steps_of
from whimbrel.plan.criteria import bound_name
from whimbrel.plan.measures import (
    DRIFT_PSI_MAX,
    MEASURES,
    TOLERATED_RATIO,
    Direction,
    Mean,
    Measure,
    Quantile,
    Rate,
    Severity,
)
from whimbrel.plan.plan import Plan

TOLERATED_SLOWER = steps_of(TOLERATED_RATIO)  # buckets: latency within 10% of the control's
LATENCY_TAIL = 0.01  # p99: at most this share over the limit
SEEN_DROP = 0.04  # the drop of a share at which its mean's test is made sharpest
MOST_OF_VARIANCE = (
    0.5  # and not more than this times its variance: rare wrong answers come in lumps, not in normal sums
)
SEEN_GROWTH = 0.1  # of the control's mean: the growth beyond what is tolerated at which the test is made sharpest
SEEN_DEVIATIONS = 0.1  # of a metric of one's own: the difference, in deviations between devices, of the sharpest test
SEEN_DRIFT = 0.1  # of the index, beyond its limit, at which its test is made sharpest
PROVEN_RATIO = 2.0  # margin of `when_proven`, where the plan names none: rates, latency and battery below twice
PROVEN_DROP = 0.02  # and accuracy within two points
PROVEN_WARMER = 10.0  # degrees: and the temperature within ten
PROVEN_ALPHA = 0.05  # of every test turned round; no correction, since every one of them must pass
RARE = 0.001  # events this rare are proven by an upper bound, where too few happen for a comparison

CLASS_SHARE = 0.5
_FIRST = 0.8  # of all: the first stage's cohort, where harm should be found
_OWN_PART = 1.0  # a metric of the devices' own, and a bound of a mean

# How much is bet on each of the seven gains: harm of two or three times is what rollouts meet.
BETS = (0.04, 0.2, 0.38, 0.22, 0.08, 0.05, 0.03)


def watched(plan: Plan) -> list[Measure]:
    """The measures that a plan has tests of; a limit of any stage has its place from the start."""
    every = [plan.criteria(index) for index in range(len(plan.stages))]
    named = {each.metric for each in plan.guardrails}
    rows: dict[str, Measure] = {}
    for row in MEASURES.values():
        asked = row.name in named or any(criteria.sets(limit) for criteria in every for limit in row.asked_by)
        if row.always or asked or row.beside in rows:
            rows[row.name] = row
    return list(rows.values())


def guard_weights(plan: Plan) -> dict[str, float]:
    """Each guardrail's share of the budget: of measures, of the devices' own metrics, and of bounds."""
    named = {each.metric: each for each in plan.guardrails}
    parts = {row.name: row.part for row in watched(plan)}
    parts |= {name: _OWN_PART for name, each in named.items() if each.own}
    parts |= {bound.name: _OWN_PART for bound in bounds(plan)}
    parts |= {name: each.weight for name, each in named.items() if each.weight is not None}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def by_class(plan: Plan) -> list[Measure]:
    """The measures that are tested by slices, too."""
    return [row for row in watched(plan) if row.by_class]


def compared_means(plan: Plan) -> tuple[str, ...]:
    """The metrics whose means are compared with the control's, in the order of their tests."""
    return (*(row.name for row in watched(plan) if isinstance(row.test, Mean)), *margins(plan).own)


def tested_means(plan: Plan) -> frozenset[str]:
    """The metrics whose means are tested: the tally keeps, of these, how a device's windows are alike."""
    return frozenset(compared_means(plan)) | {bound.metric for bound in bounds(plan)}


class Bound(msgspec.Struct, frozen=True, order=True):
    """A limit that some stage sets on the mean of a metric."""

    metric: str
    floor: bool
    limit: float

    @property
    def name(self) -> str:
        """Of its test: one for all the limits that the stages set, since one is in force at a time."""
        return bound_name(self.metric, floor=self.floor)


def bounds(plan: Plan) -> list[Bound]:
    """Every limit on a mean that any stage sets."""
    every = set()
    for index in range(len(plan.stages)):
        criteria = plan.criteria(index)
        every |= {Bound(metric, floor=True, limit=limit) for metric, limit in criteria.floors.items()}
        every |= {Bound(metric, floor=False, limit=limit) for metric, limit in criteria.ceilings.items()}
    return sorted(every)


def drift_at(plan: Plan, stage: int) -> float | None:
    """The index that predictions may reach at a stage: the stage's limit, or the guardrail's; None: not watched."""
    guardrail = next((each for each in plan.guardrails if each.metric == "drift"), None)
    of_guardrail = None if guardrail is None else guardrail.margin if guardrail.margin is not None else DRIFT_PSI_MAX
    limit = plan.criteria(stage).drift_psi_max
    return limit if limit is not None else of_guardrail


def drift_limits(plan: Plan) -> list[float]:
    """Every limit of drift that is in force at some stage."""
    every = {drift_at(plan, index) for index in range(len(plan.stages))}
    return sorted(limit for limit in every if limit is not None)


class Margins(msgspec.Struct, frozen=True, kw_only=True):
    """The harm that each test tolerates under a plan. `ratios`: over the control's; `drops`: below it; `rises`: above.

    `slower`: buckets of latency. `own`: metrics of the devices' own, what is worse, and the difference that is
    tolerated.
    """

    ratios: dict[str, float]
    drops: dict[str, float]
    rises: dict[str, float]
    slower: dict[str, int]
    failure: float
    own: dict[str, tuple[Direction, float]]


def margins(plan: Plan) -> Margins:
    """The defaults of the measures, and what the plan's guardrails say instead."""
    named = {each.metric: each for each in plan.guardrails}
    tolerated = {row.name: row.margin.default for row in MEASURES.values() if row.margin is not None}
    tolerated |= {name: each.margin for name, each in named.items() if each.margin is not None}
    tests = {name: MEASURES[name].test for name in tolerated if name in MEASURES}
    harms = {name: test.harm for name, test in tests.items() if isinstance(test, Mean)}
    own = {name: (each.direction, tolerated[name]) for name, each in named.items() if each.own}
    return Margins(
        ratios={
            name: tolerated[name]
            for name, test in tests.items()
            if isinstance(test, Rate) or harms.get(name) == "growth"
        },
        drops={name: tolerated[name] for name, harm in harms.items() if harm == "drop"},
        rises={name: tolerated[name] for name, harm in harms.items() if harm == "rise"},
        slower={name: steps_of(tolerated[name]) for name, test in tests.items() if isinstance(test, Quantile)},
        failure=tolerated["failure"],
        own={name: (direction, margin) for name, (direction, margin) in own.items() if direction is not None},
    )


def severities(plan: Plan) -> dict[str, Severity]:
    """What the proof of each test does; `rollback` where the plan says nothing."""
    chosen: dict[str, Severity] = {each.metric: each.severity for each in plan.guardrails}
    follows = {row.name: row.follows or "" for row in MEASURES.values()}
    follows |= {bound.name: bound.metric for bound in bounds(plan)}
    for row in MEASURES.values():
        if row.severest != "rollback" and chosen.get(follows[row.name], "rollback") == "rollback":
            chosen[row.name] = row.severest
    return {name: chosen.get(name) or chosen.get(follows.get(name, ""), "rollback") for name in guard_weights(plan)}


def cohort_share(stages: int, cohort: int) -> float:
    """The share of the budget of a stage's cohort; all of them add up to 1."""
    if stages == 1:
        return 1.0
    return _FIRST if cohort == 0 else (1 - _FIRST) / (stages - 1)
