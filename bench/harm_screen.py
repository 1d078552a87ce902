"""Could the gate have spoken in any window of a rollout? All windows of one rollout at once, in arrays.

Of a rollout without a change the gate is asked some 300 times, and it hardly ever goes back; the averages over all
copies of all tests are what that costs. So the gate's own ledger folds the windows, what its tests have added up is
written down after each, and the evidence of all windows is worked out together.

1. A rollout whose evidence comes near the threshold is played again through the gate, which alone decides.
2. The gate gives the last verdict of every other one, and the evidence of its last window must be the same here;
   anything else is an error.
3. One cohort without slices, under a plan that sets no limit of its own: what the fleets of harm_fleet.py are.

Used by harm_rows.py.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whimbrel.gate.combined_evidence import combine
from whimbrel.gate.design_effect import ArmValues, constancy
from whimbrel.gate.evidence import GAINS, SMALLEST
from whimbrel.gate.guardrails import BETS, cohort_share
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.restarted_tests import MeanTest, RateTest
from whimbrel.gate.restarts import RESTARTED, to_come
from whimbrel.gate.verdict import GateInput
from whimbrel.plan.plan import Plan

Array = NDArray[Any]
NEAR = 0.1  # of ln E: nearer to the threshold than this, the gate is asked
_EQUAL = 1e-6  # of ln E: what the arrays may differ by from the gate


class Screen:
    """The evidence of one rollout's canary, window by window, as the ledger folds them."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger
        self._rates: list[RateTest] = []
        self._means: list[MeanTest] = []
        self._weights: list[float] = []
        self._rows: list[tuple[list[Any], list[Any]]] = []  # of this hour: what every test has added up, by window
        self._hour = 0
        self._path: list[float] = []

    def add(self) -> None:
        """The window that was folded last."""
        cohort = self.ledger.cohorts.get(0)
        if cohort is None or cohort.tests is None:
            return
        if not self._rates:
            names = [name for name in self.ledger.weights if name in cohort.tests.rates]
            means = [name for name in self.ledger.weights if name in cohort.tests.means]
            self._rates = [cohort.tests.rates[name] for name in names]
            self._means = [cohort.tests.means[name] for name in means]
            share = cohort_share(len(self.plan.stages), 0)
            self._weights = [self.ledger.weights[name] * share for name in (*names, *means)]
        if self._rates[0].restarts is not None and self._rates[0].restarts.hour != self._hour:
            raise RuntimeError("an hour began before the windows of the last one were worked out")
        self._rows.append(([_of_rate(each) for each in self._rates], [_of_mean(each) for each in self._means]))

    def before(self, window: int) -> None:
        """Window `window` is about to be folded; where it begins an hour, the last hour is worked out first."""
        cohort = self.ledger.cohorts.get(0)
        if cohort is not None and (hour := self.ledger.hour(cohort, window)) != self._hour:
            self._close()
            self._hour = hour

    def highest(self, now: GateInput) -> float:
        """The greatest ln E of all windows. Raises `RuntimeError` where the gate's own of the last window differs."""
        self._close()
        if not self._path:
            return 0.0
        rest = 1 - math.fsum(self._weights)
        combined = combine(self.plan, now, self.ledger, now.counts[0])
        failure = next(lane for lane in combined.lanes if lane.guardrail == "failure")
        constant = rest - failure.weight + failure.weight * math.exp(failure.log_e)
        path = [math.log(constant + each) if each + constant < math.inf else math.inf for each in self._path]
        if abs(path[-1] - combined.log_e()) > _EQUAL * max(1.0, abs(path[-1])):
            raise RuntimeError(f"the arrays say ln E {path[-1]}, the gate {combined.log_e()}")
        return max(path)

    def _close(self) -> None:
        """Work out the windows of an hour: the copies are the same in all of them."""
        if not self._rows:
            return
        rates = _rate_evidence(self._rates, np.array([row[0] for row in self._rows]))
        means = _mean_evidence(self._means, np.array([row[1] for row in self._rows]))
        self._path += (np.concatenate([rates, means], axis=1) @ np.array(self._weights)).tolist()
        self._rows = []


def _of_rate(test: RateTest) -> list[float]:
    """Its sums, and how constant its devices are."""
    (alike,) = test.alike
    return [*test.sums, *_arms(alike.treated, alike.control), constancy(alike.treated, alike.control)]


