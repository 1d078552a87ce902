"""The tally: reports as sums, which merge in any order and can be judged.

Key: (rollout, stage, window, role, hardware class, other slices, age bucket). A window is the server's, numbered by the
time at which a report is tallied; a late report counts in the window that is open when it comes. Windows that are over
never change.

A device-window is one tally window of one device, however often the device reports in it (health/device_window.py).
What is told later in the window changes the sums (`less`): a crash flag rises, a mean moves, `at_risk` stays.

`pairs` say how far the windows of one device are alike (health/pairs.py): their values are not independent. They are
kept of metrics whose means are tested, and as `crash`, `error`, `usage` and `latency` of what every window says.

`panels` (of experiments, by metric) are the one part that stands for more than its window: the sums up to a window are
the state after it.

Units: `at_risk` is device-windows, `crashed` device-windows with a crash, `error_share` the sum over device-windows of
errors/inferences (each in [0, 1], so that one device with a million requests is one unit), metrics one value (the mean)
a device-window, and `latency` one session a device-window: the one that was drawn to stand for all of them.
"""

import bisect
from collections.abc import Collection, Mapping
from typing import Annotated, Protocol, Self, TypeVar

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.health.device_window import VALUES, DeviceWindow
from whimbrel.health.pairs import Pairs
from whimbrel.health.panel import Panel, Value
from whimbrel.health.report import Bin, HardwareClass, Role, Slices, Stage
from whimbrel.health.shadow import Units, change, merged
from whimbrel.health.slices import slices_of
from whimbrel.model.documents import Document, encode
from whimbrel.model.ids import Label

AGE_EDGES_H = (1.0, 3.0, 6.0, 12.0, 24.0)  # statistics: compare like ages; 0-1 h, 1-3, 3-6, 6-12, 12-24, 24+


Sum = Annotated[int, Meta(ge=0)]  # of any number of devices: what bounds one report does not bound a sum


class Moments(Document, frozen=True):
    """n values, one a device-window, their sum and the sum of their squares."""

    n: Sum
    sum: float
    sumsq: Annotated[float, Meta(ge=0)]

    def plus(self, other: "Moments") -> "Moments":
        """Both together."""
        return Moments(n=self.n + other.n, sum=self.sum + other.sum, sumsq=self.sumsq + other.sumsq)

    def less(self, other: "Moments") -> "Moments":
        """What brings sums that hold `other` to sums that hold this instead."""
        return Moments(n=self.n - other.n, sum=self.sum - other.sum, sumsq=self.sumsq - other.sumsq)

    @classmethod
    def of(cls, value: float) -> "Moments":
        """One value."""
        return cls(n=1, sum=value, sumsq=value * value)


class Cell(Document, frozen=True):
    """The sums of one key within one rollout."""

    stage: Stage
    window: Annotated[int, Meta(ge=0)]
    role: Role
    hardware_class: HardwareClass = ""
    slices: Slices = {}
    age_bucket: Annotated[int, Meta(ge=0, le=len(AGE_EDGES_H))] = 0
    at_risk: Sum = 0
    sessions: Sum = 0
    unused: Sum = 0  # device-windows without a session
    crashed: Sum = 0
    error_units: Sum = 0
    error_share: Annotated[float, Meta(ge=0)] = 0.0
    error_squares: Annotated[float, Meta(ge=0)] = 0.0  # of the error share
    metrics: Annotated[dict[Label, Moments], Meta(max_length=64)] = {}
    pairs: Annotated[dict[Label, Pairs], Meta(max_length=64 + len(VALUES))] = {}  # of tested means, and of windows
    latency: Annotated[dict[int, Sum], Meta(max_length=limits.SKETCH_SUM_BUCKETS)] = {}
    due: Sum = 0
    overdue: Sum = 0
    panels: Annotated[dict[Label, Panel], Meta(max_length=limits.GUARDRAILS + 1)] = {}  # how devices' values changed
    shadow: Units | None = None  # treated cells of a shadow stage alone
    prediction_units: Sum = 0
    predictions: Annotated[dict[Bin, Moments], Meta(max_length=limits.REFERENCE_BINS)] = {}
    user_reports: Sum = 0  # devices that a ticket named
    version_reports: Sum = 0  # tickets that named the arm's version alone

    @property
    def key(self) -> tuple[int, int, str, str, str, int]:
        """What two cells must share to be added; cells in the order of their keys are in the gate's order."""
        return self.window, self.stage, self.role, self.hardware_class, slices_text(self.slices), self.age_bucket

    @property
    def groups(self) -> dict[str, str]:
        """The slices that its devices belong to: the name by label."""
        return slices_of(self.hardware_class, self.slices)


# What is a plain number in a cell, and no part of its key: sums, whatever they count.
_COUNTS = tuple(
    name
    for name, default in zip(
        Cell.__struct_fields__[-len(Cell.__struct_defaults__) :], Cell.__struct_defaults__, strict=True
    )
    if isinstance(default, int | float) and name != "age_bucket"
)


def slices_text(slices: Slices) -> str:
    """The slices as one text, the same for the same slices; empty for none."""
    return encode(sorted(slices.items())).decode() if slices else ""


