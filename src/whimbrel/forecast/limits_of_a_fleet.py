"""Which limits of a plan does the assumed fleet break by itself, whatever the version is?

Such a stage holds in every simulated rollout, and a forecast that says only "finished: 0%" hides why. Three limits are
about levels, and so can be compared with the fleet before anything is simulated: errors, slow sessions, accuracy.

Called by the summary.
"""

import math
from collections.abc import Iterator

from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.gate.guardrails import LATENCY_TAIL
from whimbrel.plan.plan import Plan


def limits_broken(plan: Plan, fleet: FleetDescription) -> list[str]:
    """One sentence for each limit that the fleet breaks, at the first stage that has it."""
    told: dict[str, str] = {}
    for number, stage in enumerate(plan.stages):
        for limit, sentence in _broken_at(plan, number, fleet):
            told.setdefault(limit, f"stage {stage.name} holds whatever the version is: {sentence}")
    return [
        f"{each}; say what your fleet is like with --traffic or --from-history, or choose another limit"
        for each in told.values()
    ]


def _broken_at(plan: Plan, stage: int, fleet: FleetDescription) -> Iterator[tuple[str, str]]:
    limits = plan.criteria(stage)
    if limits.error_rate_max is not None and fleet.error > limits.error_rate_max:
        yield (
            "error_rate_max",
            f"it allows errors in {_percent(limits.error_rate_max)} of the device-windows (error_rate_max), and the "
            f"fleet has them in {_percent(fleet.error)}",
        )
    if limits.latency_p99_max_ms is not None:
        slower = _share_slower(fleet, limits.latency_p99_max_ms)
        if slower > LATENCY_TAIL:
            yield (
                "latency_p99_max_ms",
                f"it allows {_percent(LATENCY_TAIL)} of the sessions to take over {limits.latency_p99_max_ms:g} ms "
                f"(latency_p99_max_ms), and {_percent(slower)} of the fleet's do",
            )
    if limits.accuracy_min is not None and fleet.accuracy < limits.accuracy_min:
        yield (
            "accuracy_min",
            f"it asks for an accuracy of {limits.accuracy_min:g} (accuracy_min), and the fleet has {fleet.accuracy:g}",
        )


def _share_slower(fleet: FleetDescription, limit_ms: float) -> float:
    """The share of sessions over a limit: their latency is log-normal."""
    if fleet.latency_spread == 0:
        return float(fleet.latency_ms > limit_ms)
    deviations = math.log(limit_ms / fleet.latency_ms) / fleet.latency_spread
    return 0.5 * math.erfc(deviations / math.sqrt(2))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
