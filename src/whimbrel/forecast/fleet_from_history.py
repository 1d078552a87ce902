"""The description of a real fleet, from the history of a model.

A number that rests on too few reports is left at its default, and is named. Called by the command line, with the
history that the admin API gives.
"""

import math
from typing import Any

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.reports.history import History
from whimbrel.flows.reports.judge_silence import SILENCE_PERIODS
from whimbrel.forecast.cost import DownloadSizes
from whimbrel.forecast.fleet_description import BaseGroup, FleetDescription, PresenceGroup
from whimbrel.health.report import WayName

_ENOUGH = 1000  # device-windows; a rate of fewer is not believed
_P99 = 2.3263  # standard deviations between the median and the 99% quantile


def fleet_from_history(history: History) -> tuple[FleetDescription, list[str]]:
    """The fleet, and which of its numbers are defaults. Raises `Refused` where nothing was reported."""
    if not history.at_risk:
        raise Refused(
            f"{history.model} has no history: no device reported in a rollout; forecast with defaults, or --traffic"
        )
    numbers: dict[str, Any] = {"refresh_s": history.refresh_s}
    defaults: list[str] = []
    if history.active >= _ENOUGH:
        numbers |= {"crash": history.crashed / history.active, "error": history.errors / history.active}
        numbers |= _usage(history)
    else:
        defaults.append(f"sessions and rates ({history.active} device-windows with sessions)")
    if history.labelled >= _ENOUGH:
        numbers |= {
            "accuracy": min(1.0, history.right / history.labelled),
            "labelled": min(1.0, history.labelled / history.active),
        }
    else:
        defaults.append(f"accuracy ({history.labelled} values)")
    if history.latency_p50_ms and history.latency_p99_ms and history.active >= _ENOUGH:
        spread = math.log(history.latency_p99_ms / history.latency_p50_ms) / _P99
        numbers |= {"latency_ms": history.latency_p50_ms, "latency_spread": min(3.0, max(0.01, spread))}
    else:
        defaults.append("latency")
    if history.tried >= _ENOUGH:
        numbers["install_failed"] = history.failed / history.tried
    else:
        defaults.append(f"failures of installs ({history.tried} installs)")
    if history.hardware:
        most = sorted(history.hardware.items(), key=lambda item: (-item[1], item[0]))
        kept, rest = most[: limits.FORECAST_CLASSES - 1], most[limits.FORECAST_CLASSES - 1 :]
        kept += [("others", sum(count for _, count in rest))] if rest else []
        total = sum(history.hardware.values())
        numbers["hardware"] = {name: count / total for name, count in kept}
    else:
        defaults.append("hardware classes")
    if history.delays.mean_h:
        numbers["presence"] = _presence(history)
    else:
        defaults.append(f"delays ({history.delays.devices} devices)")
    if history.running:
        total = sum(each.devices for each in history.running)
        numbers["versions"] = tuple(
            BaseGroup(name=name, share=devices / total, way=way or "whole")
            for name, devices, way, _ in _versions(history)
        )
    else:
        defaults.append("versions")
    source = f"the history of {history.model} in {history.rollouts} rollouts ({history.at_risk:,} reports of controls)"
    return FleetDescription(source=source, **numbers), defaults


def sizes_from_history(history: History) -> DownloadSizes | None:
    """The bytes to the target version, by the version that devices run. None where the history names no target."""
    by_version = {
        name: (way, size) for name, _, way, size in _versions(history) if way is not None and size is not None
    }
    return DownloadSizes(by_version) if by_version else None


def _versions(history: History) -> list[tuple[str, int, WayName | None, float | None]]:
    """Name, devices, way and bytes of each version. The versions beyond the limit are one group, at their mean size."""
    groups = [
        (each.version or "none", each.devices, each.way, None if each.size_bytes is None else float(each.size_bytes))
        for each in history.running
    ]
    kept, rest = groups[: limits.FORECAST_GROUPS - 1], groups[limits.FORECAST_GROUPS - 1 :]
    if not rest:
        return kept
    devices = sum(count for _, count, _, _ in rest)
    total = sum(count * (size or 0.0) for _, count, _, size in rest)
    return [*kept, ("others", devices, rest[0][2] and "whole", total / devices)]


def _usage(history: History) -> dict[str, Any]:
    """Sessions are a Poisson process, so their rate follows from the share of windows that have any."""
    rates = [
        -math.log(1 - min(0.999, active / at_risk)) if at_risk else None
        for at_risk, active in zip(history.at_risk_by_hour, history.active_by_hour, strict=True)
    ]
    heard = [rate for rate in rates if rate is not None]
    mean = sum(heard) / len(heard)
    by_hour = tuple(
        mean if rate is None else rate for rate in rates
    )  # hours without a rollout get the mean of the others
    return {"sessions_a_day": max(1e-6, mean * 86400 / history.window_s), "by_hour": by_hour}


def _presence(history: History) -> tuple[PresenceGroup, ...]:
    silent = history.overdue / history.due if history.due else 0.0
    online = 1 - max(silent, 1e-9) ** (1 / SILENCE_PERIODS)
    share = (1 - history.delays.never) / len(history.delays.mean_h)
    groups = tuple(
        PresenceGroup(name=f"quarter {n}", share=share, online=online, delay_h=max(1e-3, hours))
        for n, hours in enumerate(history.delays.mean_h, start=1)
    )
    return (
        (*groups, PresenceGroup(name="never updated", share=history.delays.never, online=online))
        if history.delays.never
        else groups
    )
