"""Times and numbers as the sentences of flows say them, for people."""

import math
from datetime import UTC, datetime


def time_words(at: float) -> str:
    """A time (POSIX seconds), in UTC; infinity is "for ever"."""
    return "for ever" if math.isinf(at) else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration_words(hours: float) -> str:
    """Hours as minutes, hours or days, whichever a person would say."""
    if hours < 1:
        return f"{max(1, round(60 * hours))} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


_MOVES = {"roll_back": "rollback", "slice_back": "rollback of a slice"}


def move_words(move: str) -> str:
    """A gate's move as people name it: as the command that does the same, where there is one."""
    return _MOVES.get(move, move)


def evidence_words(needed: float) -> str:
    """What ln E means. `needed`: the ln E at which harm is proven."""
    return f"ln E is the evidence of harm: 0 or less is none, and harm is proven at {needed:.2f}"


def devices_words(count: int) -> str:
    """So many devices."""
    return f"{count:,} device{'' if count == 1 else 's'}" if count else "no device"


def percent_words(percent: float) -> str:
    """A share in percent, with the digits that a person reads."""
    return f"{percent:.3g}%"


def people_words(count: int) -> str:
    """The number of people, and the verb that goes with it."""
    return "one person has" if count == 1 else f"{count} people have"
