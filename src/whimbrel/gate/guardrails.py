"""What is watched during a rollout, and which share of the false-alarm budget has each of it?

1. Weights are fixed by the plan before anything is seen: an average of E-values with fixed weights is an E-value.
2. A stage's cohort has a test of its own, since a control device stands in several cohorts and its crash may enter a
   product once. Earlier cohorts start extra copies at later stages: healthy history would drag a late regression's
   evidence down.
3. A plan's guardrails change margins, severities and shares, and add tests of means for metrics of the devices' own.
   What a test of a limit does when it is proven follows the guardrail of what it limits.
4. Rates and accuracy have half of their share on all devices together, and half evenly on the slices of each label.

Used by the ledger, the gate and whoever folds many simulated rollouts at once.
"""

import msgspec

from whimbrel.health.sketch import steps_of
from whimbrel.plan.criteria import DRIFT_PSI_MAX, Direction, Severity, bound_name
from whimbrel.plan.plan import Plan

TOLERATED_RATIO = 1.1  # crash, error, silence and battery within this of the control's are no harm
TOLERATED_DROP = 0.005  # half a point of accuracy
TOLERATED_SLOWER = steps_of(1.1)  # buckets: latency within 10% of the control's
TOLERATED_FEEDBACK = 0.02  # two points of the share of thumbs up
FAILURE_LIMIT = 0.02  # installs that fail or go back: the control's rate is 0, so one sample against this
LATENCY_TAIL = 0.01  # p99: at most this share over the limit
SEEN_DROP = 0.02  # the drop of accuracy at which the mean test is made sharpest
SEEN_BATTERY = 0.1  # the growth beyond what is tolerated at which the battery's test is made sharpest
SEEN_DEVIATIONS = 0.1  # of a metric of one's own: the difference, in deviations between devices, of the sharpest test
SEEN_DRIFT = 0.1  # of the index, beyond its limit, at which its test is made sharpest
PROVEN_RATIO = 2.0  # margin of `when_proven`, where the plan names none: rates, latency and battery below twice
PROVEN_DROP = 0.02  # and accuracy within two points
PROVEN_ALPHA = 0.05  # of every test turned round; no correction, since every one of them must pass
KILL_LEAST, KILL_SHARE = (
    2,
    0.1,
)  # devices, and of those that tried it: so many that go back by themselves stop it at once
RARE = 0.001  # events this rare are proven by an upper bound, where too few happen for a comparison

QUANTILES = {"latency_p50": 0.5, "latency_p95": 0.95, "latency_p99": 0.99}
RATES = ("crash", "error", "silence")
BY_CLASS = (*RATES, "accuracy")
CLASS_SHARE = 0.5
_FIRST = 0.8  # of all: the first stage's cohort, where harm should be found
_RESTARTED = 0.1  # of a cohort's share: its copies that start at later stages

# How much is bet on each of the seven gains: harm of two or three times is what rollouts meet.
BETS = (0.04, 0.2, 0.38, 0.22, 0.08, 0.05, 0.03)

# Parts of the budget. Crashes have most: they are what a rollout is stopped for, and the rarest evidence.
_PARTS = {
    "crash": 12.0,
    "accuracy": 3.0,
    "error": 2.0,
    "silence": 2.0,
    "failure": 1.0,
    "latency_p50": 1.5,
    "latency_p95": 3.0,
    "latency_p99": 0.5,
}
_BY_PLAN = {
    "error_limit": 1.0,
    "latency_limit": 1.0,
    "latency_over": 1.0,
    "battery": 1.0,
    "feedback": 1.0,
    "user_reports": 2.0,
    "drift": 1.0,
}
_VERSION_REPORTS_PART = 0.5  # tickets that name a version alone: the weaker evidence
_OWN_PART = 1.0  # a metric of the devices' own, and a bound of a mean
# What a limit's test does when it is proven is what the guardrail of this metric does.
_FOLLOWS = {"error_limit": "error", "latency_limit": "latency_p99", "latency_over": "latency_p99"}


