"""What did one device tell in one tally window? All its reports of the window, as one report.

1. A device is one device in a tally window, however often it reports in it, or however much it tells after it was out
   of reach: counts are added up, a crash or a session in any report is one, and a mean is that of all that was
   measured. So a device adds at most one unit to every sum that a gate tests.
2. One session stands for the latency of a device in a window. It is drawn from all that were timed, each with the same
   chance, so a device with a million fast sessions is one fast device. The chance is an argument: a replay draws alike.
3. A device stays in the sums in which it was first counted in the window: its arm, age group, class and slices.
4. `values` is what the window says of its device: how alike these are from one window to the next is tallied
   (health/pairs.py).

Kept with a device's place in a cohort while the window is open; added to a tally by health/tally.py.
"""

from collections.abc import Collection
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.health.report import ERROR_RATE, Bin, HardwareClass, Role, Slices, Window
from whimbrel.health.shadow import ShadowSums, fits
from whimbrel.health.sketch import Key, key_at
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label

CRASH, ERROR, USAGE, LATENCY = "crash", "error", "usage", "latency"
VALUES = frozenset({CRASH, ERROR, USAGE, LATENCY})  # what every window says of its device, beside its metrics

_Sum = Annotated[int, Meta(ge=0)]
_MOST = 2**53  # sessions among which one is drawn: a count beyond it says nothing more


class Measured(Document, frozen=True):
    """What was measured of a metric: how many values, and their sum."""

    n: _Sum
    sum: float

    @property
    def mean(self) -> float:
        """The device's value in the window."""
        return self.sum / self.n


class DeviceWindow(Document, frozen=True):
    """The reports of one device in the tally window `window`. `age_bucket` to `slices`: where it is counted.

    `latency`: the sketch bucket of the session that stands for all `timed` ones. `shadow`: without its latencies.
    `differences`: of metrics that an experiment compares, the mean less the control's level.
    """

    window: _Sum
    role: Role
    age_bucket: _Sum = 0
    hardware_class: HardwareClass = ""
    slices: Slices = {}
    sessions: _Sum = 0
    crashed: Annotated[int, Meta(ge=0, le=1)] = 0
    inferences: _Sum = 0
    errors: _Sum = 0
    metrics: Annotated[dict[Label, Measured], Meta(max_length=limits.SESSION_METRICS)] = {}
    latency: Key | None = None
    timed: _Sum = 0
    predictions: Annotated[dict[Bin, _Sum], Meta(max_length=limits.REFERENCE_BINS)] = {}
    shadow: ShadowSums | None = None
    differences: dict[Label, float] = {}

    def plus(self, report: Window, *, chance: int) -> "DeviceWindow":
        """With one report more. `chance`: a number of 64 random bits, the report's own."""
        latency, timed = self._draw(report.latency, chance)
        metrics = dict(self.metrics)
        for name, told in report.metrics.items():
            before = metrics.get(name)
            if before is not None:
                metrics[name] = Measured(n=before.n + told.n, sum=before.sum + told.sum)
            elif told.n and len(metrics) < limits.SESSION_METRICS:
                metrics[name] = Measured(n=told.n, sum=told.sum)
        predictions = self.predictions
        if report.predictions:
            keys = sorted({*predictions, *report.predictions})
            predictions = {key: predictions.get(key, 0) + report.predictions.get(key, 0) for key in keys}
        return msgspec.structs.replace(
            self,
            sessions=self.sessions + report.sessions,
            crashed=max(self.crashed, report.crashed),
            inferences=self.inferences + report.inferences,
            errors=self.errors + report.errors,
            metrics=metrics,
            latency=latency,
            timed=timed,
            predictions=predictions,
            shadow=_both(self.shadow, report.shadow),
        )

    def _draw(self, latency: dict[int, int], chance: int) -> tuple[int | None, int]:
        """The session that stands for all timed ones: the one before, or one of these, as many as they are."""
        more = sum(latency.values())
        if not more:
            return self.latency, self.timed
        place = chance % (self.timed + more)
        key = self.latency if place < self.timed else key_at(latency, place - self.timed)
        return key, min(_MOST, self.timed + more)

    @property
    def used(self) -> bool:
        """Whether anybody used the model in the window: what crashed or ran was in use."""
        return bool(self.sessions or self.crashed or self.inferences)

    @property
    def error_share(self) -> float:
        """Errors an inference; 0 without any."""
        return self.errors / self.inferences if self.inferences else 0.0

    def means(self) -> dict[str, float]:
        """The mean of every metric; `error_rate` too, unless the app has a metric of that name."""
        means = {ERROR_RATE: self.error_share} if self.inferences else {}
        return means | {name: measured.mean for name, measured in self.metrics.items()}

    def values(self, tested: Collection[str]) -> dict[str, float]:
        """What the window says of its device: crash and usage (0 or 1), error share, latency's bucket, tested means.

        Each is told by the windows that its rate is out of: a crash by those in use, errors by those in which it ran.
        A metric that has the name of one of the others leaves both out: windows count as those of other devices there.
        """
        values: dict[str, float] = {USAGE: 1 if self.used else 0}
        if self.used:  # a rate is one of windows in use, and so are its pairs
            values[CRASH] = self.crashed
        if self.inferences:
            values[ERROR] = self.error_share
        if self.latency is not None:
            values[LATENCY] = self.latency
        for name in tested:
            if name in VALUES:
                values.pop(name, None)
            elif name in self.metrics:
                values[name] = self.metrics[name].mean
        return values


def _both(before: ShadowSums | None, report: ShadowSums | None) -> ShadowSums | None:
    """The sums of both, without latencies. What a sum cannot hold any more is left out."""
    if report is None:
        return before
    told = msgspec.structs.replace(report, active={}, candidate={})
    if before is None:
        return told
    together = before.plus(told)
    return together if fits(together) else before
