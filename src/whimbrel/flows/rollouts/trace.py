"""How did the evidence of a rollout grow? One point a judged window, recomputed from the stored windows.

Called by the admin API and by alerts, for their plots.
"""

import msgspec

from whimbrel import limits
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.rollouts.judge import rejudge_rollout


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """ln E after a window: of all guardrails together, what is needed, and of each guardrail."""

    at: float  # POSIX seconds
    window: int
    stage: str
    log_e: float
    needed: float
    guardrails: dict[str, float]
    move: str


def trace(registry: RegistryPort, fleet: FleetPort, rollout: str) -> list[Point]:
    """The points of a rollout, oldest first; of very many, evenly chosen ones and the last. Raises `NotFound`."""
    stages = registry.rollout(rollout).plan.stages
    points = [
        Point(
            at=each.stored.at,
            window=each.stored.window,
            stage=stages[each.gate_input.stage].name if each.gate_input.stage < len(stages) else "",
            log_e=each.verdict.evidence["log_e"],
            needed=each.verdict.evidence["log_e_needed"],
            guardrails=each.verdict.evidence["guardrails"],
            move=each.stored.move,
        )
        for each in rejudge_rollout(registry, fleet, rollout)
        if "log_e" in each.verdict.evidence
    ]
    step = max(1, -(-len(points) // limits.ALERT_POINTS))
    return [point for index, point in enumerate(points) if index % step == 0 or index == len(points) - 1]
