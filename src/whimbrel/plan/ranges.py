"""Which buckets of a layer may something use, and who has them already? The one check of overlap.

A range is [start, end) in buckets. Two rollouts of one model, or a rollout and an experiment, share a layer as long as
their ranges do not meet: then a device is in one of them at most, whatever its labels say.

Called before anything begins in a layer, for rollouts and experiments alike.
"""

from collections.abc import Iterable

import msgspec

from whimbrel.policy.bucket import BUCKETS


class Range(msgspec.Struct, frozen=True):
    """Buckets [start, end) of a layer."""

    start: int = 0
    end: int = BUCKETS

    @classmethod
    def of_percent(cls, low: float, high: float) -> "Range":
        """The buckets of a stretch of the layer in percent; ranges that touch in percent touch in buckets."""
        return cls(round(low / 100 * BUCKETS), round(high / 100 * BUCKETS))

    @property
    def buckets(self) -> int:
        """How many they are."""
        return self.end - self.start

    @property
    def whole(self) -> bool:
        """Whether it is the whole layer."""
        return self.buckets == BUCKETS

    def meets(self, other: "Range") -> bool:
        """Whether some bucket is in both."""
        return self.start < other.end and other.start < self.end

    def words(self) -> str:
        """As a sentence says it."""
        return f"{100 * self.start / BUCKETS:g}% to {100 * self.end / BUCKETS:g}%"


def in_the_way(wanted: Range, taken: Iterable[tuple[str, Range]]) -> list[str]:
    """The names of those whose ranges meet `wanted`, in the order given; none, and the way is free."""
    return [name for name, held in taken if wanted.meets(held)]
