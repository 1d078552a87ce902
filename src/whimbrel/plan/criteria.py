"""Limits of a stage and guardrails of a plan, as a person may write them: understood or refused.

1. A limit that is not a number, that two fields say differently, or that can hold nothing is refused.
2. A guardrail changes a test that is there (margin, severity, share of the budget), or adds one for a metric of the
   devices' own. The table of measures knows the worse direction of the former; a plan must say that of the latter.
3. An absent limit asks for nothing; it is never read as zero.

How each is detected and judged: docs/reference/plan.md.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label
from whimbrel.plan.measures import LIMITS, MEASURES, Compared, Direction, Severity

Fraction = Annotated[float, Meta(ge=0, le=1)]
Bound = Annotated[float, Meta(ge=-1e15, le=1e15)]  # a metric's, in its own unit
Bounds = Annotated[dict[Label, Bound], Meta(max_length=limits.GUARDRAILS)]
Ratio = Annotated[float, Meta(ge=1, le=1000)]  # the new version's rate over the control's

# Fields that bound the mean of a metric, and which metric each of them is about.
_FLOORS = {"accuracy_min": "accuracy", "feedback_min": "feedback"}
_CEILINGS = {"battery_max": "battery", "memory_mb_max": "memory_mb"}


class SuccessCriteria(Document, frozen=True):
    """Limits a stage must keep. How each is detected and judged: docs/reference/plan.md."""

    accuracy_drop_max: Fraction | None = None  # control's mean minus the new version's, in units of the metric
    error_rate_max: Fraction | None = None  # errors an inference
    latency_p99_max_ms: Annotated[float, Meta(gt=0)] | None = None
    crash_ratio_max: Ratio | None = None
    latency_increase_max: Annotated[float, Meta(gt=0, le=100)] | None = None  # of p99: 0.5 is half as much again
    battery_increase_max: Annotated[float, Meta(gt=0, le=100)] | None = None  # of the mean of the metric `battery`
    user_reports_ratio_max: Ratio | None = None  # of tickets a device and window
    drift_psi_max: Annotated[float, Meta(gt=0, le=100)] | None = None  # of predictions against the release's reference
    size_bytes_max: Annotated[int, Meta(gt=0, le=limits.ARTIFACT_BYTES)] | None = None  # of the largest variant
    accuracy_min: Fraction | None = None  # of the new version's mean, as the fields below
    feedback_min: Fraction | None = None  # the share of thumbs up
    battery_max: Annotated[float, Meta(gt=0, le=1e15)] | None = None  # in the unit that devices report it in
    memory_mb_max: Annotated[float, Meta(gt=0, le=1e15)] | None = None
    metrics_min: Bounds = {}
    metrics_max: Bounds = {}

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            for each in value.values() if isinstance(value, dict) else (value,):
                if isinstance(each, float) and math.isnan(each):
                    raise ValueError(f"{field} is not a number; leave it out where there is no limit")
        for fields, general in ((_FLOORS, "metrics_min"), (_CEILINGS, "metrics_max")):
            for field, metric in fields.items():
                if getattr(self, field) is not None and metric in getattr(self, general):
                    raise ValueError(f"{field} and {general}.{metric} bound the same metric; keep one of them")
        floors, ceilings = self.floors, self.ceilings
        for metric in sorted(floors.keys() & ceilings.keys()):
            if floors[metric] > ceilings[metric]:
                raise ValueError(f"{metric} must be at least {floors[metric]:g} and at most {ceilings[metric]:g}")

    @property
    def floors(self) -> dict[str, float]:
        """The least that the mean of a metric may be, by metric."""
        return _bounds(self, _FLOORS, self.metrics_min)

    @property
    def ceilings(self) -> dict[str, float]:
        """The most that the mean of a metric may be, by metric."""
        return _bounds(self, _CEILINGS, self.metrics_max)

    def sets(self, criterion: str) -> bool:
        """Whether they set the limit `criterion`, in either of the two forms of a bound."""
        if criterion in _FLOORS:
            return _FLOORS[criterion] in self.floors
        if criterion in _CEILINGS:
            return _CEILINGS[criterion] in self.ceilings
        return getattr(self, criterion) is not None

    def limit_on(self, estimate: str | None, compared: Compared) -> float | None:
        """The limit on an estimate that is compared so with the control's; None where none is set."""
        for limit in LIMITS:
            if (limit.estimate, limit.compared) == (estimate, compared):
                value: float | None = getattr(self, limit.criterion)
                return value
        return None

    def name_of(self, metric: str, *, floor: bool) -> str:
        """How a plan says the bound of `metric`: the field, or the field and the metric."""
        for field, each in (_FLOORS if floor else _CEILINGS).items():
            if each == metric and getattr(self, field) is not None:
                return field
        return f"{'metrics_min' if floor else 'metrics_max'}.{metric}"

    def over(self, earlier: "SuccessCriteria") -> "SuccessCriteria":
        """These, and the earlier ones where these say nothing. Raises `ValueError` where both together hold nothing."""
        newer = {name: getattr(self, name) for name in self.__struct_fields__}
        merged = {
            name: (getattr(earlier, name) | value)
            if isinstance(value, dict)
            else (value if value is not None else getattr(earlier, name))
            for name, value in newer.items()
        }
        # Said in the other of its two forms, a bound is said again: the newer one holds.
        for fields, general in ((_FLOORS, "metrics_min"), (_CEILINGS, "metrics_max")):
            for field, metric in fields.items():
                if newer[field] is not None:
                    merged[general] = {key: bound for key, bound in merged[general].items() if key != metric}
                elif metric in newer[general]:
                    merged[field] = None
        return SuccessCriteria(**merged)


