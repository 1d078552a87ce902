"""What is watched during a rollout, and which share of the false-alarm budget has each of it?

1. Weights are fixed by the plan before anything is seen: an average of E-values with fixed weights is an E-value.
2. A stage's cohort has a test of its own, since a control device stands in several cohorts and its crash may enter a
   product once. Earlier cohorts start extra copies at later stages: healthy history would drag a late regression's
   evidence down.
3. Rates and accuracy have half of their share on all devices together, and half evenly on the slices of each label.

Used by the ledger, the gate and whoever folds many simulated rollouts at once.
"""

import msgspec

from whimbrel.health.sketch import steps_of
from whimbrel.rollout.plan import Plan

TOLERATED_RATIO = 1.1  # crash, error, silence and battery within this of the control's are no harm
TOLERATED_DROP = 0.005  # half a point of accuracy
TOLERATED_SLOWER = steps_of(1.1)  # buckets: latency within 10% of the control's
FAILURE_LIMIT = 0.02  # installs that fail or go back: the control's rate is 0, so one sample against this
LATENCY_TAIL = 0.01  # p99: at most this share over the limit
SEEN_DROP = 0.02  # the drop of accuracy at which the mean test is made sharpest
SEEN_BATTERY = 0.1  # the growth beyond what is tolerated at which the battery's test is made sharpest
PROVEN_RATIO = 2.0  # margin of `when_proven`, where the plan names none: rates, latency and battery below twice
PROVEN_DROP = 0.02  # and accuracy within two points
PROVEN_ALPHA = 0.05  # of every test turned round; no correction, since every one of them must pass
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
_BY_PLAN = {"error_limit": 1.0, "latency_limit": 1.0, "latency_over": 1.0, "battery": 1.0}


def guard_weights(plan: Plan) -> dict[str, float]:
    """Each guardrail's share of the budget; criteria of any stage take their place from the start."""
    every = [plan.criteria(index) for index in range(len(plan.stages))]
    wanted = set()
    if any(each.error_rate_max is not None for each in every):
        wanted |= {"error_limit"}
    if any(each.latency_p99_max_ms is not None for each in every):
        wanted |= {"latency_limit", "latency_over"}
    if any(each.battery_increase_max is not None for each in every):
        wanted |= {"battery"}
    parts = _PARTS | {name: part for name, part in _BY_PLAN.items() if name in wanted}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


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
