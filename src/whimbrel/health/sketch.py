"""Latencies as counts in log buckets, with 1% relative accuracy (the mapping of DDSketch, arXiv:1908.10693).

key = ceil(log_gamma v), gamma = (1 + 0.01) / (1 - 0.01). Counts at a bucket's edge are exact, and sketches merge by
adding counts. Devices use the scalar form on a dict; `keys_of` is the same for arrays, and needs numpy.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from whimbrel import limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ACCURACY = 0.01
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(GAMMA)

Key = Annotated[int, Meta(ge=-limits.SKETCH_KEY, le=limits.SKETCH_KEY)]


def key_of(value: float) -> int:
    """The bucket of a positive value; zero and below fall into the lowest one."""
    if value <= 0:
        return -limits.SKETCH_KEY
    return max(-limits.SKETCH_KEY, min(limits.SKETCH_KEY, math.ceil(math.log(value) / _LOG_GAMMA)))


def count_above(buckets: Mapping[int, int], value: float) -> int:
    """How many values lie above the edge of the bucket that holds `value`."""
    if math.isinf(value):
        return 0
    return count_over(buckets, key_of(value))


def count_over(buckets: Mapping[int, int], edge: int) -> int:
    """How many values lie above gamma^edge."""
    return sum(count for key, count in buckets.items() if key > edge)


def quantile_key(buckets: Mapping[int, int], p: float) -> int | None:
    """The p-quantile's bucket: the least key with at least a share p at or below it. None: no values."""
    total = sum(buckets.values())
    below = 0
    for key in sorted(buckets):
        below += buckets[key]
        if below and below >= p * total:
            return key
    return None


def key_at(buckets: Mapping[int, int], place: int) -> int:
    """The bucket of the value at `place`, counted from 0, when all values stand in order.

    Raises `ValueError` where there are not so many.
    """
    left = place
    for key in sorted(buckets):
        left -= buckets[key]
        if left < 0:
            return key
    raise ValueError(f"there is no value {place} among {sum(buckets.values())}")


def steps_of(factor: float) -> int:
    """How many buckets a factor spans, rounded down: m = gamma^steps is a whole number of edges."""
    return math.floor(math.log(factor) / _LOG_GAMMA + 1e-9)


def keys_of(values: "NDArray[np.float64]") -> "NDArray[np.int64]":
    """`key_of` for an array."""
    import numpy as np

    positive = values > 0
    logs = np.log(np.where(positive, values, 1.0)) / _LOG_GAMMA
    keys = np.clip(np.ceil(logs), -limits.SKETCH_KEY, limits.SKETCH_KEY).astype(np.int64)
    return np.where(positive, keys, -limits.SKETCH_KEY)
