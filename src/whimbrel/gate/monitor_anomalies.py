"""Does a version depart from its own past, or from the versions beside it, although no objective says so?

1. *Like hours with like.* An hour is compared with the same hour of the week before, where that is known, and else of
   the day before; or with the other versions in the same hour and hardware class. So day and week are nobody's harm.
2. *Nothing is used twice.* A test begins every three hours. It lasts a day, or, of those that begin with a day, a week
   where the week before is known: each hour is once on either side. (Tests overlap; each has its part of the budget.)
3. What is tolerated is wide, since weeks differ and devices on other versions are other devices: half as much again of
   crashes and errors, a third less use, a quarter more latency or battery, three points of accuracy, three degrees.
   Beside other versions the ratio that there was in the week before is tolerated too.
4. Rates and latencies are bets on the ratio (gate/evidence); of rates, half of the bet is that the share moved by more
   than some points, which sees it when most devices fail in a small fleet. Means are those of metrics that the table of
   measures knows a direction of. All counts are divided by the design effect of both sides (gate/monitor).

Pure. Called by flows/monitors/watch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from whimbrel.gate.evidence import EARLIER, MeanFold, MeanWindow, RateFold, log_mean_exp, mean_log_e
from whimbrel.gate.hypotheses import sharpest_at
from whimbrel.gate.monitor import (
    ALPHA,
    LEAST_VARIANCE,
    Sample,
    crash_sample,
    design_effect,
    error_sample,
    in_use,
    latency_at,
    latency_over,
    spread_sample,
    summed,
    unpaired_sample,
    usage_sample,
)
from whimbrel.health.device_hour import CRASH, ERROR, USAGE, HourSums, Spread
from whimbrel.health.sketch import quantile_key, steps_of
from whimbrel.plan.measures import MEASURES, TOLERATED_WARMER, Mean

Against = Literal["past", "beside"]

TOLERATED_RATIO = 1.5  # of crashes, errors, and hours without use: weeks differ
TOLERATED_POINTS = {CRASH: 0.05, ERROR: 0.05, USAGE: 0.25}  # of a share that moves: a day of rest is no harm
TOLERATED_GROWTH = 1.25  # of latency, and of metrics that may not grow
TOLERATED_DROP = 0.03  # of metrics that are shares
LATENCY = "latency_p95"
_LATENCY_P = 0.95
_LEAST_EVENTS = 20.0  # on both sides, before the ratio of the past is believed
_RATIO_MOST = 10.0  # of the past: beyond that the versions are not comparable anyway
MEAN_MEASURES = {name: row.test for name, row in MEASURES.items() if isinstance(row.test, Mean)}
TESTED = (CRASH, ERROR, USAGE, LATENCY, *MEAN_MEASURES)


class Compared(msgspec.Struct, frozen=True):
    """One hour of a version, of one class or of all, and what it is compared with."""

    now: HourSums
    other: HourSums


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """How far a measure departs. `now` and `other`: its figures, None where nothing was told; `log_e`: of harm."""

    measure: str
    log_e: float
    now: float | None
    other: float | None
    within: bool  # whether the figures themselves lie within what is tolerated


class _Rate(msgspec.Struct, frozen=True):
    """A share of units: (events, units) of some sums, and the sample that they are."""

    read: Callable[[HourSums], tuple[float, float]]
    sample: Callable[[HourSums], Sample]


_RATES = {
    CRASH: _Rate(lambda sums: (sums.crashed, in_use(sums)), crash_sample),
    ERROR: _Rate(lambda sums: (sums.errors.sum, sums.errors.n), error_sample),
    USAGE: _Rate(lambda sums: (sums.used, sums.devices), usage_sample),
}


def departures(hours: Sequence[Compared], *, before: Sequence[Compared] = ()) -> list[Departure]:
    """Every measure's departure over the `hours` of one test. `before`: the week before, beside other versions."""
    now, other = summed([each.now for each in hours]), summed([each.other for each in hours])
    earlier = _counts(each.now for each in before), _counts(each.other for each in before)
    result = [_rate(name, hours, now, other, earlier) for name in _RATES]
    result.append(_latency(hours, now, other))
    return result + [_mean(name, test, hours, now, other) for name, test in MEAN_MEASURES.items()]


def _counts(hours: Iterable[HourSums]) -> HourSums:
    """What the rates are read from, over all these hours; the rest is left out, since it costs most of the time."""
    devices = used = crashed = n = 0
    total = 0.0
    for each in hours:
        devices, used, crashed = devices + each.devices, used + each.used, crashed + each.crashed
        n, total = n + each.errors.n, total + each.errors.sum
    return HourSums(devices=devices, used=used, crashed=crashed, errors=Spread(n=n, sum=total))


def _rate(
    name: str, hours: Sequence[Compared], now: HourSums, other: HourSums, before: tuple[HourSums, HourSums]
) -> Departure:
    row = _RATES[name]
    phi = design_effect(row.sample(now), row.sample(other))
    tolerated = TOLERATED_RATIO * _ratio_before(row, before, fewer_is_worse=name == USAGE)
    fold = RateFold(tolerated)
    for each in hours:
        events, units = row.read(each.now)
        events_c, units_c = row.read(each.other)
        if units <= 0 or units_c <= 0:
            continue
        sides = (events, units, events_c, units_c) if name != USAGE else (events_c, units_c, events, units)
        fold.add(*(value / phi for value in sides))
    log_e = log_mean_exp([fold.log_e(), _jump(name, row, hours, now, other)], [0.5, 0.5])
    shares = [_share(*row.read(sums)) for sums in (now, other)]
    better, worse = (shares[0], shares[1]) if name == USAGE else (shares[1], shares[0])
    within = better is None or worse is None or worse <= tolerated * better
    return Departure(measure=name, log_e=max(0.0, log_e), now=shares[0], other=shares[1], within=within)


