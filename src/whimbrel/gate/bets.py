"""Tests of a mean of values in [0, 1] against a limit: bets on one value at a time, from counts in buckets.

Each value x pays 1 + lambda (x - limit); where the mean is at most the limit no such bet wins on average, so its
product is an E-value, anytime-valid (Waudby-Smith and Ramdas, arXiv:2010.09686). The seven lambdas are those at which
the bet is the binomial likelihood ratio of `evidence.one_sample_log_e` for values that are 0 or 1; for values between
them it wins more, since a line lies above the curve. So a mean of values that vary little is told with few of them.

Values come in log buckets (`sketch`), rounded to the side that makes the bet win less.
"""

import math
from collections.abc import Mapping

from whimbrel.gate.evidence import GAINS, log_mean_exp
from whimbrel.health.sketch import GAMMA

_EVEN = tuple(1 / len(GAINS) for _ in GAINS)
_MOST = 0.99  # as in evidence: an alternative of 1 would lose everything with one value below it


def over_log_e(buckets: Mapping[int, int], *, count: int, limit: float) -> float:
    """ln E against H0: the mean of `count` values is at most `limit` (0 < limit < 1). Those in no bucket are 0."""
    values = [(min(1.0, GAMMA ** (key - 1)), number) for key, number in sorted(buckets.items())]
    zeros = count - sum(buckets.values())
    logs = []
    for gain in GAINS:
        bet = (min(gain * limit, _MOST) - limit) / (limit * (1 - limit))
        log = zeros * math.log1p(-bet * limit)
        log += sum(number * math.log1p(bet * (value - limit)) for value, number in values)
        logs.append(log)
    return log_mean_exp(logs, _EVEN)


def under_log_e(buckets: Mapping[int, int], *, count: int, limit: float) -> float:
    """ln E against H0: the mean is at least `limit`."""
    values = [(min(1.0, GAMMA**key), number) for key, number in sorted(buckets.items())]
    zeros = count - sum(buckets.values())
    logs = []
    for gain in GAINS:
        bet = (limit - limit / gain) / (limit * (1 - limit))
        log = zeros * math.log1p(bet * limit)
        log += sum(number * math.log1p(bet * (limit - value)) for value, number in values)
        logs.append(log)
    return log_mean_exp(logs, _EVEN)
