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


def people_words(count: int) -> str:
    """The number of people, and the verb that goes with it."""
    return "one person has" if count == 1 else f"{count} people have"
