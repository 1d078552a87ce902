"""Hours that are over become days, and what is too old is forgotten: the room is bounded.

A day is made of its hours when it is over, anew where it is asked for again, so it does not matter when a process is
killed. Hours are kept for 90 days, days for three years (`limits`).
"""

from collections.abc import Sequence

from whimbrel import limits
from whimbrel.flows.monitors.ports import HealthPort
from whimbrel.flows.monitors.records import DAY_S, HealthRow
from whimbrel.health.device_hour import HOURS_A_DAY, HourSums

_DAYS_AT_ONCE = 7  # of one model in one transaction


def fold_days(health: HealthPort, model: str, *, now: float) -> bool:
    """Make the days that are missing, some of them. Returns whether more are missing."""
    today = int(now // DAY_S)
    newest = health.newest_day(model)
    missing = 0 if newest is None else newest + 1
    for _ in range(_DAYS_AT_ONCE):
        hour = health.oldest_hour(model, since=missing * HOURS_A_DAY)
        if hour is None or hour // HOURS_A_DAY >= today:
            return False
        day = hour // HOURS_A_DAY
        hours = health.hours(model, since=day * HOURS_A_DAY, before=(day + 1) * HOURS_A_DAY)
        health.save_days(model, days_of(hours))
        missing = day + 1
    return True


def forget_old(health: HealthPort, *, now: float) -> None:
    """Forget what is older than is kept."""
    today = int(now // DAY_S)
    health.forget(
        hours_before=today * HOURS_A_DAY - limits.HEALTH_HOURS,
        days_before=today - limits.HEALTH_DAYS,
    )


def days_of(rows: Sequence[HealthRow]) -> list[HealthRow]:
    """Hours as days, by version and class."""
    sums: dict[tuple[int, int, str], HourSums] = {}
    for row in rows:
        key = row.start // HOURS_A_DAY, row.serial, row.hardware_class
        sums[key] = sums[key].then(row.sums) if key in sums else row.sums
    return [
        HealthRow(serial=serial, hardware_class=name, start=day, sums=each)
        for (day, serial, name), each in sorted(sums.items())
    ]