def age_bucket(age_s: float, *, hour_s: float) -> int:
    """The index of the age group of a device `age_s` seconds after its activation; `hour_s` is a plan's hour."""
    return bisect.bisect_right(AGE_EDGES_H, age_s / hour_s)


def cell_of(
    told: DeviceWindow,
    *,
    stage: int,
    tested: Collection[str] = (),
    past: Mapping[str, Value] | None = None,
) -> Cell:
    """What one device's window adds to a tally. `past`: its earlier windows' values; `tested`: metrics with `pairs`."""
    pairs = {}
    if past:
        for name, value in told.values(tested).items():
            before = past.get(name)
            if before is not None and before.n:
                pairs[name] = Pairs.of(value, before=before.n, total=before.total)
    share = told.error_share
    return Cell(
        stage=stage,
        window=told.window,
        role=told.role,
        hardware_class=told.hardware_class,
        slices=told.slices,
        age_bucket=told.age_bucket,
        at_risk=1,
        sessions=told.sessions,
        unused=0 if told.used else 1,
        crashed=told.crashed,
        error_units=1 if told.inferences else 0,
        error_share=share,
        error_squares=share * share,
        metrics={name: Moments.of(measured.mean) for name, measured in told.metrics.items()},
        pairs=pairs,
        latency={} if told.latency is None else {told.latency: 1},
        shadow=None if told.shadow is None else Units.of(told.shadow),
        prediction_units=1 if any(told.predictions.values()) else 0,
        predictions=_shares(told.predictions),
    )


def less(after: Cell, before: Cell) -> Cell:
    """What brings sums that hold `before` to sums that hold `after` instead. Its counts may be negative.

    Raises `ValueError` where the keys differ. Panels are changes already, and are those of `after`.
    """
    if after.key != before.key:
        raise ValueError(f"cells of different keys cannot be compared: {after.key} and {before.key}")
    shadow = after.shadow
    if shadow is not None and before.shadow is not None:
        shadow = shadow.less(before.shadow)
    return msgspec.structs.replace(
        after,
        **{name: getattr(after, name) - getattr(before, name) for name in _COUNTS},
        metrics=_changed(after.metrics, before.metrics),
        pairs=_changed(after.pairs, before.pairs),
        latency=change(after.latency, before.latency),
        shadow=shadow,
        predictions=_changed(after.predictions, before.predictions),
    )


def settled(cell: Cell) -> Cell:
    """The cell as it can be kept: no sum is a rounding error below zero, and no bucket is left that holds nothing."""
    return msgspec.structs.replace(
        cell,
        error_share=max(0.0, cell.error_share),
        error_squares=max(0.0, cell.error_squares),
        metrics={name: _settled(moments) for name, moments in cell.metrics.items()},
        latency={key: count for key, count in cell.latency.items() if count},
        shadow=None if cell.shadow is None else cell.shadow.settled(),
        predictions={key: _settled(moments) for key, moments in cell.predictions.items()},
    )


def _settled(moments: Moments) -> Moments:
    return moments if moments.sumsq >= 0 else msgspec.structs.replace(moments, sumsq=0.0)


def _shares(counts: dict[int, int]) -> dict[int, Moments]:
    """One device's predictions as shares that add up to 1: a chatty device is one unit."""
    total = sum(counts.values())
    return {key: Moments.of(count / total) for key, count in sorted(counts.items()) if count}


def add(one: Cell, other: Cell) -> Cell:
    """Both together. Raises `ValueError` where the keys differ."""
    if one.key != other.key:
        raise ValueError(f"cells of different keys cannot be added: {one.key} and {other.key}")
    latency = merged(one.latency, other.latency, keys=limits.SKETCH_SUM_BUCKETS)
    return msgspec.structs.replace(
        one,
        **{name: getattr(one, name) + getattr(other, name) for name in _COUNTS},
        metrics=_merged(one.metrics, other.metrics),
        pairs=_merged(one.pairs, other.pairs),
        latency=latency,
        panels=_merged(one.panels, other.panels),
        shadow=one.shadow.plus(other.shadow) if one.shadow and other.shadow else one.shadow or other.shadow,
        predictions=dict(sorted(_merged(one.predictions, other.predictions).items())),
    )


class _Addable(Protocol):
    def plus(self, other: Self, /) -> Self: ...


_Key = TypeVar("_Key")
_Value = TypeVar("_Value", bound=_Addable)


def _merged(one: Mapping[_Key, _Value], other: Mapping[_Key, _Value]) -> dict[_Key, _Value]:
    both = dict(one)
    for name, value in other.items():
        both[name] = both[name].plus(value) if name in both else value
    return both


_Sums = TypeVar("_Sums", Moments, Pairs)


def _changed(after: Mapping[_Key, _Sums], before: Mapping[_Key, _Sums]) -> dict[_Key, _Sums]:
    """By how much the sums of each name changed; what did not change is left out."""
    return {
        name: value.less(before[name]) if name in before else value
        for name, value in after.items()
        if before.get(name) != value
    }
