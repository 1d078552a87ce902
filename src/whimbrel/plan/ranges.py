"""Ranges of buckets in a layer, and the one check whether two of them overlap.

A range is [start, end) in buckets. Two rollouts of one model, or a rollout and an experiment, share a layer as long as
their ranges do not overlap: then a device is in at most one of them, whatever its labels say.

Called before a rollout or an experiment begins.
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
        """The buckets of a range in percent. Ranges that touch in percent touch in buckets."""
        return cls(round(low / 100 * BUCKETS), round(high / 100 * BUCKETS))

    @property
    def buckets(self) -> int:
        """The number of buckets."""
        return self.end - self.start

    @property
    def whole(self) -> bool:
        """Whether it is the whole layer."""
        return self.buckets == BUCKETS

    def meets(self, other: "Range") -> bool:
        """Whether the two ranges share a bucket."""
        return self.start < other.end and other.start < self.end

    def words(self) -> str:
        """The range as words of a sentence."""
        return f"{100 * self.start / BUCKETS:g}% to {100 * self.end / BUCKETS:g}%"


def in_the_way(wanted: Range, taken: Iterable[tuple[str, Range]]) -> list[str]:
    """The names whose ranges overlap `wanted`, in the order given. An empty list: `wanted` is free."""
    return [name for name, other in taken if wanted.meets(other)]
