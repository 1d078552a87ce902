"""Point estimates of both arms of a stage: for promotion and for sentences.

1. What was not reported is None. (What that means for a limit: `limit_checks`.)
2. Estimates of measures that a plan must ask for are there only where it asks.

Used by the gate, and by `flows/rollouts/judge` for what devices told of the version before.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from whimbrel.gate.totals import Totals
from whimbrel.health.sketch import GAMMA, count_above
from whimbrel.plan.criteria import SuccessCriteria, bounded_metric
from whimbrel.plan.measures import MEASURES, Form, Mean, Measure, OverLimit, Quantile, Rate


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
        arm = estimates[role] = {
            "device_windows": sums["at_risk"],
            "sessions_timed": sums.timed,
            "sessions_a_window": ratio(sums.sessions, sums["at_risk"]),
        }
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
            key = sums.quantile(p)
            return round(GAMMA**key, 3) if key is not None else None
    return _rounded(sums.mean(row.name))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)


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


def compare(guardrail: str, treated: float | None, control: float | None) -> str:
    """Two figures of a guardrail's test, for a sentence: rates or means, and of latency the shares of slow sessions."""
    row = MEASURES.get(guardrail)
    if row is None:
        return _beside(guardrail, _figure(treated, "as_reported"), _figure(control, "as_reported"))
    what, form = row.words or (row.estimate or row.name).replace("_", " "), row.form
    match row.test:
        case Quantile(p):
            what, form = f"sessions slower than {100 * p:g}% of the control's were before:", "percent"
        case OverLimit():
            what = "sessions over the limit of latency:"
        case Mean() if row.words is None and row.estimate is None:
            form = "as_reported"
    return _beside(what, _figure(treated, form), _figure(control, form))


def _beside(what: str, treated: str, control: str) -> str:
    return f"{what} {treated} against {control} in the control"


def _figure(value: float | None, form: Form) -> str:
    match form:
        case "milliseconds":
            return f"{value} ms"
        case "index":
            return "unknown" if value is None else f"{value:.3f}"
        case "as_reported":
            return "nothing reported" if value is None else f"{value:.4g}"
    return percent(value)


def percent(value: float | None) -> str:
    """A share for people."""
    return "nothing reported" if value is None else f"{100 * value:.2f}%"
