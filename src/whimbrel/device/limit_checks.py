"""Is a signed limit of this device broken? `broken_limit(local, sessions)`: pure.

1. A session is one value from 0 to 1: its share of errors; whether it was too slow; one minus its mean accuracy. So one
   session with a million inferences says no more than another.
2. What is compared is no mean but a bound: the mean must be beyond the limit beyond chance. For n independent values in
   [0, 1] whose expectation is at most m, a mean of x or more has at most the probability exp(-n kl(x, m)), where kl is
   the relative entropy of two coins (W. Hoeffding, 1963, theorem 1). A limit is broken where that probability is below
   `limits.LIMIT_FALSE_ALARM` divided by the sessions that are looked at (N).
3. It is asked after every session; each of the N looks of a window has its share of the false alarms. So a version that
   is exactly at its limit is left by at most one device in 1,000 within N sessions, and one that keeps away from its
   limit by none. Sessions of one device are taken for independent: a limit that a bad day breaks is too tight.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.health.sketch import key_of
from whimbrel.model.documents import Document
from whimbrel.model.local_limits import LocalLimits

SLOW_SHARE = 0.05  # of sessions that may be slower than `latency_ms_p95_max`
_HALVINGS = 40

Share = Annotated[float, Meta(ge=0, le=1)]


class SessionFigures(Document, frozen=True):
    """What one session says of its version. None: nothing. `latency_key`: of its slowest inference (health/sketch)."""

    errors: Share | None = None
    latency_key: int | None = None
    accuracy: Share | None = None


class _Check(msgspec.Struct, frozen=True):
    """A limit as a bound on the mean of values in [0, 1]; `words`: of what was found, what is proven, what may be."""

    values: list[float]
    most: float
    words: str
    is_floor: bool = False  # told as one minus the share


def broken_limit(local: LocalLimits, sessions: Sequence[SessionFigures]) -> str:
    """The first limit that the newest sessions break, in words; "" where all are kept, or too few sessions tell.

    `sessions`: of the active version, the oldest first.
    """
    window = local.sessions or limits.LIMIT_SESSIONS
    for check in _checks(local, list(sessions)[-window:]):
        count = len(check.values)
        if not count:
            continue
        mean = sum(check.values) / count
        proven = least_mean(mean, count=count, window=window)
        if proven > check.most:
            shares = [1 - each if check.is_floor else each for each in (mean, proven, check.most)]
            found, bound, limit = (f"{share:.1%}" for share in shares)
            return check.words.format(count=count, found=found, bound=bound, limit=limit)
    return ""


def least_mean(mean: float, *, count: int, window: int) -> float:
    """The expectation that `count` values with this mean are beyond, beyond chance, at each of `window` looks."""
    needed = math.log(window / limits.LIMIT_FALSE_ALARM) / count
    low, high = 0.0, mean
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _entropy(mean, middle) >= needed:
            low = middle
        else:
            high = middle
    return low


def _checks(local: LocalLimits, sessions: Sequence[SessionFigures]) -> list[_Check]:
    checks = []
    if local.error_rate_max is not None:
        values = [each.errors for each in sessions if each.errors is not None]
        words = "{found} errors in the last {count} sessions, at least {bound} beyond chance; at most {limit} may be"
        checks.append(_Check(values, local.error_rate_max, words))
    if local.latency_ms_p95_max is not None:
        edge = key_of(local.latency_ms_p95_max)
        values = [float(each.latency_key > edge) for each in sessions if each.latency_key is not None]
        words = (
            f"{{found}} of the last {{count}} sessions were slower than {local.latency_ms_p95_max:g} ms, "
            "at least {bound} beyond chance; at most {limit} may be"
        )
        checks.append(_Check(values, SLOW_SHARE, words))
    if local.accuracy_min is not None:
        values = [1.0 - each.accuracy for each in sessions if each.accuracy is not None]
        words = "accuracy {found} in the last {count} sessions, at most {bound} beyond chance; at least {limit} must be"
        checks.append(_Check(values, 1.0 - local.accuracy_min, words, is_floor=True))
    return checks


def _entropy(mean: float, expected: float) -> float:
    """Relative entropy of a coin with `mean` from one with `expected`, in nats; 0 < `expected` <= `mean`."""
    shares = (mean, expected), (1 - mean, 1 - expected)
    return sum(share * math.log(share / of) for share, of in shares if share > 0)