def _jump(name: str, row: _Rate, hours: Sequence[Compared], now: HourSums, other: HourSums) -> float:
    """ln E that a share moved by more than some points: where many devices fail, a ratio of so few looks is weaker.

    A normal mixture over the difference of like hours; both sides must be worth 30 looks.
    """
    samples = row.sample(now), row.sample(other)
    looks = [each.n / design_effect(each) for each in samples]
    if min(looks) < EARLIER:
        return 0.0
    total = weights = 0.0
    for each in hours:
        events, units = row.read(each.now)
        events_c, units_c = row.read(each.other)
        if units > 0 and units_c > 0:
            weight = units * units_c / (units + units_c)
            total += weight * (events / units - events_c / units_c)
            weights += weight
    if not weights:
        return 0.0
    worse = (-total if name == USAGE else total) / weights - TOLERATED_POINTS[name]
    noise = sum(max(each.variance, LEAST_VARIANCE) / n for each, n in zip(samples, looks, strict=True))
    rho = sharpest_at(TOLERATED_POINTS[name], alpha=ALPHA)
    return mean_log_e(precision=1 / noise, total=worse / noise, rho=rho)


def _ratio_before(row: _Rate, before: tuple[HourSums, HourSums], *, fewer_is_worse: bool) -> float:
    """By how much the version was worse than the others before the test began; 1 where it was not, or it is unknown."""
    (events, units), (events_c, units_c) = row.read(before[0]), row.read(before[1])
    if min(events, events_c) < _LEAST_EVENTS:
        return 1.0
    ratio = (events / units) / (events_c / units_c)
    return min(_RATIO_MOST, max(1.0, 1 / ratio if fewer_is_worse else ratio))


def _latency(hours: Sequence[Compared], now: HourSums, other: HourSums) -> Departure:
    phi = design_effect(unpaired_sample(now.latency_units, now), unpaired_sample(other.latency_units, other))
    fold, more = RateFold(1.0), steps_of(TOLERATED_GROWTH)
    for each in hours:
        edge = quantile_key(each.other.latency, _LATENCY_P)
        if edge is None or not each.now.latency_units:
            continue
        sides = (
            latency_over(each.now, edge + more),
            each.now.latency_units,
            latency_over(each.other, edge),
            each.other.latency_units,
        )
        fold.add(*(value / phi for value in sides))
    values = latency_at(now, _LATENCY_P), latency_at(other, _LATENCY_P)
    within = values[0] is None or values[1] is None or values[0] <= TOLERATED_GROWTH * values[1]
    return Departure(measure=LATENCY, log_e=max(0.0, fold.log_e()), now=values[0], other=values[1], within=within)


def _mean(name: str, test: Mean, hours: Sequence[Compared], now: HourSums, other: HourSums) -> Departure:
    spreads = [sums.metrics.get(name, Spread()) for sums in (now, other)]
    means = spreads[0].mean, spreads[1].mean
    if means[0] is None or means[1] is None:
        return Departure(measure=name, log_e=0.0, now=means[0], other=means[1], within=True)
    phi = design_effect(
        *(spread_sample(spread, sums, name) for spread, sums in zip(spreads, (now, other), strict=True))
    )
    fold, size, within = _test_of(test.harm, means[0], means[1])
    for each in hours:
        one, two = each.now.metrics.get(name, Spread()), each.other.metrics.get(name, Spread())
        if one.n and two.n:
            fold.add([_looks(one, two, phi)])
    log_e = fold.log_e(sharpest_at(size, alpha=ALPHA))
    return Departure(measure=name, log_e=log_e, now=means[0], other=means[1], within=within)


def _test_of(harm: str, now: float, other: float) -> tuple[MeanFold, float, bool]:
    """A mean's test, the difference at which it is sharpest, and whether the means lie within what is tolerated."""
    match harm:
        case "growth":
            size = max(abs(other) * (TOLERATED_GROWTH - 1), 1e-9)
            return MeanFold.growth(TOLERATED_GROWTH), size, now <= TOLERATED_GROWTH * other
        case "rise":
            return MeanFold.rise(TOLERATED_WARMER), TOLERATED_WARMER, now <= other + TOLERATED_WARMER
    return MeanFold.drop(TOLERATED_DROP), TOLERATED_DROP, now >= other - TOLERATED_DROP


def _looks(now: Spread, other: Spread, phi: float) -> MeanWindow:
    """Both sides of an hour as independent looks."""
    return MeanWindow(
        n_t=now.n / phi,
        sum_t=now.sum / phi,
        sumsq_t=now.sumsq / phi,
        n_c=other.n / phi,
        sum_c=other.sum / phi,
        sumsq_c=other.sumsq / phi,
    )


def _share(events: float, units: float) -> float | None:
    return events / units if units else None