def _of_mean(test: MeanTest) -> list[float]:
    fold = test.fold
    arms = _arms(fold.before_t, fold.before_c)
    both, control = constancy(fold.before_t, fold.before_c), constancy(fold.before_c)
    return [*fold.sums, *arms, both, control, 1.0 if test.rho is None else test.rho, test.rho is not None]


def _arms(treated: ArmValues, control: ArmValues) -> tuple[float, float, float, float]:
    return treated.n, treated.pairs, control.n, control.pairs


def _copies(tests: list[Any], sums: Array) -> Array:
    """(windows, tests, copies, sums): the test that began with the stage, and its copies."""
    width = sums.shape[2]  # what the gate keeps besides, for its sentences, is no evidence
    then = np.array([[[0.0] * width, *(each.then[:width] for each in test.restarts.live)] for test in tests])
    return np.asarray(sums[:, :, None, :] - then[None])


def _averaged(tests: list[Any], worth: Array) -> Array:
    """E of each test with its copies: (windows, tests), of E by copy."""
    restarts = [test.restarts for test in tests]
    weights = np.array([[1 - RESTARTED, *(RESTARTED * each.weight for each in of.live)] for of in restarts])
    other = np.array([RESTARTED * (to_come(of.hour) + math.exp(of.closed)) for of in restarts])
    return np.asarray((worth * weights[None]).sum(axis=2) + other[None])


def _rate_evidence(tests: list[RateTest], rows: Array) -> Array:
    """E of each rate: (windows, tests)."""
    bets = len(GAINS)
    sums = _copies(tests, rows[:, :, : bets + 4])
    n_t, n_c = sums[..., bets + 1], sums[..., bets + 3]
    of_t, pairs_t, of_c, pairs_c, alike = (rows[:, :, place, None] for place in range(bets + 4, bets + 9))
    effect_t, effect_c = _effect(of_t, pairs_t, alike, n_t), _effect(of_c, pairs_c, alike, n_c)
    known = ((pairs_t > 0) | (pairs_c > 0)) & (n_t > 0) & (n_c > 0)
    total = np.where(known, n_t + n_c, 1.0)
    divisor = np.maximum(1.0, np.where(known, (effect_t * n_c + effect_c * n_t) / total, 1.0))
    with np.errstate(over="ignore"):
        return _averaged(tests, np.exp(sums[..., :bets] / divisor[..., None]) @ np.array(BETS))


def _mean_evidence(tests: list[MeanTest], rows: Array) -> Array:
    """E of each mean: (windows, tests)."""
    sums = _copies(tests, rows[:, :, :6])
    precision, total, noise_t, noise_c, n_t, n_c = (sums[..., place] for place in range(6))
    of_t, pairs_t, of_c, pairs_c, both, control, rho, begun = (rows[:, :, place, None] for place in range(6, 14))
    weighed = (precision > 0) & (begun > 0)
    safe = np.where(weighed, precision, 1.0)
    more = (_effect(of_t, pairs_t, both, n_t) - 1) * noise_t + (_effect(of_c, pairs_c, control, n_c) - 1) * noise_c
    inflation = 1 + more / safe
    v, s = safe / inflation, total / inflation
    spread = v + rho
    tails = -np.where(weighed, s, 0.0) / np.sqrt(2 * spread)
    tail = 0.5 * np.array([math.erfc(each) for each in tails.ravel().tolist()]).reshape(tails.shape)
    logs = 0.5 * np.log(4 * rho / spread) + s * s / (2 * spread) + np.log(np.maximum(tail, SMALLEST))
    with np.errstate(over="ignore"):
        return _averaged(tests, np.where(weighed & (s > 0), np.exp(logs), 1.0))


def _effect(n_all: Array, pairs: Array, alike: Array, n: Array) -> Array:
    """`design_effect.effect_of` for arrays."""
    all_of_them = np.where(n_all > 0, n_all, 1.0)
    whole = 1 + 2 * alike * pairs / all_of_them
    part = 1 + alike * np.maximum(0.0, n * (n_all + 2 * pairs) / all_of_them**2 - 1)
    return np.asarray(np.where(pairs > 0, np.where(n >= n_all, whole, part), 1.0))
