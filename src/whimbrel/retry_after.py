"""When the other side of an HTTP answer wants to be asked again: the header Retry-After (RFC 9110, section 10.2.3).

Called by the agent, of servers, and by the server, of receivers of alerts.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime


def seconds_of(value: str, *, now: float, most_s: float) -> float | None:
    """The seconds from `now` that the header's `value` asks for, at most `most_s`; None where it says nothing.

    `now`: seconds since the epoch. A date without a zone is in UTC.
    """
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), most_s)
    try:
        when = parsedate_to_datetime(text)
        at = when.replace(tzinfo=when.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):  # a day, hour or year that no calendar has
        return None
    return min(max(0.0, at - now), most_s)
