"""Option values that a person writes in words: lengths of time, and stretches of the day."""

import re
from typing import Any

from whimbrel.errors import UntrustedInput
from whimbrel.policy.policy import DAYS

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EXAMPLE = "NZ"
_LENGTH = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)\Z", re.ASCII)
_CLOCK = re.compile(r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)\Z", re.ASCII)


def duration_s(text: str, *, what: str) -> float:
    """Seconds in a length such as 90s, 30m, 6h or 2d. `what` names the option. Raises `UntrustedInput`."""
    length = _LENGTH.match(text)
    if length is None:
        raise UntrustedInput(f"{what} {text!r} is no length of time; expected such as 90s, 30m, 6h or 2d")
    return float(length[1]) * _UNITS[length[2]]


def pair_of(word: str, *, what: str) -> tuple[str, str]:
    """The key and value of a word such as region=NZ. `what` names the option. Raises `UntrustedInput`."""
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        if key and "=" not in word.removesuffix("="):
            raise UntrustedInput(f"{what} {word!r} has no value; write {key}=VALUE, such as {key}={_EXAMPLE}")
        raise UntrustedInput(f"{what} {word!r} has no key; write KEY=VALUE, such as region={_EXAMPLE}")
    return key, value


def window_of(text: str) -> dict[str, Any]:
    """The fields of a `Window` in words: days (none: every day), from and to, a zone (none: UTC).

    Such as "22:00-06:00", "mon-fri 01:00-05:00 local" or "sat,sun 00:00-24:00 Europe/Oslo". Raises `UntrustedInput`.
    """
    words = text.split()
    clocks = [place for place, word in enumerate(words) if _CLOCK.match(word)]
    clock = clocks[0] if clocks else -1
    days = _days(words[0]) if clock == 1 else ()
    zone = words[clock + 1 :]
    if clock not in {0, 1} or days is None or len(zone) > 1:
        raise UntrustedInput(
            f"--window {text!r} is not understood; expected FROM-TO in hours and minutes, with days before it and a "
            'time zone behind it if need be, such as "22:00-06:00" or "mon-fri 01:00-05:00 local"'
        )
    from_h, from_min, to_h, to_min = map(int, words[clock].replace("-", ":").split(":"))
    fields: dict[str, Any] = {"start_s": 3600 * from_h + 60 * from_min, "end_s": 3600 * to_h + 60 * to_min}
    return fields | ({"days": days} if days else {}) | ({"zone": zone[0]} if zone else {})


def _days(text: str) -> tuple[str, ...] | None:
    """The days of "mon-fri" or "sat,sun"; None where it names none."""
    named: list[str] = []
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            return None
        start, end = DAYS.index(first), DAYS.index(last or first)
        named += [DAYS[(start + step) % 7] for step in range((end - start) % 7 + 1)]
    return tuple(day for day in DAYS if day in named)
