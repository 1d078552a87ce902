"""Point estimates of both arms of a stage, and the limits that they keep or break: for promotion and for sentences.

1. What was not reported is None, and None keeps no limit: missing data is never good news.
2. A comparative limit is judged against the control; an absolute one for itself, and where the control breaks it too
   that is said: the world changed, not the version.
3. Estimates of measures that a plan must ask for are there only where it asks.

Used by the gate.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from whimbrel.gate.guardrails import LATENCY_TAIL
from whimbrel.gate.totals import Totals
from whimbrel.health.sketch import GAMMA, count_above, quantile_key
from whimbrel.plan.criteria import SuccessCriteria, bounded_metric
from whimbrel.plan.measures import LIMITS, MEASURES, Compared, Form, Mean, Measure, Quantile, Rate


class Asked(msgspec.Struct, frozen=True):
    """A limit in force, and the estimate. `control`: its own, where the limit is absolute. `floor`: not below it."""

    name: str
    value: float | None
    limit: float
    control: float | None = None
    floor: bool = False

    @property
    def broken(self) -> bool:
        """Whether the estimate is past the limit."""
        return self._past(self.value)

    @property
    def control_breaks(self) -> bool:
        """Whether the control does not keep it either."""
        return self._past(self.control)

    def _past(self, value: float | None) -> bool:
        if value is None:
            return False
        return value < self.limit if self.floor else value > self.limit

    def __str__(self) -> str:
        also = " (the control breaks it too)" if self.control_breaks else ""
        return f"{self.name} is at {self.value:.4g}, {'under' if self.floor else 'over'} {self.limit:.4g}{also}"


def ratio(events: float, exposure: float) -> float | None:
    """Events by exposure, to nine digits; None where there was no exposure."""
    return round(events / exposure, 9) if exposure else None


def estimates_of(
    totals: Mapping[str, Totals],
    criteria: SuccessCriteria,
    *,
    watched: Collection[str] = (),
    own: Sequence[str] = (),
    heard: bool = False,
) -> dict[str, Any]:
    """Rates and means of both arms of a stage or a slice (their sums by role); None where nothing was reported.

    `watched`: the measures that the plan has tests of, and `own`: metrics of the devices' own that it watches. `heard`:
    whether the help desk was heard of since the rollout began; one that was not reports nothing.
    """
    named = sorted({*criteria.floors, *criteria.ceilings, *own})
    estimates: dict[str, Any] = {}
    for role, sums in totals.items():
        arm = estimates[role] = {"device_windows": sums["at_risk"], "sessions_timed": sums.timed}
        for row in MEASURES.values():
            if row.estimate is not None and _estimated(row, sums, watched):
                arm[row.estimate] = _estimate(row, sums) if heard or not row.if_heard else None
                if row.counted and isinstance(row.test, Rate):
                    arm[row.test.events] = sums[row.test.events]
        if criteria.latency_p99_max_ms is not None and sums.latency:
            arm["share_over_limit"] = count_above(sums.latency, criteria.latency_p99_max_ms) / sums.timed
        if named:
            arm["means"] = {metric: _rounded(sums.mean(metric)) for metric in named}
    return estimates


def _estimated(row: Measure, sums: Totals, watched: Collection[str]) -> bool:
    """Whether a measure has an estimate of its own here: what plans must ask for is not told of the others."""
    match row.test:
        case Rate() | Quantile():
            return row.always or row.name in watched
        case Mean():
            return row.always or row.name in sums.metrics
    return False


def _estimate(row: Measure, sums: Totals) -> float | None:
    match row.test:
        case Rate(events, exposure):
            return ratio(sums[events], sums[exposure])
        case Quantile(p):
            key = quantile_key(sums.latency, p)
            return round(GAMMA**key, 3) if key is not None else None
    return _rounded(sums.mean(row.name))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)


def asked(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[Asked]:
    """Every limit in force."""
    arms = estimates["treated"], estimates["control"]
    every: list[Asked] = []
    for each in LIMITS:
        limit = getattr(criteria, each.criterion)
        if limit is None:
            continue
        treated, control = (arm.get(each.estimate) for arm in arms)
        if each.compared == "value":
            of_estimate = LATENCY_TAIL if each.estimate == "share_over_limit" else limit
            every.append(Asked(each.criterion, treated, of_estimate, control))
        else:
            every.append(Asked(each.criterion, _compared(treated, control, each.compared), limit))
    for bounds, floor in ((criteria.floors, True), (criteria.ceilings, False)):
        for metric, bound in sorted(bounds.items()):
            name, means = criteria.name_of(metric, floor=floor), [arm["means"][metric] for arm in arms]
            every.append(Asked(name, means[0], bound, means[1], floor=floor))
    return every


def _compared(treated: float | None, control: float | None, how: Compared) -> float | None:
    """An estimate as it stands beside the control's."""
    if treated is None or control is None:
        return None
    if how == "drop":
        return control - treated
    if control <= 0:
        return 0.0 if treated <= 0 else math.inf
    return treated / control - (1 if how == "increase" else 0)


def broken_limits(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[str]:
    """The limits that the estimates are past."""
    return [each.name for each in asked(criteria, estimates) if each.broken]


def describe(guardrail: str, estimates: dict[str, Any]) -> str:
    """The two arms as a guardrail sees them, for a sentence."""
    arms = estimates["treated"], estimates["control"]
    row, metric = MEASURES.get(guardrail), bounded_metric(guardrail)
    if row is not None and row.words is not None:
        return _beside(row.words, *(_figure(arm.get(row.estimate), row.form) for arm in arms))
    means = [arm.get("means", {}) for arm in arms]
    if metric in means[0]:
        values = ("nothing reported" if each.get(metric) is None else f"{each[metric]:.4g}" for each in means)
        return _beside(metric, *values)
    estimate = None if row is None else row.estimate
    if estimate is not None and estimate in arms[0]:
        return _beside(estimate.replace("_", " "), *(_figure(arm[estimate], "percent") for arm in arms))
    return f"{arms[0]['device_windows']} device-windows on the new version"


def _beside(what: str, treated: str, control: str) -> str:
    return f"{what} {treated} against {control} in the control"


def _figure(value: float | None, form: Form) -> str:
    match form:
        case "milliseconds":
            return f"{value} ms"
        case "index":
            return "unknown" if value is None else f"{value:.3f}"
        case "as_reported":
            return str(value)
    return percent(value)


def percent(value: float | None) -> str:
    """A share for people."""
    return "nothing reported" if value is None else f"{100 * value:.2f}%"
