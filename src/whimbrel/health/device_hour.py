"""What the devices on one version tell in an hour, as sums in which each device is one unit: a *device-hour*.

1. A device counts once in an hour, however often it reports: with a crash or without, used or not, and with one value
   a measure, the mean over its windows of this hour. While the hour is open, what changed in that is added, so the sums
   are right after every report.
2. What cannot be revised is told once: latency and predictions are those of the first window of the hour that has any.
   Both count as shares that add up to 1 (latency: to 10,000), so that a chatty device is one unit.
3. `pairs` say how far the hours of one device are alike (health/pairs.py): each hour of a device with its earlier hours
   of the same day (UTC), added when the device is heard in a later hour.
4. The sums merge in any order, over classes, hours and days.

Pure. Called by the tally of standing monitors (flows/monitors/count_hours); what is proven by the sums: gate/monitor.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from whimbrel import limits
from whimbrel.health.pairs import Pairs
from whimbrel.health.report import Summary, Window
from whimbrel.health.sketch import key_of
from whimbrel.health.tally import Moments
from whimbrel.model.documents import Document

LATENCY_PARTS = 10_000  # that a device-hour's latencies add up to
HOURS_A_DAY = 24
CRASH, ERROR, USAGE = "crash", "error", "usage"  # among `pairs`, besides metrics

_LATENCY, _PREDICTIONS = 1, 2  # bits of `DeviceHour.told`


class Spread(Document, frozen=True):
    """n values, one a device-hour, their sum and the sum of their squares: they may also say what changed in these."""

    n: int = 0
    sum: float = 0.0
    sumsq: float = 0.0

    def plus(self, other: "Spread") -> "Spread":
        """Both together."""
        return Spread(n=self.n + other.n, sum=self.sum + other.sum, sumsq=self.sumsq + other.sumsq)

    @property
    def mean(self) -> float | None:
        """The mean of the values; None of none."""
        return self.sum / self.n if self.n > 0 else None

    @property
    def variance(self) -> float:
        """Of one value, between the units."""
        return max(0.0, (self.sumsq - self.sum * self.sum / self.n) / (self.n - 1)) if self.n > 1 else 0.0


class HourSums(Document, frozen=True):
    """Sums over the device-hours of one version, of one hardware class or of all.

    `used`: device-hours with a session or an inference; `crashed`: with a crash; `errors`: one share of errors a
    device-hour with inferences. `peaks`: of metrics that are watched for it, highest values by bucket of the sketch.
    `busiest`: the most device-hours of a single hour among those that were added (0: this is a single hour).
    """

    devices: int = 0
    used: int = 0
    crashed: int = 0
    errors: Spread = Spread()
    metrics: dict[str, Spread] = {}
    peaks: dict[str, dict[int, int]] = {}
    latency_units: int = 0
    latency: dict[int, int] = {}
    prediction_units: int = 0
    predictions: dict[int, Moments] = {}
    pairs: dict[str, Pairs] = {}
    busiest: int = 0

    def plus(self, other: "HourSums") -> "HourSums":
        """Both together, of one hour."""
        return add_up([self, other])

    def then(self, later: "HourSums") -> "HourSums":
        """These, and those of another hour or day: `busiest` is that of the busier one."""
        both = self.plus(later)
        return msgspec.structs.replace(both, busiest=max(self.most_at_once, later.most_at_once))

    @property
    def most_at_once(self) -> int:
        """The most devices of a single hour: so many devices there are at least."""
        return self.busiest or self.devices


class DeviceHour(msgspec.Struct, frozen=True, array_like=True):
    """What one device told of one version in an hour so far, and in the earlier hours of that day.

    `means`: windows and the sum of their means, by metric; `errors`: the same of the share of errors. `peaks`: buckets
    of the highest values. `earlier`: hours and the sum of their values, by measure.
    """

    hour: int  # since 1970 (UTC)
    hardware_class: str = ""
    used: bool = False
    crashed: bool = False
    errors: tuple[int, float] = (0, 0.0)
    means: dict[str, tuple[int, float]] = {}
    peaks: dict[str, int] = {}
    told: int = 0
    earlier: dict[str, tuple[int, float]] = {}

    def values(self) -> dict[str, float]:
        """The device's value of each measure in this hour. A metric that has the name of a measure is left out."""
        values = {name: total / n for name, (n, total) in self.means.items() if n}
        values |= {CRASH: float(self.crashed), USAGE: float(self.used)}
        if self.errors[0]:
            values[ERROR] = self.errors[1] / self.errors[0]
        return values


def fold_window(
    before: DeviceHour | None,
    window: Window,
    *,
    hour: int,
    metrics: Mapping[str, Summary],
    peaks: Collection[str] = (),
    bins: int = 0,
) -> tuple[DeviceHour, HourSums]:
    """The device's hour with one window more, and what that changes in the sums of its class.

    `before`: the device's newest hour on this version. `metrics`: the window's, as far as they are credible. `peaks`:
    metrics that are watched for their peak. `bins`: of the version's reference; predictions beyond them are left out.
    """
    pairs: dict[str, Pairs] = {}
    if first := before is None or before.hour != hour:
        state, pairs = _begun(before, window, hour=hour)
    else:
        state = before
    used, crashed = state.used or window.sessions > 0 or window.inferences > 0, state.crashed or window.crashed > 0
    error_share = window.errors / window.inferences if window.inferences else None
    errors, more_errors = _folded(state.errors, error_share)
    means, more_means = dict(state.means), {}
    for name, told in metrics.items():
        if name not in means and len(means) >= limits.HEALTH_METRICS:
            continue
        means[name], more_means[name] = _folded(means.get(name, (0, 0.0)), told.sum / told.n)
    highest, more_peaks = _raised(state.peaks, metrics, peaks)
    latency, predictions = _latency(window, state.told), _predictions(window, state.told, bins)
    after = DeviceHour(
        hour=hour,
        hardware_class=state.hardware_class,
        used=used,
        crashed=crashed,
        errors=errors,
        means=means,
        peaks=highest,
        told=state.told | (_LATENCY if latency else 0) | (_PREDICTIONS if predictions else 0),
        earlier=state.earlier,
    )
    return after, HourSums(
        devices=int(first),
        used=int(used) - int(state.used),
        crashed=int(crashed) - int(state.crashed),
        errors=more_errors,
        metrics=more_means,
        peaks=more_peaks,
        latency_units=1 if latency else 0,
        latency=latency,
        prediction_units=1 if predictions else 0,
        predictions=predictions,
        pairs=pairs,
    )


