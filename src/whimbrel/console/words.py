"""Times, numbers and shares as pages say them. Pure; the filters of the templates."""

from datetime import UTC, datetime

from whimbrel.plan.measures import Form

_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


def counted(number: float, noun: str, plural: str = "") -> str:
    """A number and its noun: 1 device, 1,204 devices."""
    return f"{number:,.0f} {noun if number == 1 else plural or f'{noun}s'}"


def lasting(seconds: float) -> str:
    """A time span in the largest unit that fits: 3 hours, 2 days, less than a minute."""
    for size, unit in _UNITS:
        if seconds >= 2 * size or (unit == "minute" and seconds >= size):
            return counted(round(seconds / size), unit)
    return "less than a minute"


def ago(at: float, now: float) -> str:
    """How long ago, or in how long."""
    if at > now + 1:
        return f"in {lasting(at - now)}"
    return "just now" if now - at < 60 else f"{lasting(now - at)} ago"


def stamp(at: float) -> str:
    """A POSIX time in UTC, for people."""
    return _moment(at).strftime("%Y-%m-%d %H:%M UTC")


def machine_time(at: float) -> str:
    """The same for the `datetime` of an element."""
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(at: float) -> datetime:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def percent(value: float) -> str:
    """Percent with the digits that a person reads: 0.02%, 5%, 12.5%, 99.98%."""
    if value and min(value, abs(100 - value)) < 1:
        return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
    return f"{value:.1f}".rstrip("0").rstrip(".") + "%"


def sentence(text: str) -> str:
    """The text with a capital letter, and a full stop at its end."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?:" else ".")


def size_words(size_bytes: float) -> str:
    """Bytes for people, in powers of 1000."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def figure(value: float | None, form: Form) -> str:
    """A figure of a measure; "nothing told" where there is none."""
    if value is None:
        return "nothing told"
    match form:
        case "percent":
            return f"{100 * value:.1f}%" if value >= 0.1 or value == 0 else f"{100 * value:.2g}%"
        case "milliseconds":
            return f"{value:.3g} ms"
        case "index":
            return f"{value:.3f}"
    return f"{value:.4g}"


def plain_name(identifier: str) -> str:
    """A name of the code as words: waiting_for_approval becomes waiting for approval."""
    return identifier.replace("_", " ")


def plan_hours(hours: float) -> str:
    """Hours of a plan: 5 min, 24 h, 7 days."""
    if hours < 1:
        return f"{round(60 * hours)} min"
    return f"{hours:.3g} h" if hours < 72 else f"{hours / 24:.3g} days"


def events(number: float) -> str:
    """A number of events; of shares that were added up, with a digit."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"