def guard_weights(plan: Plan) -> dict[str, float]:
    """Each guardrail's share of the budget; criteria of any stage take their place from the start."""
    every = [plan.criteria(index) for index in range(len(plan.stages))]
    named = {each.metric: each for each in plan.guardrails}
    wanted = named.keys() & _BY_PLAN.keys()
    if any(each.error_rate_max is not None for each in every):
        wanted |= {"error_limit"}
    if any(each.latency_p99_max_ms is not None for each in every):
        wanted |= {"latency_limit", "latency_over"}
    if any(each.battery_increase_max is not None for each in every):
        wanted |= {"battery"}
    if any("feedback" in each.floors for each in every):
        wanted |= {"feedback"}
    if any(each.user_reports_ratio_max is not None for each in every):
        wanted |= {"user_reports"}
    if drift_limits(plan):
        wanted |= {"drift"}
    parts = _PARTS | {name: part for name, part in _BY_PLAN.items() if name in wanted}
    if "user_reports" in wanted:
        parts["version_reports"] = _VERSION_REPORTS_PART
    parts |= {name: _OWN_PART for name, each in named.items() if each.own}
    parts |= {bound.name: _OWN_PART for bound in bounds(plan)}
    parts |= {name: each.weight for name, each in named.items() if each.weight is not None}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def compared_means(plan: Plan) -> tuple[str, ...]:
    """The metrics whose means are compared with the control's, in the order of their tests."""
    weights = guard_weights(plan)
    return tuple(name for name in ("accuracy", "battery", "feedback", *margins(plan).own) if name in weights)


def tested_means(plan: Plan) -> frozenset[str]:
    """The metrics whose means are compared with anything: of these a device's windows are told apart."""
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
    found = set()
    for index in range(len(plan.stages)):
        criteria = plan.criteria(index)
        found |= {Bound(metric, floor=True, limit=limit) for metric, limit in criteria.floors.items()}
        found |= {Bound(metric, floor=False, limit=limit) for metric, limit in criteria.ceilings.items()}
    return sorted(found)


def drift_at(plan: Plan, stage: int) -> float | None:
    """The index that predictions may reach at a stage: the stage's limit, or the guardrail's; None: not watched."""
    said = next((each for each in plan.guardrails if each.metric == "drift"), None)
    of_guardrail = None if said is None else said.margin if said.margin is not None else DRIFT_PSI_MAX
    limit = plan.criteria(stage).drift_psi_max
    return limit if limit is not None else of_guardrail


def drift_limits(plan: Plan) -> list[float]:
    """Every limit of drift that is in force at some stage."""
    every = {drift_at(plan, index) for index in range(len(plan.stages))}
    return sorted(limit for limit in every if limit is not None)


class Margins(msgspec.Struct, frozen=True, kw_only=True):
    """The harm that each test tolerates under a plan. `ratios`: over the control's; `drops`: below it.

    `slower`: buckets of latency. `own`: metrics of the devices' own, what is worse, and the difference that is
    tolerated.
    """

    ratios: dict[str, float]
    drops: dict[str, float]
    slower: dict[str, int]
    failure: float
    own: dict[str, tuple[Direction, float]]


def margins(plan: Plan) -> Margins:
    """The defaults, and what the plan's guardrails say instead."""
    named = {each.metric: each for each in plan.guardrails}
    said = {name: each.margin for name, each in named.items() if each.margin is not None}
    own = {name: (each.direction, said[name]) for name, each in named.items() if each.own}
    return Margins(
        ratios={name: said.get(name, TOLERATED_RATIO) for name in (*RATES, "battery", "user_reports")},
        drops={"accuracy": said.get("accuracy", TOLERATED_DROP), "feedback": said.get("feedback", TOLERATED_FEEDBACK)},
        slower={name: steps_of(said[name]) if name in said else TOLERATED_SLOWER for name in QUANTILES},
        failure=said.get("failure", FAILURE_LIMIT),
        own={name: (direction, margin) for name, (direction, margin) in own.items() if direction is not None},
    )


def severities(plan: Plan) -> dict[str, Severity]:
    """What the proof of each test does; `rollback` where the plan says nothing."""
    said: dict[str, Severity] = {each.metric: each.severity for each in plan.guardrails}
    if said.get("user_reports", "rollback") == "rollback":
        said["version_reports"] = "hold"  # nobody knows which devices could have written: a person decides
    follows = _FOLLOWS | {"version_reports": "user_reports"} | {bound.name: bound.metric for bound in bounds(plan)}
    return {name: said.get(name) or said.get(follows.get(name, ""), "rollback") for name in guard_weights(plan)}


class Copy(msgspec.Struct, frozen=True):
    """A test of stage `cohort`'s devices over the windows since stage `start` began, with its share of the budget."""

    cohort: int
    start: int
    weight: float


def copies(stages: int) -> list[Copy]:
    """All copies of a rollout of so many stages; their weights add up to 1."""
    made = []
    for cohort in range(stages):
        share = 1.0 if stages == 1 else _FIRST if cohort == 0 else (1 - _FIRST) / (stages - 1)
        later = stages - 1 - cohort
        made.append(Copy(cohort, cohort, share * (1 - _RESTARTED) if later else share))
        made += [Copy(cohort, start, share * _RESTARTED / later) for start in range(cohort + 1, stages)]
    return made


def cohort_share(stages: int, cohort: int) -> float:
    """The share of a cohort with all its copies."""
    return sum(copy.weight for copy in copies(stages) if copy.cohort == cohort)
