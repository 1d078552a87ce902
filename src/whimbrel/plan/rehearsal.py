"""How long is a time of a plan in a rehearsal, where an hour of the plan lasts `hour_s` seconds?

1. What a plan or an experiment counts in time scales: soaks, bakes, days, tally windows, how often devices look and
   report while they are watched, when a report is overdue, the age of an activation, the longest wait of a placebo.
2. What people, networks and keys live by does not: freezes and schedules, charging and time windows, start jitter,
   the age of a policy that a device may activate on, lifetimes of signatures, retries, alerts.
3. A window or a refresh is never shortened below a few seconds, since agents and servers need them; one that is
   shorter already stays as it is.
"""

from whimbrel import limits

HOUR_S = 3600.0


def rehearsed_s(seconds: float, *, hour_s: float) -> float:
    """`seconds` of a window or a period, as they are rehearsed: in seconds."""
    return max(min(seconds, limits.REHEARSED_S), seconds * hour_s / HOUR_S)
