"""What harm could a stage detect? The smallest that it would prove, and how long a harm of a size takes to be proven.

1. The tests, weights and margins are the gate's own.
2. Usage is an assumption, and says where it comes from: how often a device is in use, how often one crashes, how far
   a metric varies between devices.
3. Times are those after which the evidence is expected to reach the line; half of the rollouts take longer.

Pure; called by `plan check`.
"""

import math
from collections.abc import Sequence

import msgspec

from whimbrel.gate.evidence import GAINS, RateWindow, mean_log_e, rate_log_e
from whimbrel.gate.guardrails import CLASS_SHARE, SEEN_DROP, cohort_share, guard_weights, margins
from whimbrel.gate.hypotheses import sharpest_at
from whimbrel.gate.restarts import RESTARTED
from whimbrel.plan.measures import TOLERATED_DROP
from whimbrel.plan.plan import Plan

POWER = 0.8
RATIOS = (1.5, 2.0, 3.0)
DROP = 0.02  # of accuracy
_HOURS_MAX = 24 * 365 * 10.0  # beyond ten years: not in this rollout


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the devices of a model do. `active_an_hour`: windows with a session, a device and hour."""

    active_an_hour: float = 1.0
    crash_rate: float = 0.01  # of such windows
    accuracy_sd: float | None = 0.37  # of a device's mean in a window: one answer each, 84% of them right
    source: str = "assumed, since no rollout of this model has told enough yet"


class DetectableHarm(msgspec.Struct, frozen=True, kw_only=True):
    """The harm that a stage proves in its hours with its devices; None: no harm of that kind."""

    crash_ratio: float | None  # the smallest that is proven within the stage, with 80% chance
    hours_to_see: dict[str, float | None]  # by the crash ratio: 1.5, 2, 3
    hours_to_see_drop: float | None  # of accuracy, by two points


def detectable_harm(
    plan: Plan, *, stage: int, treated: float, control: float, hours: float, usage: Usage
) -> DetectableHarm:
    """The harm that stage `stage` of a plan would prove."""
    crash = plan.alpha * _weight(plan, "crash", stage)
    tolerance = margins(plan).ratios["crash"]
    windows_t, windows_c = treated * usage.active_an_hour, control * usage.active_an_hour  # an hour
    smallest = detectable_ratio(
        exposure_t=windows_t * hours,
        exposure_c=windows_c * hours,
        events_c=usage.crash_rate * windows_c * hours,
        alpha=crash,
        power=POWER,
        tolerance=tolerance,
    )
    waits: dict[str, float | None] = {}
    for ratio in RATIOS:
        waits[f"{ratio:g}"] = None
        if windows_t and windows_c and usage.crash_rate:
            events = rate_events_needed(ratio=ratio, share=windows_t / windows_c, alpha=crash, tolerance=tolerance)
            waits[f"{ratio:g}"] = _within(events / usage.crash_rate / windows_t)
    return DetectableHarm(
        crash_ratio=None if smallest is None else round(smallest, 2),
        hours_to_see=waits,
        hours_to_see_drop=_hours_to_see_drop(plan, stage=stage, rates=(windows_t, windows_c), usage=usage),
    )


def rate_events_needed(*, ratio: float, share: float, alpha: float, tolerance: float = 1.0) -> float:
    """Expected baseline events in T before E reaches 1/alpha, at a true `ratio` and rho = eT/eC = `share`."""
    gain = min(GAINS, key=lambda g: abs(g - ratio / tolerance))
    p0 = tolerance * share / (tolerance * share + 1)
    p1 = gain * tolerance * share / (gain * tolerance * share + 1)
    drift = ratio * math.log(p1 / p0) + math.log((1 - p1) / (1 - p0)) / share
    if drift <= 0:
        return math.inf
    return (math.log(1 / alpha) + math.log(len(GAINS))) / drift


def detectable_ratio(
    *, exposure_t: float, exposure_c: float, events_c: float, alpha: float, power: float, tolerance: float
) -> float | None:
    """The smallest true rate ratio that would have been proven with probability `power`, given these exposures.

    Treats the treated events as Poisson and asks how many of them would have carried E to 1/alpha in one window. None
    where no ratio up to 1000 would have been seen: such an arm proves nothing.
    """
    if exposure_t <= 0 or exposure_c <= 0:
        return None
    rate = max(events_c, 0.5) / exposure_c  # half an event: the usual stand-in for "none yet" (Jeffreys)
    needed = _events_to_prove(exposure_t, exposure_c, events_c, alpha=alpha, tolerance=tolerance)
    if needed is None:
        return None
    ratio = 1.0
    while ratio <= 1000:
        if _poisson_at_least(needed, mean=ratio * rate * exposure_t) >= power:
            return ratio
        ratio *= 1.02
    return None


def _events_to_prove(
    exposure_t: float, exposure_c: float, events_c: float, *, alpha: float, tolerance: float
) -> int | None:
    def proven(events: int) -> bool:
        window = RateWindow(events, exposure_t, events_c, exposure_c)
        return rate_log_e([window], ratio=tolerance) >= math.log(1 / alpha)

    high = 1
    while not proven(high):
        high *= 2
        if high > 2**40:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proven(middle) else (middle, high)
    return high


def _poisson_at_least(count: int, *, mean: float) -> float:
    if mean > 1000:  # the normal approximation is good to three digits here
        return 0.5 * math.erfc((count - 0.5 - mean) / math.sqrt(2 * mean))
    below = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(min(count, 4000)))
    return max(0.0, 1 - below)


def _hours_to_see_drop(plan: Plan, *, stage: int, rates: Sequence[float], usage: Usage) -> float | None:
    windows_t, windows_c = rates
    if usage.accuracy_sd is None or not windows_t or not windows_c:
        return None
    alpha = plan.alpha * _weight(plan, "accuracy", stage)
    rho = sharpest_at(SEEN_DROP - TOLERATED_DROP, alpha=plan.alpha)
    an_hour = 1 / (usage.accuracy_sd**2 * (1 / windows_t + 1 / windows_c))  # precision

    def proven(hours: float) -> bool:
        precision = an_hour * hours
        drop = (DROP - margins(plan).drops["accuracy"]) * precision
        return mean_log_e(precision=precision, total=drop, rho=rho) >= math.log(1 / alpha)

    low, high = 0.0, 1.0
    while not proven(high):
        low, high = high, high * 2
        if high > _HOURS_MAX:
            return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if proven(middle) else (middle, high)
    return _within(high)


def _weight(plan: Plan, guard: str, stage: int) -> float:
    """The share of the budget that a guardrail has on all devices of a stage, from the stage's beginning."""
    return guard_weights(plan)[guard] * cohort_share(len(plan.stages), stage) * (1 - CLASS_SHARE) * (1 - RESTARTED)


def _within(hours: float) -> float | None:
    return round(hours, 2) if hours <= _HOURS_MAX else None
