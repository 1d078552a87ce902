"""How are latencies added up? Log buckets with 1% relative accuracy (the mapping of DDSketch, arXiv:1908.10693).

key = ceil(log_gamma v), gamma = (1 + 0.01) / (1 - 0.01). Counts at a bucket's edge are exact, and sketches merge by
adding counts.
"""

import math
from collections.abc import Mapping

ACCURACY = 0.01
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(GAMMA)
_KEY_LIMIT = 4000  # gamma^4000 is above 1e34: any time that is not a mistake fits


def key_of(value: float) -> int:
    """The bucket of a positive value; zero and below fall into the lowest one."""
    if value <= 0:
        return -_KEY_LIMIT
    return max(-_KEY_LIMIT, min(_KEY_LIMIT, math.ceil(math.log(value) / _LOG_GAMMA)))


def count_above(buckets: Mapping[int, int], value: float) -> int:
    """How many values lie above the edge of the bucket that holds `value`."""
    if math.isinf(value):
        return 0
    edge = key_of(value)
    return sum(count for key, count in buckets.items() if key > edge)
