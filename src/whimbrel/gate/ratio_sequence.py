"""How did the confidence set of a rate ratio narrow, window by window? What a chart of a guardrail shows.

1. The bets are those of `evidence.RateFold`, at every ratio of a grid at once: a ratio is in the set as long as neither
   direction's test refutes it. The set may be looked at after every window (Ville's inequality), each end at `alpha`.
2. A grid has steps of 5%: the ends are rounded outwards to it, so a set is never told narrower than it is.
3. Windows of one device count as independent here, as the rates themselves do. The gate divides its evidence by their
   design effect, and tests anew within a stage, so its verdict is another one: a picture proves nothing.
4. A window in which an arm has no exposure proves nothing, and one without events changes nothing but the time.

Needs numpy; nothing that a device imports imports this. Called by flows/rollouts/effects.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.gate.evidence import GAINS, RateWindow

LEAST, MOST = 0.01, 100.0  # the ratios that are told apart; beyond them an end is open
_STEP = 1.05
_RATIOS = np.exp(np.arange(math.log(LEAST), math.log(MOST) + 1e-9, math.log(_STEP)))
_LOG_GAINS = np.log(np.array(GAINS))
_MORE = np.array(GAINS) - 1.0


class RatioSet(msgspec.Struct, frozen=True, kw_only=True):
    """After a window: the treated rate over the control's, and between which ratios it lies.

    `ratio` None: an arm had no event so far. `low` 0 and `high` None: there is no such end yet.
    """

    ratio: float | None
    low: float
    high: float | None


def ratio_sequence(windows: Iterable[Sequence[RateWindow]], *, alpha: float) -> list[RatioSet]:
    """The set after each window. Each item of `windows` holds one window's strata: like is compared with like."""
    above, below = _Bets(), _Bets()
    sums = RateWindow(0.0, 0.0, 0.0, 0.0)
    needed, sets = math.log(1 / alpha), []
    for strata in windows:
        for each in strata:
            if each.exposure_t > 0 and each.exposure_c > 0:
                above.add(each.events_t, each.events_c, _RATIOS * each.exposure_t, each.exposure_c)
                below.add(each.events_c, each.events_t, each.exposure_c / _RATIOS, each.exposure_t)
                sums = RateWindow(
                    sums.events_t + each.events_t,
                    sums.exposure_t + each.exposure_t,
                    sums.events_c + each.events_c,
                    sums.exposure_c + each.exposure_c,
                )
        sets.append(_set_of(sums, above.refuted(needed), below.refuted(needed)))
    return sets


class _Bets:
    """The logarithms of the seven bets, at every ratio of the grid."""

    def __init__(self) -> None:
        self._logs = np.zeros((len(_RATIOS), len(GAINS)))

    def add(self, events: float, others: float, null: NDArray[np.float64], exposure: float) -> None:
        """One window and stratum. `null`: what the ratio lets one arm weigh, `exposure`: what the other one does."""
        if events + others:
            share = (null / (null + exposure))[:, None]
            self._logs += events * _LOG_GAINS - (events + others) * np.log1p(share * _MORE)

    def refuted(self, needed: float) -> NDArray[np.bool_]:
        """Which ratios are refuted."""
        top = self._logs.max(axis=1)
        log_e: NDArray[np.float64] = top + np.log(np.exp(self._logs - top[:, None]).mean(axis=1))
        return log_e >= needed


def _set_of(sums: RateWindow, too_low: NDArray[np.bool_], too_high: NDArray[np.bool_]) -> RatioSet:
    low = float(_RATIOS[np.flatnonzero(too_low)[-1]]) if too_low.any() else 0.0
    high = float(_RATIOS[np.flatnonzero(too_high)[0]]) if too_high.any() else None
    ratio = None
    if sums.events_t and sums.events_c:
        ratio = (sums.events_t / sums.exposure_t) / (sums.events_c / sums.exposure_c)
    return RatioSet(ratio=ratio, low=low, high=high)
