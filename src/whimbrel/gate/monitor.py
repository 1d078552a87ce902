"""What is proven by the figures of a version that nobody compares in a rollout? What every standing monitor rests on.

1. *The unit* is a device-hour (health/device_hour): one device in one hour, whatever it reports.
2. *Device-hours of one device are no independent looks.* Every sum is divided by the design effect before it is
   tested: phi = 1 + rho (r - 1), Kish's, with r the hours a device, at most (device-hours over the devices of the
   busiest hour), and rho the likeness of two hours of one device from their pairs, with one standard error added. Of
   latency, peaks and predictions no pairs are kept, and rho is 1: a device is one look, however many hours it reports.
3. *One budget* a model and month: with the default of 5%, a model whose versions are all well has at most one month in
   twenty with any false alarm. Half is the objectives', half the anomalies'. Each test that begins in a month has an
   equal part of it: an objective begins one every hour for each version (its window slides), an anomaly one every
   three hours. A test that may be looked at any time is an E-process (gate/evidence): it fires where ln E reaches
   ln(tests / alpha).

Pure. Read by `monitor_objectives` and `monitor_anomalies`, which have the two kinds of monitors.
"""

import math
from collections.abc import Sequence

import msgspec

from whimbrel.health.device_hour import CRASH, ERROR, LATENCY_PARTS, USAGE, HourSums, Spread, add_up
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.sketch import GAMMA, quantile_key

ALPHA = 0.05  # a model and month, of all its monitors together
OBJECTIVES_PART = 0.5  # of it
HOURS_A_MONTH = 744
ANOMALY_BEGINS_H = 3  # hours between two tests: what begins late is not diluted by the hours before
LEAST_VARIANCE = 1e-6  # as in gate/evidence: a metric that never varied must not prove a breach at once


def needed(*, tests: int, part: float) -> float:
    """The ln E at which one of `tests` that begin in a month fires; `part`: of the budget that they share."""
    return math.log(max(1, tests) / (ALPHA * part))


class Sample(msgspec.Struct, frozen=True):
    """How many units a figure is made of, the most of them in one hour, their variance, and pairs of one device."""

    n: float
    busiest: float
    variance: float
    pairs: Pairs = NO_PAIRS
    paired: bool = True  # whether pairs of it are kept at all


def design_effect(*samples: Sample) -> float:
    """How many device-hours are worth one independent look, of arms that are compared: the larger of theirs."""
    with_units = [each for each in samples if each.n > 0]
    repeated = max((each.n / max(1.0, each.busiest) for each in with_units), default=1.0)
    likeness = max((_likeness(each) for each in with_units), default=1.0)
    return max(1.0, 1 + likeness * (repeated - 1))


def _likeness(sample: Sample) -> float:
    """The correlation of two hours of one device, and one standard error; 1 where nothing tells of it."""
    if not sample.paired or sample.pairs.freedom <= 1:
        return 1.0
    covariance = sample.pairs.product / sample.pairs.freedom
    correlation = covariance / max(sample.variance, LEAST_VARIANCE)
    return min(1.0, max(0.0, correlation) + 1 / math.sqrt(sample.pairs.freedom))


def in_use(sums: HourSums) -> int:
    """Device-hours in which the version was used; all of them where no device tells of sessions."""
    return max(sums.used, sums.crashed) if sums.used else sums.devices


def crash_sample(sums: HourSums) -> Sample:
    """Of device-hours in use, those with a crash."""
    return _share_sample(sums.crashed, in_use(sums), sums, CRASH)


def usage_sample(sums: HourSums) -> Sample:
    """Of device-hours, those with a session."""
    return _share_sample(sums.used, sums.devices, sums, USAGE)


def error_sample(sums: HourSums) -> Sample:
    """Of device-hours with inferences, the share of errors of each."""
    return spread_sample(sums.errors, sums, ERROR)


def spread_sample(spread: Spread, sums: HourSums, name: str) -> Sample:
    """Of a measure with one value a device-hour."""
    return Sample(spread.n, _busiest(spread.n, sums), spread.variance, sums.pairs.get(name, NO_PAIRS))


def unpaired_sample(units: float, sums: HourSums) -> Sample:
    """Of what has no pairs."""
    return Sample(units, _busiest(units, sums), 0.0, paired=False)


def _share_sample(events: float, units: float, sums: HourSums, name: str) -> Sample:
    share = events / units if units else 0.0
    return Sample(units, _busiest(units, sums), share * (1 - share), sums.pairs.get(name, NO_PAIRS))


def _busiest(units: float, sums: HourSums) -> float:
    """The most units of one hour: those of the busiest one, as far as its devices tell of this at all."""
    return sums.most_at_once * min(1.0, units / sums.devices) if sums.devices else 0.0


def summed(hours: Sequence[HourSums]) -> HourSums:
    """Hours one after another, in one pass."""
    if len(hours) == 1:
        return hours[0]
    return msgspec.structs.replace(add_up(hours), busiest=max((each.most_at_once for each in hours), default=0))


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a version over some hours, for people and scripts; None where nothing was told.

    `means`: of metrics, over device-hours. `peaks`: of metrics that are watched for their peak, the value that 99% of
    device-hours keep below, and the highest.
    """

    device_hours: int
    devices: int  # at least: the most of one hour
    usage: float | None
    crash_rate: float | None
    error_rate: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    means: dict[str, float] = {}
    peaks: dict[str, tuple[float, float]] = {}


def figures_of(sums: HourSums) -> Figures:
    """The figures that sums amount to."""
    used = in_use(sums)
    p50, p95, p99 = (latency_at(sums, p) for p in (0.5, 0.95, 0.99))
    return Figures(
        device_hours=sums.devices,
        devices=sums.most_at_once,
        usage=_share(sums.used, sums.devices),
        crash_rate=_share(sums.crashed, used),
        error_rate=_rounded(sums.errors.mean),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
        means={name: round(spread.mean, 9) for name, spread in sums.metrics.items() if spread.mean is not None},
        peaks={name: _peak(counts) for name, counts in sums.peaks.items() if counts},
    )


def latency_at(sums: HourSums, p: float) -> float | None:
    """A quantile of the latencies, each device-hour one unit, in ms."""
    key = quantile_key(sums.latency, p)
    return None if key is None else round(GAMMA**key, 3)


def latency_over(sums: HourSums, edge: int) -> float:
    """Of the device-hours with latencies, how many units lie above gamma^edge."""
    return sum(parts for key, parts in sums.latency.items() if key > edge) / LATENCY_PARTS


def _peak(counts: dict[int, int]) -> tuple[float, float]:
    key = quantile_key(counts, 0.99)
    highest = max(counts)
    return round(GAMMA ** (highest if key is None else key), 3), round(GAMMA**highest, 3)


def _share(events: float, units: float) -> float | None:
    return round(events / units, 9) if units else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)
