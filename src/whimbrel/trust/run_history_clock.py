"""When did the entries of a run history happen, where the device's clock may have been wrong? Bounds for each of them.

1. The order of the entries is certain, and so is that nothing happened before the newest signed time that the device
   knew. Its clock is believed where nothing in the log speaks against it.
2. An entry is *doubted* where its clock is behind that signed time, or where it does not fit into the longest run of
   entries (with the head) whose times rise. Where there are several such runs, the entries that are in all of them are
   believed. A doubted entry lies between the believed ones beside it.
3. A head speaks of no time that had not come yet where its part came in, by the clock of who got it.

Called by `run_history_answer.py`.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from whimbrel import limits
from whimbrel.trust.run_history_proof import CheckedBranch

NEVER = float("inf")


class Bounds(msgspec.Struct, frozen=True):
    """When an entry happened, POSIX seconds: at the earliest, and at the latest (`NEVER`: no bound is known)."""

    earliest: float
    latest: float
    is_doubted: bool = False


def bounds_of(branch: CheckedBranch) -> tuple[list[Bounds], float]:
    """The bounds of each entry of a branch, and the time until which its head says that nothing else happened."""
    entries, head = branch.entries, branch.head
    clocks = [entry.at for entry in entries] + [head.at]
    floors = list(accumulate([entry.signed_time for entry in entries] + [head.signed_time], max))
    behind = [floor - clock > limits.RUN_CLOCK_SLACK_S for clock, floor in zip(clocks, floors, strict=True)]
    believed = _rising(clocks, but=behind)
    before = _newest_before(clocks, believed)
    after = _oldest_after(clocks, believed)
    bounds = []
    for index, entry in enumerate(entries):
        if not believed[index]:
            bounds.append(Bounds(max(before[index], floors[index]), after[index], is_doubted=True))
        elif entry.change == "still":
            bounds.append(Bounds(min(entry.not_before, entry.at), min(entry.not_before, entry.at)))
        else:
            earliest = entry.not_before if entry.not_before <= entry.at else before[index]
            bounds.append(Bounds(earliest, max(entry.at, floors[index])))
    until = max(head.at if believed[-1] else before[-1], floors[-1])
    received_at = branch.branch.received_at
    return bounds, until if received_at is None else min(until, received_at + limits.RUN_CLOCK_SLACK_S)


def _rising(clocks: Sequence[float], *, but: Sequence[bool]) -> list[bool]:
    """Which times are in every longest run that does not fall, of those that are not in `but`."""
    kept = [index for index, is_left_out in enumerate(but) if not is_left_out]
    before = _lengths([clocks[index] for index in kept])
    after = _lengths([-clocks[index] for index in reversed(kept)])[::-1]
    longest = max(before, default=0)
    on_a_run = {
        index: rank for index, rank, rest in zip(kept, before, after, strict=True) if rank + rest - 1 == longest
    }
    many = Counter(on_a_run.values())
    return [index in on_a_run and many[on_a_run[index]] == 1 for index in range(len(clocks))]


def _lengths(values: Sequence[float]) -> list[int]:
    """The length of the longest run that does not fall and ends with each value."""
    ends: list[float] = []  # the least last value of a run of each length
    lengths = []
    for value in values:
        place = bisect_right(ends, value)
        ends[place : place + 1] = [value]
        lengths.append(place + 1)
    return lengths


def _newest_before(clocks: Sequence[float], believed: Sequence[bool]) -> list[float]:
    newest, times = 0.0, []
    for clock, is_believed in zip(clocks, believed, strict=True):
        times.append(newest)
        newest = clock if is_believed else newest
    return times


def _oldest_after(clocks: Sequence[float], believed: Sequence[bool]) -> list[float]:
    oldest, times = NEVER, []
    for clock, is_believed in zip(reversed(clocks), reversed(believed), strict=True):
        times.append(oldest)
        oldest = clock if is_believed else oldest
    return times[::-1]
