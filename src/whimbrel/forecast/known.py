"""What fleet does a history tell of? Its numbers where there are enough, the defaults where there are not, and which.

Called by the command line, with what the admin API says of a model.
"""

import math
from typing import Any

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.reports.history import History
from whimbrel.forecast.cost import Sizes
from whimbrel.forecast.shape import Base, Presence, Shape
from whimbrel.health.report import WayName

_ENOUGH = 1000  # device-windows, before a rate is believed
_P99 = 2.3263  # standard deviations between the median and the 99% quantile
_MISSED = 3  # reports in a row that do not come make a device overdue, as flows/reports/ingest.py has it


def shape_of(known: History) -> tuple[Shape, list[str]]:
    """The fleet, and what was not known of it. Raises `Refused` where nothing was reported."""
    if not known.at_risk:
        raise Refused(
            f"{known.model} has no history: no device reported in a rollout; forecast with defaults, or --traffic"
        )
    said: dict[str, Any] = {"refresh_s": known.refresh_s}
    unknown: list[str] = []
    if known.active >= _ENOUGH:
        said |= {"crash": known.crashed / known.active, "error": known.errors / known.active}
        said |= _traffic(known)
    else:
        unknown.append(f"sessions and rates ({known.active} device-windows with sessions)")
    if known.labelled >= _ENOUGH:
        said |= {
            "accuracy": min(1.0, known.right / known.labelled),
            "labelled": min(1.0, known.labelled / known.active),
        }
    else:
        unknown.append(f"accuracy ({known.labelled} values)")
    if known.latency_p50_ms and known.latency_p99_ms and known.active >= _ENOUGH:
        spread = math.log(known.latency_p99_ms / known.latency_p50_ms) / _P99
        said |= {"latency_ms": known.latency_p50_ms, "latency_spread": min(3.0, max(0.01, spread))}
    else:
        unknown.append("latency")
    if known.tried >= _ENOUGH:
        said["install_failed"] = known.failed / known.tried
    else:
        unknown.append(f"failures of installs ({known.tried} installs)")
    if known.hardware:
        most = sorted(known.hardware.items(), key=lambda item: (-item[1], item[0]))
        kept, rest = most[: limits.FORECAST_CLASSES - 1], most[limits.FORECAST_CLASSES - 1 :]
        kept += [("others", sum(count for _, count in rest))] if rest else []
        total = sum(known.hardware.values())
        said["hardware"] = {name: count / total for name, count in kept}
    else:
        unknown.append("hardware classes")
    if known.delays.mean_h:
        said["presence"] = _presence(known)
    else:
        unknown.append(f"delays ({known.delays.devices} devices)")
    if known.running:
        total = sum(each.devices for each in known.running)
        said["versions"] = tuple(
            Base(name=name, share=devices / total, way=way or "whole") for name, devices, way, _ in _versions(known)
        )
    else:
        unknown.append("versions")
    source = f"the history of {known.model} in {known.rollouts} rollouts ({known.at_risk:,} reports of controls)"
    return Shape(source=source, **said), unknown


def sizes_of(known: History) -> Sizes | None:
    """The bytes to the version that was asked about, by the version that devices run; None where it was not."""
    found = {name: (way, size) for name, _, way, size in _versions(known) if way is not None and size is not None}
    return Sizes(found) if found else None


def _versions(known: History) -> list[tuple[str, int, WayName | None, float | None]]:
    """Name, devices, way and bytes; those beyond what a shape holds together, at their mean."""
    made = [
        (each.version or "none", each.devices, each.way, None if each.size_bytes is None else float(each.size_bytes))
        for each in known.running
    ]
    kept, rest = made[: limits.FORECAST_GROUPS - 1], made[limits.FORECAST_GROUPS - 1 :]
    if not rest:
        return kept
    devices = sum(count for _, count, _, _ in rest)
    total = sum(count * (size or 0.0) for _, count, _, size in rest)
    return [*kept, ("others", devices, rest[0][2] and "whole", total / devices)]


def _traffic(known: History) -> dict[str, Any]:
    """Sessions as a Poisson process: the share of windows with any tells their rate."""
    rates = [
        -math.log(1 - min(0.999, active / at_risk)) if at_risk else None
        for at_risk, active in zip(known.at_risk_by_hour, known.active_by_hour, strict=True)
    ]
    heard = [rate for rate in rates if rate is not None]
    mean = sum(heard) / len(heard)
    by_hour = tuple(mean if rate is None else rate for rate in rates)  # hours without a rollout: as the others
    return {"sessions_a_day": max(1e-6, mean * 86400 / known.window_s), "by_hour": by_hour}


def _presence(known: History) -> tuple[Presence, ...]:
    silent = known.overdue / known.due if known.due else 0.0
    online = 1 - max(silent, 1e-9) ** (1 / _MISSED)
    there = 1 - known.delays.never
    groups = tuple(
        Presence(name=f"quarter {n}", share=there / len(known.delays.mean_h), online=online, delay_h=max(1e-3, hours))
        for n, hours in enumerate(known.delays.mean_h, start=1)
    )
    return (
        (*groups, Presence(name="never updated", share=known.delays.never, online=online))
        if known.delays.never
        else groups
    )