def _begun(before: DeviceHour | None, window: Window, *, hour: int) -> tuple[DeviceHour, dict[str, Pairs]]:
    """A new hour of a device; the hour before it is over, and is paired with those before that of the same day."""
    earlier: dict[str, tuple[int, float]] = {}
    pairs: dict[str, Pairs] = {}
    if before is not None and before.hour // HOURS_A_DAY == hour // HOURS_A_DAY and before.hour < hour:
        earlier = dict(before.earlier)
        for name, value in before.values().items():
            n, total = earlier.get(name, (0, 0.0))
            if n:
                pairs[name] = Pairs.of(value, before=n, total=total)
            earlier[name] = (n + 1, total + value)
    return DeviceHour(hour=hour, hardware_class=window.hardware_class, earlier=earlier), pairs


def _folded(before: tuple[int, float], value: float | None) -> tuple[tuple[int, float], Spread]:
    """A device's mean with one window more, and what that changes in the sums of its kind."""
    if value is None:
        return before, Spread()
    n, total = before[0] + 1, before[1] + value
    old, new = (before[1] / before[0] if before[0] else 0.0), total / n
    return (n, total), Spread(n=int(n == 1), sum=new - old, sumsq=new * new - old * old)


def _raised(
    before: Mapping[str, int], metrics: Mapping[str, Summary], wanted: Collection[str]
) -> tuple[dict[str, int], dict[str, dict[int, int]]]:
    """The device's peaks, and how the counts of their buckets change."""
    highest, changes = dict(before), {}
    for name in sorted(set(wanted) & metrics.keys()):
        told = metrics[name]
        peak = told.peak if told.peak is not None else told.sum / told.n  # an old agent's highest is its mean at least
        key = key_of(peak)
        old = highest.get(name)
        if old is None or key > old:
            highest[name] = key
            changes[name] = {key: 1} if old is None else {old: -1, key: 1}
    return highest, changes


def _latency(window: Window, told: int) -> dict[int, int]:
    """The window's latencies as parts of 10,000; none where the device told some in this hour before."""
    total = sum(window.latency.values())
    if told & _LATENCY or not total:
        return {}
    parts = {key: round(LATENCY_PARTS * count / total) for key, count in window.latency.items()}
    return {key: part for key, part in parts.items() if part}


def _predictions(window: Window, told: int, bins: int) -> dict[int, Moments]:
    counts = {key: count for key, count in window.predictions.items() if key < bins and count}
    total = sum(counts.values())
    if told & _PREDICTIONS or not total:
        return {}
    return {key: Moments.of(count / total) for key, count in sorted(counts.items())}


def add_up(parts: Sequence[HourSums]) -> HourSums:
    """Sums of one hour together, in one pass: a transaction adds up thousands."""
    metrics: dict[str, list[Spread]] = {}
    peaks: dict[str, dict[int, int]] = {}
    latency: dict[int, int] = {}
    predictions: dict[int, Moments] = {}
    pairs: dict[str, Pairs] = {}
    for part in parts:
        for name, spread in part.metrics.items():
            metrics.setdefault(name, []).append(spread)
        for name, counts in part.peaks.items():
            _count(peaks.setdefault(name, {}), counts)
        _count(latency, part.latency)
        for key, moments in part.predictions.items():
            predictions[key] = predictions[key].plus(moments) if key in predictions else moments
        for name, pair in part.pairs.items():
            pairs[name] = pairs[name].plus(pair) if name in pairs else pair
    return HourSums(
        devices=sum(part.devices for part in parts),
        used=sum(part.used for part in parts),
        crashed=sum(part.crashed for part in parts),
        errors=_spread([part.errors for part in parts]),
        metrics={name: _spread(spreads) for name, spreads in sorted(metrics.items())},
        peaks={name: _present(counts) for name, counts in sorted(peaks.items())},
        latency_units=sum(part.latency_units for part in parts),
        latency=_present(latency),
        prediction_units=sum(part.prediction_units for part in parts),
        predictions=dict(sorted(predictions.items())),
        pairs=dict(sorted(pairs.items())),
        busiest=max((part.busiest for part in parts), default=0),
    )


def _spread(parts: Sequence[Spread]) -> Spread:
    if len(parts) == 1:
        return parts[0]
    return Spread(
        n=sum(part.n for part in parts), sum=sum(part.sum for part in parts), sumsq=sum(part.sumsq for part in parts)
    )


def _count(total: dict[int, int], counts: Mapping[int, int]) -> None:
    for key, count in counts.items():
        total[key] = total.get(key, 0) + count


def _present(counts: Mapping[int, int]) -> dict[int, int]:
    return {key: counts[key] for key in sorted(counts) if counts[key]}
