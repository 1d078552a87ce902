"""What would the gate say of thousands of simulated rollouts? The ledger's sums over arrays, one row a rollout.

The same formulas, weights and order of windows as `ledger`, in numpy; a property test holds the two equal. For
simulation alone: no verdict about a real device is made here. Nothing that a device imports imports this.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.health.evidence import GAINS, one_sided_rho
from whimbrel.rollout.guardrails import (
    BETS,
    CLASS_SHARE,
    QUANTILES,
    RATES,
    SEEN_DROP,
    TOLERATED_DROP,
    TOLERATED_RATIO,
    copies,
    guard_weights,
)
from whimbrel.rollout.plan import Plan

Array = NDArray[Any]  # floats, or whole numbers of events
_GAINS = np.array(GAINS)
_LOG_GAINS = np.log(_GAINS)
_EARLIER = 30  # as in evidence
_LEAST_VARIANCE = 1e-6
_HISTORY = 10  # as in ledger


class Arm(msgspec.Struct):
    """One arm of a cohort in one window: arrays of (runs, age groups, classes); latency (runs, age groups, edges)."""

    at_risk: Array
    crashed: Array
    errors: Array
    due: Array
    overdue: Array
    accuracy_n: Array
    accuracy_sum: Array
    accuracy_sumsq: Array
    latency: Array  # counts in sketch buckets that are TOLERATED_SLOWER apart


class _Means:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.v, self.s = np.zeros(shape), np.zeros(shape)
        self.t, self.c = np.zeros((3, *shape)), np.zeros((3, *shape))

    def add(self, t: Array, c: Array) -> None:
        """Moments (3, runs, ages, ...): the ages are strata."""
        ready = (self.t[0] >= _EARLIER) & (self.c[0] >= _EARLIER)
        spread_c = _variance(self.c)
        spread_t = np.maximum(_variance(self.t), spread_c)
        for age in range(t.shape[2]):
            n_t, n_c = t[0][:, age], c[0][:, age]
            use = ready & (n_t > 0) & (n_c > 0)
            a, b = np.where(use, n_t, 1), np.where(use, n_c, 1)
            weight = np.where(use, 1 / (spread_t / a + spread_c / b), 0)
            self.v += weight
            self.s += weight * (c[1][:, age] / b - t[1][:, age] / a - TOLERATED_DROP)
        self.t += t.sum(axis=2)
        self.c += c.sum(axis=2)

    def log_e(self, rho: float) -> Array:
        spread = self.v + rho
        erfc = np.frompyfunc(math.erfc, 1, 1)
        tail = 0.5 * np.asarray(erfc(-self.s / np.sqrt(2 * spread)), dtype=float)
        log = 0.5 * np.log(4 * rho / spread) + self.s**2 / (2 * spread) + np.log(np.maximum(tail, 5e-324))
        return np.where((self.s > 0) & (self.v > 0), log, 0.0)


def _variance(moments: Array) -> Array:
    n = np.maximum(moments[0], 2)
    variance: Array = np.maximum(_LEAST_VARIANCE, (moments[2] - moments[1] ** 2 / n) / (n - 1))
    return variance


class BulkLedger:
    """`runs` rollouts of one plan over a fleet with `classes` hardware classes, all heard of from the first window."""

    def __init__(self, plan: Plan, *, runs: int, classes: int) -> None:
        self.plan, self.runs, self.classes = plan, runs, classes
        self.weights = guard_weights(plan)
        self.copies = copies(len(plan.stages))
        rates = (*RATES, *QUANTILES)
        self._global = {(c.cohort, c.start, n): np.zeros((runs, 7)) for c in self.copies for n in rates}
        self._class = {(s, n): np.zeros((runs, classes, 7)) for s in range(len(plan.stages)) for n in RATES}
        self._means = {(c.cohort, c.start): _Means((runs,)) for c in self.copies}
        self._class_means = {s: _Means((runs, classes)) for s in range(len(plan.stages))}
        self._history: dict[int, Array] = {}
        self.begun = -1
        self._rho = one_sided_rho(
            v_opt=2 * math.log(1 / plan.alpha) / (SEEN_DROP - TOLERATED_DROP) ** 2, alpha=plan.alpha
        )

    def fold(self, cohorts: Mapping[int, tuple[Arm, Arm]]) -> None:
        """One window: the treated and the control arm of every cohort that began."""
        self.begun = max(self.begun, *cohorts)
        for cohort, (t, c) in cohorts.items():
            starts = range(cohort, self.begun + 1)
            pairs = {
                "crash": (t.crashed, t.at_risk, c.crashed, c.at_risk),
                "error": (t.errors, t.at_risk, c.errors, c.at_risk),
                "silence": (t.overdue, t.due, c.overdue, c.due),
            }
            for name, sums in pairs.items():
                change = _bets(*(each.sum(axis=2) for each in sums), ratio=TOLERATED_RATIO)
                for start in starts:
                    self._global[cohort, start, name] += change
                self._class[cohort, name] += _bets(*sums, ratio=TOLERATED_RATIO)
            self._latency(cohort, starts, t.latency, c.latency)
            moments = [np.stack([a.accuracy_n, a.accuracy_sum, a.accuracy_sumsq]) for a in (t, c)]
            for start in starts:
                self._means[cohort, start].add(moments[0].sum(axis=3), moments[1].sum(axis=3))
            self._class_means[cohort].add(moments[0], moments[1])

    def _latency(self, cohort: int, starts: range, t: Array, c: Array) -> None:
        history = self._history.setdefault(cohort, np.zeros((self.runs, t.shape[2])))
        below = np.cumsum(history, axis=1)
        total = below[:, -1]
        over_t = t.sum(axis=2, keepdims=True) - np.cumsum(t, axis=2)
        over_t = np.concatenate([over_t[:, :, 1:], np.zeros((*over_t.shape[:2], 1))], axis=2)  # one edge further
        over_c = c.sum(axis=2, keepdims=True) - np.cumsum(c, axis=2)
        for name, p in QUANTILES.items():
            edge = np.argmax((below > 0) & (below >= p * total[:, None]), axis=1)[:, None, None]
            known = (total >= math.ceil(_HISTORY / (1 - p)))[:, None]
            x_t = np.where(known, np.take_along_axis(over_t, edge, axis=2)[:, :, 0], 0)
            x_c = np.where(known, np.take_along_axis(over_c, edge, axis=2)[:, :, 0], 0)
            change = _bets(x_t, t.sum(axis=2), x_c, c.sum(axis=2), ratio=1.0)
            for start in starts:
                self._global[cohort, start, name] += change
        history += c.sum(axis=1)

    def log_e(self) -> Array:
        """ln of the average of all E-values, one a run; failures of installs are taken as none."""
        total = np.full(self.runs, self.weights["failure"])  # no attempts: E is 1
        for copy in self.copies:
            begun = copy.start <= self.begun
            own = copy.cohort == copy.start
            for name, share in self.weights.items():
                if name == "failure":
                    continue
                weight = share * copy.weight
                if not begun:
                    total += weight
                    continue
                split = own and (name in RATES or name == "accuracy") and self.classes > 1
                total += weight * (1 - CLASS_SHARE if split else 1) * self._e(copy.cohort, copy.start, name)
                if split:
                    total += weight * CLASS_SHARE * self._class_e(copy.cohort, name).mean(axis=1)
        return np.asarray(np.log(total))

    def _e(self, cohort: int, start: int, name: str) -> Array:
        if name == "accuracy":
            return np.asarray(np.exp(np.minimum(self._means[cohort, start].log_e(self._rho), 600)))
        logs = self._global[cohort, start, name]
        return np.asarray(np.exp(np.minimum(logs, 600)) @ np.array(BETS))

    def _class_e(self, cohort: int, name: str) -> Array:
        if name == "accuracy":
            return np.asarray(np.exp(np.minimum(self._class_means[cohort].log_e(self._rho), 600)))
        return np.asarray(np.exp(np.minimum(self._class[cohort, name], 600)) @ np.array(BETS))


def _bets(x_t: Array, e_t: Array, x_c: Array, e_c: Array, *, ratio: float) -> Array:
    """What one window adds to the seven logarithms, summed over the age groups (axis 1)."""
    use = (e_t > 0) & (e_c > 0)
    null = ratio * np.where(use, e_t, 1)
    share = null / (null + np.where(use, e_c, 1))
    both = np.where(use, x_t + x_c, 0)[..., None]
    change = np.where(use, x_t, 0)[..., None] * _LOG_GAINS - both * np.log1p(share[..., None] * (_GAINS - 1))
    return np.asarray(change.sum(axis=1))
