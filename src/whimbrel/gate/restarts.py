"""Harm that begins late: copies of a test that begin anew every hour, with a share of the test's weight.

A bet that has lost for a day must first win all that back. A copy that begins after the day's healthy hours need not.

1. Copy k begins when hour k of its stage does: hours of the plan, by the numbers of the windows, so fixed beforehand.
   It bets on the windows from there on: a copy is the test's sums now, less what they were then.
2. The weights are fixed beforehand: w_k = S / ((k + S - 1) (k + S)). Those of the hours after n add up to S / (n + S),
   and all add up to 1. So a copy loses little by coming late, in a stage of a day as in one of weeks.
3. Copy k lives for 4 (k & -k) hours: four where k is odd, twice as long for every time that 2 divides k. So slow harm
   has old copies too, and the number of copies grows with the logarithm of the hours. What a closed copy was worth
   stays in the average: an E-process that is stopped by what is known by then is an E-process.
4. Hours without a window change no bet: the copies that would have begun there are one, with their weights together.

The average over all copies, those to come counted at 1, is an E-process. Called by the tests (`restarted_tests`).
"""

import math
import operator
from collections.abc import Callable

import msgspec

from whimbrel.gate.evidence import log_mean_exp

Sums = tuple[float, ...]  # what a test has added up since it began

RESTARTED = 0.1  # of a test's weight: its copies that begin anew
SPREAD_H = 24  # S above: after so many hours half of the copies' weight has begun
_LIFE_H = 4


class Restart(msgspec.Struct, frozen=True):
    """A copy: the hour in which it began, its weight among the copies, and the test's sums then."""

    hour: int
    weight: float
    then: Sums

    def since(self, sums: Sums) -> Sums:
        """What the copy itself has added up."""
        return tuple(map(operator.sub, sums, self.then))


class Restarts:
    """The copies of one test. `log_e`: ln E of what was added up since some time."""

    __slots__ = ("_places", "closed", "hour", "live")

    def __init__(self) -> None:
        self.hour = 0
        self.closed = -math.inf  # ln of what the closed copies are worth together, each with its weight
        self.live: list[Restart] = []  # the copies that still bet, the oldest first
        self._places: dict[tuple[int, int], Restart] = {}

    def begin(self, hour: int, sums: Sums, log_e: Callable[[Sums], float]) -> None:
        """Hour `hour` of the stage has come, and nothing of it is in `sums` yet."""
        if hour <= self.hour:
            return
        ends = place_of(hour)
        if (old := self._places.get(ends)) is not None:
            self.closed = _log_add(self.closed, math.log(old.weight) + log_e(old.since(sums)))
        self._places[ends] = Restart(hour, to_come(self.hour) - to_come(hour), sums)
        self.hour = hour
        self.live = sorted(self._places.values(), key=lambda each: each.hour)

    def average(self, standing: float, sums: Sums, log_e: Callable[[Sums], float]) -> float:
        """ln E of the test with all its copies; `standing`: ln E of the one that began with the stage."""
        logs = [standing, 0.0, *[log_e(each.since(sums)) for each in self.live]]
        weights = [1 - RESTARTED, RESTARTED * to_come(self.hour), *[RESTARTED * each.weight for each in self.live]]
        if self.closed > -math.inf:
            logs.append(self.closed)
            weights.append(RESTARTED)
        return log_mean_exp(logs, weights)

    def leading(self, standing: float, sums: Sums, log_e: Callable[[Sums], float]) -> Restart | None:
        """The copy that carries more of the evidence than every other test; None: that is the one that stands.

        Of the copies that still bet: of a closed one only its worth is kept. `standing`: as in `average`.
        """
        logs = {each: log_e(each.since(sums)) + math.log(RESTARTED * each.weight) for each in self.live}
        best = max(self.live, key=logs.__getitem__, default=None)
        return best if best is not None and logs[best] > standing + math.log(1 - RESTARTED) else None

    def at_least(self, hours: int, *, hour: int) -> Restart | None:
        """The newest copy that is at least so many hours old at hour `hour`."""
        old = [each for each in self.live if hour - each.hour >= hours]
        return max(old, key=lambda each: each.hour, default=None)


def to_come(hour: int) -> float:
    """The weight of the copies that begin after hour `hour`, among all copies."""
    return SPREAD_H / (hour + SPREAD_H)


def place_of(hour: int) -> tuple[int, int]:
    """Where copy `hour` is kept: whoever was there before has lived its 4 (k & -k) hours."""
    step = hour & -hour
    return step, (hour // (2 * step)) % (_LIFE_H // 2)


def _log_add(one: float, other: float) -> float:
    return log_mean_exp((one, other), (1.0, 1.0))
