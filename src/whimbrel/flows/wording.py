"""Times and numbers as the sentences of flows say them, for people."""

import base64
import hashlib
import math
from datetime import UTC, datetime

from whimbrel.model.provenance import ModelSigner
from whimbrel.model.selector import Selector
from whimbrel.policy.policy import DAYS, Conditions, Window


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


def signer_words(signer: ModelSigner) -> str:
    """Whose model signature is meant: a key by the digest of its DER form, as signatures name their signer."""
    if signer.method == "certificate":
        return f"{signer.identity}, by a certificate"
    lines = [line.strip() for line in signer.anchor.splitlines() if not line.startswith("-----")]
    try:
        return f"key sha256:{hashlib.sha256(base64.b64decode(''.join(lines), validate=True)).hexdigest()}"
    except ValueError:
        return "one given key"


def devices_words(count: int) -> str:
    """So many devices."""
    return f"{count:,} device{'' if count == 1 else 's'}" if count else "no device"


def percent_words(percent: float) -> str:
    """A share in percent, with the digits that a person reads."""
    return f"{percent:.3g}%"


def people_words(count: int) -> str:
    """The number of people, and the verb that goes with it."""
    return "one person has" if count == 1 else f"{count} people have"


def selector_words(selector: Selector) -> str:
    """Which devices these are: their labels, or "every device"."""
    words = [f"{key}={value}" for key, value in selector.match_labels.items()]
    words += [f"{term.key} {term.operator} {','.join(term.values)}".strip() for term in selector.match_expressions]
    return "; ".join(words) or "every device"


def condition_words(conditions: Conditions) -> list[str]:
    """When devices fetch and activate, a phrase a condition; none where they need not wait for anything."""
    words = [
        phrase
        for asked, phrase in (
            (conditions.unmetered, "on an unmetered network"),
            (conditions.charging, "while charging"),
            (conditions.idle, "while nobody uses the device"),
        )
        if asked
    ]
    if conditions.battery_min is not None:
        words.append(f"with at least {100 * conditions.battery_min:g}% of charge, or charging")
    if conditions.window_utc is not None:
        start_s, end_s = conditions.window_utc
        words.append(_window_words(Window(start_s=start_s, end_s=end_s)))
    if conditions.windows:
        words.append(" or ".join(_window_words(window) for window in conditions.windows))
    if conditions.storage_mib_min is not None:
        words.append(f"with {conditions.storage_mib_min} MiB of storage to spare")
    if conditions.metered_mib_a_day is not None:
        words.append(f"at most {conditions.metered_mib_a_day} MiB a day on a metered network")
    if conditions.start_jitter_s:
        words.append(f"spread over {conditions.start_jitter_s:g} s")
    return words


def _window_words(window: Window) -> str:
    start, end = (f"{at_s // 3600:02d}:{at_s % 3600 // 60:02d}" for at_s in (window.start_s, window.end_s))
    zone = "local time" if window.zone == "local" else window.zone
    days = f" on {', '.join(day for day in DAYS if day in window.days)}" if window.days else ""
    return f"from {start} to {end} {zone}{days}"
