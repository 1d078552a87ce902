"""When may somebody come again who was told to wait? The header Retry-After, for agents and for the server's alerts."""

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after_s(headers: Mapping[str, str], *, now: float, most_s: float) -> float | None:
    """What Retry-After says, in seconds from `now`: a number or a date (RFC 9110, section 10.2.3), at most `most_s`.

    None where it says nothing that can be understood. Names of headers are in lower case.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdigit() and len(value) < 12:
        return min(float(value), most_s)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return min(max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now), most_s)