def _bounds(criteria: SuccessCriteria, fields: Mapping[str, str], general: Mapping[str, float]) -> dict[str, float]:
    named = {metric: getattr(criteria, field) for field, metric in fields.items()}
    return {metric: bound for metric, bound in named.items() if bound is not None} | dict(general)


def bound_name(metric: str, *, floor: bool) -> str:
    """The name of the test of a bound, the same in every stage: the field that is made for it, or the general one."""
    fields, general = (_FLOORS, "metrics_min") if floor else (_CEILINGS, "metrics_max")
    return next((field for field, each in fields.items() if each == metric), f"{general}.{metric}")


def bounded_metric(name: str) -> str:
    """The metric that a bound's test is about; a name that is none is itself the metric's."""
    named = _FLOORS | _CEILINGS
    return named.get(name) or name.removeprefix("metrics_min.").removeprefix("metrics_max.")


KNOWN = {name: row for name, row in MEASURES.items() if row.margin is not None}  # those that a guardrail may name
_RENAMED = {"disuse": "usage"}  # in plans that were stored before: the same margin, told from the other side
_TAKEN = {*(MEASURES.keys() - KNOWN.keys()), *_FLOORS, *_CEILINGS}


class Guardrail(Document, frozen=True):
    """One thing that is watched during the whole rollout, and what its proven harm does.

    `margin`: the harm that is tolerated, in the unit of the measure (`KNOWN`); of a metric of one's own, the difference
    of the means, in its own unit. `weight`: its part of the false-alarm budget; crashes have 16, most have 0.5 to 3.
    """

    metric: Label
    margin: Annotated[float, Meta(ge=0, le=1e15)] | None = None
    direction: Direction | None = None
    severity: Severity = "rollback"
    weight: Annotated[float, Meta(ge=0.01, le=100)] | None = None

    def __post_init__(self) -> None:
        if self.metric in _RENAMED:
            msgspec.structs.force_setattr(self, "metric", _RENAMED[self.metric])
        measure = KNOWN.get(self.metric)
        if measure is None:
            if self.metric == "latency":
                raise ValueError("latency has three guardrails: latency_p50, latency_p95 and latency_p99")
            if self.metric in _TAKEN or self.metric.startswith(("metrics_min.", "metrics_max.")):
                raise ValueError(f"{self.metric!r} is the name of a limit's own test; call the metric something else")
            if self.direction is None or self.margin is None:
                raise ValueError(
                    f"{self.metric!r} is a metric of your own: say its direction (higher_is_worse or lower_is_worse) "
                    f"and the margin that is tolerated, in its unit; known by themselves are {', '.join(sorted(KNOWN))}"
                )
            return
        if self.direction not in {None, measure.direction}:
            raise ValueError(f"of {self.metric}, {measure.direction.replace('_', ' ')}; leave the direction out")
        bounds = measure.margin
        if bounds is not None and self.margin is not None and not bounds.least <= self.margin <= bounds.most:
            raise ValueError(f"the margin of {self.metric} is {bounds.unit}; {self.margin:g} came")

    @property
    def own(self) -> bool:
        """Whether it is about a metric that is watched because it says so."""
        return self.metric not in KNOWN


def check_guardrails(guardrails: tuple[Guardrail, ...]) -> None:
    """Raises `ValueError` where a metric has two."""
    metrics = [each.metric for each in guardrails]
    if twice := sorted({metric for metric in metrics if metrics.count(metric) > 1}):
        raise ValueError(f"{', '.join(twice)} has two guardrails; each metric has one")
