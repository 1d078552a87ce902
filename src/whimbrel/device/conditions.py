"""When may a device fetch and activate? `permit(conditions, situation, now=now)`: pure, and it says why not.

1. What is asked for and not known counts as not given.
2. Going back asks for no permission.
3. The start is spread over `start_jitter_s`, by the device's id and the occasion: the same however often it is asked.
"""

import msgspec
import xxhash

from whimbrel.rollout.policy import Conditions

_DAY_S = 86400


class Situation(msgspec.Struct, frozen=True):
    """How a device is doing. None: not known. `battery` in [0, 1]."""

    unmetered: bool | None = None
    charging: bool | None = None
    battery: float | None = None
    idle: bool | None = None


class Permit(msgspec.Struct, frozen=True):
    """Whether it may, and the sentence that says why not."""

    allowed: bool
    because: str = ""


def permit(conditions: Conditions, situation: Situation, *, now: float) -> Permit:
    """Whether a device in this situation may fetch and activate at `now` (seconds since 1970, UTC)."""
    for asked, given, what in (
        (conditions.unmetered, situation.unmetered, "an unmetered network"),
        (conditions.charging, situation.charging, "a charger"),
        (conditions.idle, situation.idle, "an idle device"),
    ):
        if asked and not given:
            return Permit(False, f"the policy asks for {what}" + (" and that is not known" if given is None else ""))
    if conditions.battery_min is not None and not situation.charging:
        if situation.battery is None:
            return Permit(False, f"the policy asks for a battery at {conditions.battery_min:.0%} and it is not known")
        if situation.battery < conditions.battery_min:
            return Permit(
                False, f"the battery is at {situation.battery:.0%}; the policy asks for {conditions.battery_min:.0%}"
            )
    if conditions.window_utc is not None:
        start, end = conditions.window_utc
        second = now % _DAY_S
        inside = start <= second < end if start <= end else (second >= start or second < end)
        if not inside:
            return Permit(False, f"the policy's window is {_clock(start)} to {_clock(end)} UTC")
    return Permit(True)


def start_jitter(conditions: Conditions, *, device_id: str, occasion: str) -> float:
    """Seconds that this device waits before it begins, uniform in [0, start_jitter_s] over devices."""
    place = xxhash.xxh64_intdigest(f"{device_id}\n{occasion}".encode(), seed=0)
    return conditions.start_jitter_s * (place / 2**64)


def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second % 3600 // 60:02d}"
