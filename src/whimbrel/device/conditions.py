"""When may a device fetch and activate? `permit(conditions, situation, now=now)`: pure, and it says why not.

1. What is asked for and not known counts as not given; a time zone that this device has no rules for is not known.
2. Going back asks for no permission.
3. What the device measured stands in parentheses (`without_measurements`): a server is told the rest.
4. The start is spread over `start_jitter_s`, by the device's id and the occasion: the same however often it is asked.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec
import xxhash

from whimbrel import limits
from whimbrel.policy.policy import DAYS, Conditions, Window

_DAY_S = 86400
_MEASURED = re.compile(r" \([^()]*\)")


class Situation(msgspec.Struct, frozen=True):
    """How a device is doing. None: not known. `battery` in [0, 1]; `zone`: where it is, an IANA name."""

    unmetered: bool | None = None
    charging: bool | None = None
    battery: float | None = None
    idle: bool | None = None
    free_bytes: int | None = None
    zone: str | None = None


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
    because = _battery(conditions, situation) or _storage(conditions, situation) or _windows(conditions, situation, now)
    return Permit(not because, because)


class Wait(msgspec.Struct, frozen=True):
    """What holds a model up, in words; seconds until it is worth another look (None: with the next refresh)."""

    because: str
    again_s: float | None = None


def without_measurements(because: str) -> str:
    """What a device waits for, as others may know it."""
    return _MEASURED.sub("", because)


def wait_for_conditions(conditions: Conditions, situation: Situation, *, now: float, offline: bool) -> Wait | None:
    """Why a device may not fetch and activate now; None where it may.

    `offline`: a bundle is imported, so no network is used, and none is asked about.
    """
    asked = msgspec.structs.replace(conditions, unmetered=False) if offline else conditions
    because = permit(asked, situation, now=now).because
    return Wait(because, limits.WAIT_FOR_CONDITIONS_S) if because else None


def wait_to_begin(
    conditions: Conditions,
    situation: Situation,
    *,
    device_id: str,
    occasion: str,
    since: float,
    now: float,
    offline: bool,
) -> Wait | None:
    """Why a device may not begin yet what it could do `since`: its start is later than others', or the conditions."""
    jitter_s = start_jitter(conditions, device_id=device_id, occasion=occasion)
    if 0 <= now - since < jitter_s and not offline:
        because = f"its turn: starts are spread over {conditions.start_jitter_s:g} s"
        return Wait(because, since + jitter_s - now)
    return wait_for_conditions(conditions, situation, now=now, offline=offline)


def start_jitter(conditions: Conditions, *, device_id: str, occasion: str) -> float:
    """Seconds that this device waits before it begins, uniform in [0, start_jitter_s] over devices."""
    place = xxhash.xxh64_intdigest(f"{device_id}\n{occasion}".encode(), seed=0)
    return conditions.start_jitter_s * (place / 2**64)


def _battery(conditions: Conditions, situation: Situation) -> str:
    least = conditions.battery_min
    if least is None or situation.charging:
        return ""
    if situation.battery is None:
        return f"the policy asks for a battery at {least:.0%} and it is not known"
    if situation.battery < least:
        return f"the policy asks for a battery at {least:.0%} (it is at {situation.battery:.0%})"
    return ""


def _storage(conditions: Conditions, situation: Situation) -> str:
    least = conditions.storage_mib_min
    if least is None:
        return ""
    if situation.free_bytes is None:
        return f"the policy asks for {least} MiB of free storage and that is not known"
    if situation.free_bytes < least * limits.MIB:
        free_mib = situation.free_bytes // limits.MIB
        return f"the policy asks for {least} MiB of free storage ({free_mib} MiB are free)"
    return ""


def _windows(conditions: Conditions, situation: Situation, now: float) -> str:
    if conditions.window_utc is not None:
        start, end = conditions.window_utc
        second = now % _DAY_S
        inside = start <= second < end if start <= end else (second >= start or second < end)
        if not inside:
            return f"the policy's window is {_clock(start)} to {_clock(end)} UTC"
    if not conditions.windows or any(_inside(window, situation, now) for window in conditions.windows):
        return ""
    return "the policy's windows are " + ", ".join(_words(window, situation) for window in conditions.windows)


def _inside(window: Window, situation: Situation, now: float) -> bool:
    zone = _zone(window, situation)
    if zone is None:
        return False
    here = datetime.fromtimestamp(now, UTC).astimezone(zone)
    # By the clock on the wall: an hour that a change of the clocks repeats counts twice, one that it skips never.
    second = here.hour * 3600 + here.minute * 60 + here.second
    if window.start_s <= window.end_s:
        return window.start_s <= second < window.end_s and _on(window, here)
    yesterday = here - timedelta(days=1)
    return (second >= window.start_s and _on(window, here)) or (second < window.end_s and _on(window, yesterday))


def _on(window: Window, day: datetime) -> bool:
    return not window.days or DAYS[day.weekday()] in window.days


def _zone(window: Window, situation: Situation) -> tzinfo | None:
    name = situation.zone if window.zone == "local" else window.zone
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # here: most policies name no window

    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _words(window: Window, situation: Situation) -> str:
    unknown = "" if _zone(window, situation) is not None else " (a time zone that is not known here)"
    days = f" on {'/'.join(window.days)}" if window.days else ""
    return f"{_clock(window.start_s)} to {_clock(window.end_s)} {window.zone}{unknown}{days}"


def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second % 3600 // 60:02d}"
