"""Does a version keep an objective of its model? Its figure over the objective's window, and whether it is proven.

1. A figure beyond its bound is a breach when it is *proven* within the budget (gate/monitor): a mean that lies beyond
   by chance, or because of three devices, is shown and alerts nobody.
2. Rates and shares are one sample against the bound. A quantile of latency is kept where at most that share of units
   lies above it; a peak where at most 1% of device-hours lie above it. A mean is tested by a normal mixture over
   effective units, from 30 of them on. Drift is the test of a rollout (gate/drift), over hours.
3. Where too little was told, the objective is neither kept nor broken.

Pure. Called by flows/monitors/watch.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from whimbrel.gate.drift import DriftFold
from whimbrel.gate.evidence import EARLIER, mean_log_e, one_sample_log_e
from whimbrel.gate.hypotheses import sharpest_at
from whimbrel.gate.monitor import (
    ALPHA,
    LEAST_VARIANCE,
    Sample,
    crash_sample,
    design_effect,
    error_sample,
    figures_of,
    in_use,
    latency_at,
    latency_over,
    spread_sample,
    summed,
    unpaired_sample,
    usage_sample,
)
from whimbrel.health.device_hour import HourSums
from whimbrel.health.drift import BinSums, expected_shares
from whimbrel.health.sketch import key_of
from whimbrel.plan.objectives import DRIFT, PEAK_SHARE, QUANTILES, Objective

ReadingState = Literal["kept", "beyond", "broken", "too_few", "nothing_told"]
_SEEN_DEVIATIONS = 0.25  # beyond the bound, in deviations between device-hours, at which a mean's test is sharpest
_SEEN_DRIFT = 0.1  # of the index, as in a rollout


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What an objective's window shows. `beyond`: its figure lies beyond the bound, and that may be chance.

    `units`: device-hours that told of it. `value`: the figure; of a peak, the value that 99% of device-hours keep.
    """

    state: ReadingState
    value: float | None
    units: int
    log_e: float = 0.0
    needed: float


def judge_objective(
    objective: Objective, hours: Sequence[HourSums], *, needed: float, reference: Sequence[float] | None = None
) -> Reading:
    """Read an objective over its window's `hours`, oldest first. `reference`: the version's predictions at release."""
    sums = summed(hours)
    if objective.measure == DRIFT:
        return _drift(objective, hours, sums, needed=needed, reference=reference)
    units, value, log_e = _read(objective, sums)
    if not units or value is None:
        return Reading(state="nothing_told", value=None, units=0, needed=needed)
    keeps = value >= objective.bound if objective.floor else value <= objective.bound
    return _reading(objective, value, units, log_e, needed=needed, keeps=keeps)


def _reading(objective: Objective, value: float, units: float, log_e: float, *, needed: float, keeps: bool) -> Reading:
    state: ReadingState = "kept" if keeps else "broken" if log_e >= needed else "beyond"
    if units < objective.least:
        state = "too_few"
    return Reading(state=state, value=value, units=round(units), log_e=log_e, needed=needed)


def _read(objective: Objective, sums: HourSums) -> tuple[float, float | None, float]:
    """(units, figure, ln E of a breach)."""
    name, bound = objective.measure, objective.bound
    figures = figures_of(sums)
    match name:
        case "crash_rate":
            return _share(objective, sums.crashed, in_use(sums), crash_sample(sums), figures.crash_rate)
        case "usage":
            return _share(objective, sums.used, sums.devices, usage_sample(sums), figures.usage)
        case "error_rate":
            return _share(objective, sums.errors.sum, sums.errors.n, error_sample(sums), figures.error_rate)
    if name in QUANTILES:
        over = latency_over(sums, key_of(bound))
        log_e = _over(over, sums.latency_units, 1 - QUANTILES[name], unpaired_sample(sums.latency_units, sums))
        return sums.latency_units, latency_at(sums, QUANTILES[name]), log_e
    if objective.peak:
        counts = sums.peaks.get(name, {})
        units, edge = sum(counts.values()), key_of(bound)
        over = sum(count for key, count in counts.items() if key > edge)
        kept_by_99, _ = figures.peaks.get(name, (None, None))
        return units, kept_by_99, _over(over, units, PEAK_SHARE, unpaired_sample(units, sums))
    spread = sums.metrics.get(name)
    if spread is None or spread.mean is None:
        return 0, None, 0.0
    sample = spread_sample(spread, sums, name)
    beyond = (bound - spread.mean) if objective.floor else (spread.mean - bound)
    return spread.n, round(spread.mean, 9), _mean(beyond, sample)


def _share(
    objective: Objective, events: float, units: float, sample: Sample, value: float | None
) -> tuple[float, float | None, float]:
    if objective.floor:
        return units, value, _over(units - events, units, 1 - objective.bound, sample)
    return units, value, _over(events, units, objective.bound, sample)


def _over(events: float, units: float, limit: float, sample: Sample) -> float:
    if not units:
        return 0.0
    phi = design_effect(sample)
    return max(0.0, one_sample_log_e(events=events / phi, trials=units / phi, limit=limit))


def _mean(beyond: float, sample: Sample) -> float:
    looks = sample.n / design_effect(sample)
    if beyond <= 0 or looks < EARLIER:
        return 0.0
    variance = max(sample.variance, LEAST_VARIANCE)
    precision = looks / variance
    rho = sharpest_at(_SEEN_DEVIATIONS * variance**0.5, alpha=ALPHA)
    return mean_log_e(precision=precision, total=precision * beyond, rho=rho)


def _drift(
    objective: Objective,
    hours: Sequence[HourSums],
    sums: HourSums,
    *,
    needed: float,
    reference: Sequence[float] | None,
) -> Reading:
    if reference is None or not sums.prediction_units:
        return Reading(state="nothing_told", value=None, units=0, needed=needed)
    expected = expected_shares(reference)
    bins, fold = BinSums(len(expected)), DriftFold(expected, limit=objective.bound)
    for each in hours:
        bins.add(each.prediction_units, each.predictions)
        fold.add(each.prediction_units, each.predictions)
    value = bins.index(expected)
    if value is None:
        return Reading(state="too_few", value=None, units=sums.prediction_units, needed=needed)
    log_e = fold.log_e(sharpest_at(_SEEN_DRIFT, alpha=ALPHA))
    keeps = value <= objective.bound
    return _reading(objective, round(value, 6), sums.prediction_units, log_e, needed=needed, keeps=keeps)
