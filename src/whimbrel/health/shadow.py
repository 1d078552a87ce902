"""Reports about a candidate in the shadow: the sums of one device, and those of many devices' windows.

1. Only sums and counts travel: no input and no output ever does.
2. A call's agreement is a share in [0, 1], and so is a device-window's: one device with a million calls is one unit.
3. The candidate's time is compared with the active version's on the same inputs, in the same worker: a device-window
   has one ratio.
4. What was dropped (the worker was busy) and skipped (the active version failed there too) says nothing of a candidate.
"""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from whimbrel import limits
from whimbrel.health.sketch import Key, key_of
from whimbrel.model.documents import Document
from whimbrel.model.ids import Serial

_MOST, _MOST_MS = 2**40, 1e15  # of one report
Count = Annotated[int, Meta(ge=0, le=_MOST)]
Milliseconds = Annotated[float, Meta(ge=0, le=_MOST_MS)]
Buckets = Annotated[dict[Key, Count], Meta(max_length=limits.SKETCH_BUCKETS)]
Sum = Annotated[int, Meta(ge=0)]
Sums = Annotated[dict[int, Sum], Meta(max_length=limits.SKETCH_SUM_BUCKETS)]

_NOTHING = 1e-9  # less is what a sum of floats is off


class ShadowSums(Document, frozen=True):
    """One device's sums for the candidate `serial`. `inputs` = `compared` + `errors` + `crashed`; times in ms."""

    serial: Serial
    inputs: Count = 0  # calls that the candidate was asked, and the active version answered
    compared: Count = 0  # of these: it answered too
    agreed: Annotated[float, Meta(ge=0, le=2**40)] = 0.0  # the sum of the calls' agreement, each in [0, 1]
    errors: Count = 0  # it raised, or gave what is no number
    crashed: Count = 0  # it ended its process, or did not answer in time
    dropped: Count = 0  # sampled, and never tried: the worker was busy
    skipped: Count = 0  # the active version failed on it as well
    active_ms: Milliseconds = 0.0  # over what was compared
    candidate_ms: Milliseconds = 0.0
    active: Buckets = {}
    candidate: Buckets = {}

    def __post_init__(self) -> None:
        if self.inputs != self.compared + self.errors + self.crashed:
            raise ValueError(f"{self.inputs} inputs are not {self.compared} + {self.errors} + {self.crashed}")
        if self.agreed > self.compared * (1 + 1e-9):
            raise ValueError(f"{self.agreed} of {self.compared} agreed")

    def plus(self, other: "ShadowSums") -> "ShadowSums":
        """Both together; `serial` must be the same."""
        if other.serial != self.serial:
            raise ValueError(f"what was seen of serial {other.serial} says nothing of {self.serial}")
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__struct_fields__
            if name not in {"serial", "active", "candidate"}
        }
        return ShadowSums(
            serial=self.serial,
            active=merged(self.active, other.active, keys=limits.SKETCH_BUCKETS),
            candidate=merged(self.candidate, other.candidate, keys=limits.SKETCH_BUCKETS),
            **sums,
        )


def fits(sums: ShadowSums) -> bool:
    """Whether the sums of several reports are within what one report may say, so that they can be read back."""
    counts = sums.inputs, sums.dropped, sums.skipped
    return max(counts) <= _MOST and max(sums.active_ms, sums.candidate_ms) <= _MOST_MS


class Units(Document, frozen=True):
    """Sums over device-windows in which the candidate was asked something.

    In buckets, one value a device-window: `ratios` of times; `disagreed` and `failed`, the shares that are not 0.
    """

    windows: Sum = 0
    inputs: Sum = 0
    compared: Sum = 0
    agreed: Annotated[float, Meta(ge=0)] = 0.0
    errors: Sum = 0
    crashed: Sum = 0
    dropped: Sum = 0
    skipped: Sum = 0
    compared_windows: Sum = 0
    disagreed_share: Annotated[float, Meta(ge=0)] = 0.0  # over `compared_windows`
    failed_share: Annotated[float, Meta(ge=0)] = 0.0  # errors and crashes, over `windows`
    crashed_windows: Sum = 0
    ratios: Sums = {}
    disagreed: Sums = {}
    failed: Sums = {}
    active: Sums = {}
    candidate: Sums = {}

    @classmethod
    def of(cls, sums: ShadowSums) -> "Units":
        """One device-window."""
        timed = sums.compared and sums.active_ms > 0
        disagreed = max(0.0, 1 - sums.agreed / sums.compared) if sums.compared else 0.0
        failed = (sums.errors + sums.crashed) / sums.inputs if sums.inputs else 0.0
        return cls(
            windows=1 if sums.inputs else 0,
            inputs=sums.inputs,
            compared=sums.compared,
            agreed=sums.agreed,
            errors=sums.errors,
            crashed=sums.crashed,
            dropped=sums.dropped,
            skipped=sums.skipped,
            compared_windows=1 if sums.compared else 0,
            disagreed_share=disagreed,
            failed_share=failed,
            crashed_windows=1 if sums.crashed else 0,
            ratios={key_of(sums.candidate_ms / sums.active_ms): 1} if timed else {},
            disagreed={key_of(disagreed): 1} if disagreed > _NOTHING else {},
            failed={key_of(failed): 1} if failed else {},
            active=sums.active,
            candidate=sums.candidate,
        )

    def plus(self, other: "Units") -> "Units":
        """Both together."""
        sums = {n: getattr(self, n) + getattr(other, n) for n in self.__struct_fields__ if n not in _BUCKETS}
        return Units(
            ratios=merged(self.ratios, other.ratios, keys=limits.SKETCH_SUM_BUCKETS),
            disagreed=merged(self.disagreed, other.disagreed, keys=limits.SKETCH_SUM_BUCKETS),
            failed=merged(self.failed, other.failed, keys=limits.SKETCH_SUM_BUCKETS),
            active=merged(self.active, other.active, keys=limits.SKETCH_SUM_BUCKETS),
            candidate=merged(self.candidate, other.candidate, keys=limits.SKETCH_SUM_BUCKETS),
            **sums,
        )

    def less(self, other: "Units") -> "Units":
        """What brings sums that hold `other` to sums that hold this instead. Its counts may be negative."""
        sums = {n: getattr(self, n) - getattr(other, n) for n in self.__struct_fields__ if n not in _BUCKETS}
        return Units(
            ratios=change(self.ratios, other.ratios),
            disagreed=change(self.disagreed, other.disagreed),
            failed=change(self.failed, other.failed),
            active=change(self.active, other.active),
            candidate=change(self.candidate, other.candidate),
            **sums,
        )


_BUCKETS = "ratios", "disagreed", "failed", "active", "candidate"


def change(after: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    """By how much each count grew, or fell."""
    grown = {key: after.get(key, 0) - before.get(key, 0) for key in (*after, *before)}
    return {key: count for key, count in grown.items() if count}


def merged(one: dict[int, int], other: dict[int, int], *, keys: int) -> dict[int, int]:
    """Counts of both; beyond so many buckets a new one is left out."""
    counts = dict(one)
    for key, count in other.items():
        if key in counts or len(counts) < keys:
            counts[key] = counts.get(key, 0) + count
    return counts if all(counts.values()) else {key: count for key, count in counts.items() if count}
