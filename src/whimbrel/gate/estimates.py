"""Where does a stage stand, and which of its limits does it keep? Point estimates, for promotion and for sentences.

1. What was not reported is None, and None keeps no limit: missing data is never good news.
2. A comparative limit is judged against the control; an absolute one for itself, and where the control breaks it too
   that is said: the world changed, not the version.
3. Estimates that only a new kind of limit needs are there only where such a limit is.

Used by the gate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from whimbrel.gate.guardrails import LATENCY_TAIL, QUANTILES
from whimbrel.gate.totals import Totals
from whimbrel.health.sketch import GAMMA, count_above, quantile_key
from whimbrel.plan.criteria import SuccessCriteria, bounded_metric


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


def estimates_of(totals: Mapping[str, Totals], criteria: SuccessCriteria, *, own: Sequence[str] = ()) -> dict[str, Any]:
    """Rates and means of both arms of a stage or a slice (their sums by role); None where nothing was reported.

    `own`: metrics of the devices' own that are watched.
    """
    named = sorted({*criteria.floors, *criteria.ceilings, *own})
    seen: dict[str, Any] = {}
    for role, sums in totals.items():
        seen[role] = {
            "device_windows": sums.at_risk,
            "crash_rate": ratio(sums.crashed, sums.at_risk),
            "error_rate": ratio(sums.error_share, sums.error_units),
            "silence": ratio(sums.overdue, sums.due),
            "accuracy": _rounded(sums.mean("accuracy")),
            "crashed": sums.crashed,
            "sessions_timed": sum(sums.latency.values()),
        }
        for name, p in QUANTILES.items():
            key = quantile_key(sums.latency, p)
            seen[role][f"{name}_ms"] = round(GAMMA**key, 3) if key is not None else None
        if "battery" in sums.metrics:
            seen[role]["battery"] = _rounded(sums.mean("battery"))
        if criteria.latency_p99_max_ms is not None and sums.latency:
            over = count_above(sums.latency, criteria.latency_p99_max_ms)
            seen[role]["share_over_limit"] = over / sum(sums.latency.values())
        if named:
            seen[role]["means"] = {metric: _rounded(sums.mean(metric)) for metric in named}
    return seen


def add_user_reports(estimates: dict[str, Any], arms: Mapping[str, Totals], *, heard: bool) -> None:
    """The tickets of both arms, where a plan asks for them. A help desk that was never heard of reports nothing."""
    for role, totals in arms.items():
        estimates[role]["user_reports"] = totals.user_reports
        estimates[role]["user_report_rate"] = ratio(totals.user_reports, totals.at_risk) if heard else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)


def asked(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[Asked]:
    """Every limit in force."""
    treated, control = estimates["treated"], estimates["control"]
    found: list[Asked] = []
    if criteria.error_rate_max is not None:
        rates = treated["error_rate"], control["error_rate"]
        found.append(Asked("error_rate_max", rates[0], criteria.error_rate_max, rates[1]))
    if criteria.accuracy_drop_max is not None:
        both = treated["accuracy"] is not None and control["accuracy"] is not None
        drop = control["accuracy"] - treated["accuracy"] if both else None
        found.append(Asked("accuracy_drop_max", drop, criteria.accuracy_drop_max))
    if criteria.latency_p99_max_ms is not None:
        shares = treated.get("share_over_limit"), control.get("share_over_limit")
        found.append(Asked("latency_p99_max_ms", shares[0], LATENCY_TAIL, shares[1]))
    for name, field, limit, beyond in (
        ("crash_ratio_max", "crash_rate", criteria.crash_ratio_max, 0),
        ("latency_increase_max", "latency_p99_ms", criteria.latency_increase_max, 1),
        ("battery_increase_max", "battery", criteria.battery_increase_max, 1),
        ("user_reports_ratio_max", "user_report_rate", criteria.user_reports_ratio_max, 0),
    ):
        if limit is not None:
            found.append(Asked(name, _over_control(treated.get(field), control.get(field), beyond=beyond), limit))
    if criteria.drift_psi_max is not None:
        found.append(Asked("drift_psi_max", treated.get("drift_psi"), criteria.drift_psi_max, control.get("drift_psi")))
    for bounds, floor in ((criteria.floors, True), (criteria.ceilings, False)):
        for metric, bound in sorted(bounds.items()):
            name, means = criteria.name_of(metric, floor=floor), (treated["means"], control["means"])
            found.append(Asked(name, means[0][metric], bound, means[1][metric], floor=floor))
    return found


def _over_control(treated: float | None, control: float | None, *, beyond: int) -> float | None:
    if treated is None or control is None:
        return None
    if control <= 0:
        return 0.0 if treated <= 0 else math.inf
    return treated / control - beyond


def broken_limits(criteria: SuccessCriteria, estimates: dict[str, Any]) -> list[str]:
    """The limits that the estimates are past."""
    return [each.name for each in asked(criteria, estimates) if each.broken]


def describe(guardrail: str, estimates: dict[str, Any]) -> str:
    """The two arms as a guardrail sees them, for a sentence."""
    treated, control = estimates["treated"], estimates["control"]
    if guardrail.startswith("latency_p"):
        field = f"{guardrail}_ms"
        return f"{guardrail.replace('_', ' ')} {treated[field]} ms against {control[field]} ms in the control"
    field = {"crash": "crash_rate", "error": "error_rate", "error_limit": "error_rate"}.get(guardrail, guardrail)
    if field in {"user_reports", "version_reports"}:
        rates = (percent(each["user_report_rate"]) for each in (treated, control))
        return f"devices that users wrote of, a window: {' against '.join(rates)} in the control"
    if field == "drift":
        indices = ("unknown" if (psi := each["drift_psi"]) is None else f"{psi:.3f}" for each in (treated, control))
        return f"stability index of the predictions {' against '.join(indices)} in the control"
    if field == "battery":
        return f"battery {treated.get(field)} against {control.get(field)} in the control"
    means = treated.get("means", {}), control.get("means", {})
    metric = bounded_metric(guardrail)
    if metric in means[0]:
        values = ("nothing reported" if each.get(metric) is None else f"{each[metric]:.4g}" for each in means)
        return f"{metric} {' against '.join(values)} in the control"
    if field in treated:
        return f"{field.replace('_', ' ')} {percent(treated[field])} against {percent(control[field])} in the control"
    return f"{treated['device_windows']} device-windows on the new version"


def percent(value: float | None) -> str:
    """A share for people."""
    return "nothing reported" if value is None else f"{100 * value:.2f}%"
