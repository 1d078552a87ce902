"""The gate's evidence for thousands of simulated rollouts at once: the ledger in arrays, one row a rollout.

1. The same formulas, weights and order of windows as `ledger`, in numpy; a property test holds the two equal. For
   simulation alone: no verdict about a real device is made here. Nothing that a device imports imports this.
2. Runs may stand in different stages; a run whose stage has not begun has no windows in its arms.
3. Simulated devices differ by chance alone, so two windows of one device have nothing in common (health/pairs.py).
4. A guardrail that is not computed here counts as if nothing had been reported about it; `unwatched` names it.

Called by forecasts and benchmarks.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.gate.design_effect import LEAST_VARIANCE
from whimbrel.gate.evidence import EARLIER, EARLIER_MISSES, EARLIER_OF_RARE, GAINS
from whimbrel.gate.guardrails import (
    BETS,
    CLASS_SHARE,
    LATENCY_TAIL,
    MOST_OF_VARIANCE,
    SEEN_DROP,
    TOLERATED_SLOWER,
    cohort_share,
    guard_weights,
    margins,
    severities,
    watched,
)
from whimbrel.gate.hypotheses import over_limit, sharpest_at
from whimbrel.gate.ledger import EDGE_HISTORY
from whimbrel.gate.restarts import RESTARTED, place_of, to_come
from whimbrel.gate.strata import LEAST_OF_A_CLASS
from whimbrel.health.sketch import key_of
from whimbrel.plan.measures import (
    MEASURES,
    TOLERATED_DROP,
    TOLERATED_RATIO,
    OneSample,
    OverLimit,
    Quantile,
    Rate,
    Severity,
)
from whimbrel.plan.plan import Plan

Array = NDArray[Any]  # floats, or whole numbers of events
_GAINS = np.array(GAINS)
_LOG_GAINS = np.log(_GAINS)
_MEAN = "accuracy"  # the one metric whose mean is simulated
_TIMED = "timed"  # sessions of which the latency is known


class Arm(msgspec.Struct):
    """One arm of a cohort in one window: arrays of (runs, age groups, classes); latency (runs, age groups, edges)."""

    at_risk: Array
    crashed: Array
    error_share: Array
    due: Array
    overdue: Array
    accuracy_n: Array
    accuracy_sum: Array
    accuracy_sumsq: Array
    latency: Array  # counts in sketch buckets that are evenly apart: TOLERATED_SLOWER, or as the ledger's keys
    error_units: Array | None = None  # device-windows in which the model ran; all at risk, where not given

    def sums(self, name: str) -> Array:
        """The arm's sums of that name: the fields are called as those of a tally's cell."""
        if name in {"error_units", "used"}:  # a device that ran the model used it
            return self.at_risk if self.error_units is None else self.error_units
        sums: Array = getattr(self, name)
        return sums


class _Copies:
    """The copies of a test that begin anew (`restarts`), in all runs. States are arrays of (runs, ..., sums)."""

    def __init__(self, e_value: Callable[[Array], Array]) -> None:
        self._e_value = e_value
        self._closed: Array | float = 0.0
        self._places: dict[tuple[int, int], tuple[Array, Array]] = {}  # weights of (runs,), and the sums then

    def begin(self, before: Array, hours: Array, sums: Array) -> None:
        """The hour of each run's stage was `before` and is `hours`; nothing of that hour is in `sums` yet."""
        for hour in np.unique(hours[hours > before]):
            here = (hours == hour) & (hours > before)
            place = place_of(int(hour))
            weights, then = self._places.get(place, (np.zeros(len(hours)), np.zeros(sums.shape)))
            ended = here & (weights > 0)
            if ended.any():
                worth = self._e_value(sums - then)
                self._closed = self._closed + _along(np.where(ended, weights, 0.0), worth) * worth
            fresh = np.array([to_come(int(each)) for each in before]) - to_come(int(hour))
            self._places[place] = (
                np.where(here, fresh, weights),
                np.where(_along(here, sums), sums, then),
            )

    def average(self, hours: Array, sums: Array) -> Array:
        """E of the test with all its copies."""
        worth = self._e_value(sums)
        left = np.array([to_come(int(hour)) for hour in hours])
        copies = _along(left, worth) + self._closed
        for weights, then in self._places.values():
            copies = copies + _along(weights, worth) * self._e_value(sums - then)
        return np.asarray((1 - RESTARTED) * worth + RESTARTED * copies)


def _along(runs: Array, like: Array) -> Array:
    """An array of (runs,) in the shape that multiplies `like`."""
    return runs.reshape(-1, *(1,) * (like.ndim - 1))


def _wealth(logs: Array) -> Array:
    return np.asarray(np.exp(np.minimum(logs, 600)) @ np.array(BETS))


class _Means:
    def __init__(self, shape: tuple[int, ...], *, tolerance: float, alpha: float) -> None:
        self.tolerance = tolerance
        self.rho, self._sharpest = np.ones(shape), sharpest_at(1.0, alpha=alpha)
        self.sums = np.zeros((*shape, 2))  # V and S
        self.t, self.c = np.zeros((3, *shape)), np.zeros((3, *shape))

    def add(self, t: Array, c: Array) -> None:
        """Moments (3, runs, strata, ...)."""
        n, total = self.c[0], self.c[1]
        ready = (n >= EARLIER) & ((np.minimum(total, n - total) >= EARLIER_MISSES) | (n >= EARLIER_OF_RARE))
        spread_c = np.maximum(_variance(self.c), 0.5 / (n + 1))
        seen = np.minimum(SEEN_DROP - TOLERATED_DROP, MOST_OF_VARIANCE * spread_c)
        self.rho = np.where(self.sums[..., 0] == 0, self._sharpest / seen**2, self.rho)
        null = np.clip(self.c[1] / np.maximum(self.c[0], 1) - self.tolerance, 0.5, 1.0)  # `most_of_a_share`
        most = null * (1 - null)
        own = np.where(self.t[0] >= EARLIER, np.minimum(most, _variance(self.t)), most)
        spread_t = np.maximum(spread_c, own)
        use = ready[:, None] & (t[0] > 0) & (c[0] > 0)
        n_t, n_c = np.where(use, t[0], 1), np.where(use, c[0], 1)
        weight = np.where(use, 1 / (spread_t[:, None] / n_t + spread_c[:, None] / n_c), 0)
        self.sums[..., 0] += weight.sum(axis=1)
        self.sums[..., 1] += (weight * (c[1] / n_c - t[1] / n_t - self.tolerance)).sum(axis=1)
        self.t += t.sum(axis=2)
        self.c += c.sum(axis=2)

    def e_value(self, sums: Array) -> Array:
        """E of such sums."""
        return _mixture(sums, rho=self.rho)


def _mixture(sums: Array, *, rho: Array) -> Array:
    """E of V and S, the last axis of `sums`."""
    v, s = sums[..., 0], sums[..., 1]
    spread = v + rho
    erfc = np.frompyfunc(math.erfc, 1, 1)
    tail = 0.5 * np.asarray(erfc(-s / np.sqrt(2 * spread)), dtype=float)
    log = 0.5 * np.log(4 * rho / spread) + s**2 / (2 * spread) + np.log(np.maximum(tail, 5e-324))
    return np.asarray(np.exp(np.minimum(np.where((s > 0) & (v > 0), log, 0.0), 600)))


def _variance(moments: Array) -> Array:
    n = np.maximum(moments[0], 2)
    variance: Array = np.maximum(LEAST_VARIANCE, (moments[2] - moments[1] ** 2 / n) / (n - 1))
    return variance


class BatchLedger:
    """`runs` rollouts of one plan over a fleet with `classes` hardware classes, all heard of from the first window.

    `keys`: the sketch bucket of every edge in the arms' latency; without it no limit of latency is watched.
    """

    def __init__(self, plan: Plan, *, runs: int, classes: int, keys: Array | None = None) -> None:
        self.plan, self.runs, self.classes = plan, runs, classes
        self.weights, self.severities, self.margins = guard_weights(plan), severities(plan), margins(plan)
        stages = range(len(plan.stages))
        self._criteria = [plan.criteria(stage) for stage in range(len(plan.stages))]
        limits_ms = {each.latency_p99_max_ms for each in self._criteria if each.latency_p99_max_ms is not None}
        self._over = {limit_ms: keys > key_of(limit_ms) for limit_ms in sorted(limits_ms)} if keys is not None else {}
        step = TOLERATED_SLOWER if keys is None else int(keys[1] - keys[0])
        rows = watched(plan)
        self._rates = {row.name: row.test for row in rows if isinstance(row.test, Rate) and _is_simulated(row.test)}
        further = {name: slower // step for name, slower in self.margins.slower.items() if not slower % step}
        self._quantiles = {
            row.name: (row.test.p, further[row.name])
            for row in rows
            if isinstance(row.test, Quantile) and row.name in further
        }
        self._limits = {
            row.name: row.test
            for row in rows
            if isinstance(row.test, OneSample) and (row.test.rate is not None or keys is not None)
        }
        over = {row.name for row in rows if isinstance(row.test, OverLimit) and keys is not None}
        simulated = {*self._rates, *self._quantiles, *self._limits, *over, _MEAN, "failure"}
        self.unwatched = tuple(sorted(set(self.weights) - simulated))
        self._by_class = {row.name for row in rows if row.by_class}
        names = (*self._rates, *self._quantiles, *(over_limit(limit_ms) for limit_ms in self._over))
        sliced = [name for name in self._rates if name in self._by_class]
        self._global = {(stage, n): np.zeros((runs, 7)) for stage in stages for n in names}
        self._class = {(stage, n): np.zeros((runs, classes, 7)) for stage in stages for n in sliced}
        drop = self.margins.drops[_MEAN]
        self._means = {stage: _Means((runs,), tolerance=drop, alpha=plan.alpha) for stage in stages}
        self._class_means = {stage: _Means((runs, classes), tolerance=drop, alpha=plan.alpha) for stage in stages}
        self._copies = {key: _Copies(_wealth) for key in self._global}
        self._copies |= {(stage, _MEAN): _Copies(self._means[stage].e_value) for stage in stages}
        self._class_copies = {key: _Copies(_wealth) for key in self._class}
        self._class_copies |= {(stage, _MEAN): _Copies(self._class_means[stage].e_value) for stage in stages}
        self._windows_an_hour = max(1, round(3600 / plan.window_s()))
        self._windows = np.zeros((len(plan.stages), runs), dtype=np.int64)  # since each cohort was first heard of
        self._hours = np.zeros((len(plan.stages), runs), dtype=np.int64)
        self._class_sizes = np.zeros((len(plan.stages), 2, runs, classes))
        self._history: dict[int, Array] = {}
        # What each limit counts, and out of how many, by cohort and arm: the sums of a limited rate, and of sessions.
        self._sums: dict[str | float, Array] = defaultdict(lambda: np.zeros((len(plan.stages), 2, runs)))
        self.entered = np.full(runs, -1)

    def fold(self, cohorts: Mapping[int, tuple[Arm, Arm]], *, entered: Array | None = None) -> None:
        """One window: the treated and the control arm of every cohort that began.

        `entered`: each run's stage; all have begun every cohort that is given, where it is not.
        """
        self.entered = np.maximum(self.entered, max(cohorts) if entered is None else entered)
        for cohort, (t, c) in cohorts.items():
            self._restart(cohort)
            sizes = self._class_sizes[cohort]
            windows = self._windows[cohort][:, None]
            large = (windows > 0) & (sizes.min(axis=0) >= LEAST_OF_A_CLASS * windows)
            for name, rate in self._rates.items():
                arms = (c, t) if rate.fewer else (t, c)
                sums = [arm.sums(each) for arm in arms for each in (rate.events, rate.exposure)]
                ratio = self.margins.ratios[name]
                of_classes = _bets(*sums, ratio=ratio)
                rest = _bets(*((each * ~large[:, None]).sum(axis=2) for each in sums), ratio=ratio)
                self._global[cohort, name] += (of_classes * large[..., None]).sum(axis=1) + rest
                if name in self._by_class:
                    self._class[cohort, name] += of_classes
            for side, arm in enumerate((t, c)):
                self._count(cohort, side, arm)
                sizes[side] += arm.at_risk.sum(axis=1)
            self._latency(cohort, t.latency, c.latency)
            moments = [np.stack([a.accuracy_n, a.accuracy_sum, a.accuracy_sumsq]) for a in (t, c)]
            self._means[cohort].add(*(_strata(each, large) for each in moments))
            self._class_means[cohort].add(*moments)
            heard = np.asarray(sum((arm.at_risk + arm.due).sum(axis=(1, 2)) for arm in (t, c)) > 0)
            self._windows[cohort] += (self._windows[cohort] > 0) | heard

    def _restart(self, cohort: int) -> None:
        """Where an hour of the cohort began, copies begin anew."""
        before, hours = self._hours[cohort], self._windows[cohort] // self._windows_an_hour
        if (hours > before).any():
            for (of, name), copies in self._copies.items():
                if of == cohort:
                    copies.begin(before, hours, self._means[of].sums if name == _MEAN else self._global[of, name])
            for (of, name), copies in self._class_copies.items():
                if of == cohort:
                    sums = self._class_means[of].sums if name == _MEAN else self._class[of, name]
                    copies.begin(before, hours, sums)
            self._hours[cohort] = hours

    def _count(self, cohort: int, side: int, arm: Arm) -> None:
        for limit in self._limits.values():
            if limit.rate is not None:
                rate = self._rates[limit.rate]
                for name in (rate.events, rate.exposure):
                    self._sums[name][cohort, side] += arm.sums(name).sum(axis=(1, 2))
        self._sums[_TIMED][cohort, side] += arm.latency.sum(axis=(1, 2))
        for limit_ms, over in self._over.items():
            self._sums[limit_ms][cohort, side] += arm.latency[:, :, over].sum(axis=(1, 2))

    def _latency(self, cohort: int, t: Array, c: Array) -> None:
        history = self._history.setdefault(cohort, np.zeros((self.runs, t.shape[2])))
        below = np.cumsum(history, axis=1)
        total = below[:, -1]
        over_t = t.sum(axis=2, keepdims=True) - np.cumsum(t, axis=2)
        over_c = c.sum(axis=2, keepdims=True) - np.cumsum(c, axis=2)
        for name, (p, further) in self._quantiles.items():
            edge = np.argmax((below > 0) & (below >= p * total[:, None]), axis=1)[:, None, None]
            known = (total >= math.ceil(EDGE_HISTORY / (1 - p)))[:, None]
            slower = np.minimum(edge + further, t.shape[2] - 1)  # nothing lies over the last edge
            x_t = np.where(known, np.take_along_axis(over_t, slower, axis=2)[:, :, 0], 0)
            x_c = np.where(known, np.take_along_axis(over_c, edge, axis=2)[:, :, 0], 0)
            self._global[cohort, name] += _bets(x_t, t.sum(axis=2), x_c, c.sum(axis=2), ratio=1.0)
        for limit_ms, over in self._over.items():
            counts = [part for arm in (t, c) for part in (arm[:, :, over].sum(axis=2), arm.sum(axis=2))]
            self._global[cohort, over_limit(limit_ms)] += _bets(*counts, ratio=TOLERATED_RATIO)
        history += c.sum(axis=1)

    def log_e(self, *kinds: Severity, failures: Array | int = 0, attempts: Array | int = 0) -> Array:
        """ln of the average of all E-values, one a run. `failures` of `attempts` installs failed or went back.

        `kinds`: only of the guardrails whose proof does one of these things.
        """
        weights = self._weights_of(kinds)
        total = np.full(self.runs, sum(weights.get(name, 0.0) for name in self.unwatched), dtype=float)
        for _, terms in self._terms(weights, failures, attempts):
            total += terms.sum(axis=1)
        return np.asarray(np.log(np.maximum(total, 1e-300)))

    def leads(self, *kinds: Severity, failures: Array | int = 0, attempts: Array | int = 0) -> list[str]:
        """The guardrail that carries most of the evidence, of each run, as `CombinedEvidence.lead` names it."""
        carried: dict[str, Array] = {}
        for name, terms in self._terms(self._weights_of(kinds), failures, attempts):
            greatest = terms.max(axis=1)
            carried[name] = np.maximum(carried[name], greatest) if name in carried else greatest
        names = sorted(carried)
        return [names[place] for place in np.argmax([carried[name] for name in names], axis=0)]

    def _weights_of(self, kinds: Collection[Severity]) -> dict[str, float]:
        return {name: w for name, w in self.weights.items() if not kinds or self.severities[name] in kinds}

    def _terms(
        self, weights: Mapping[str, float], failures: Array | int, attempts: Array | int
    ) -> Iterator[tuple[str, Array]]:
        """What each guardrail adds to the average: weighted E-values of (runs, tests)."""
        if "failure" in weights:
            e_value = _one_sample(failures, attempts, limit=self.margins.failure)
            yield "failure", weights["failure"] * np.broadcast_to(e_value, (self.runs,))[:, None]
        for name, limit in self._limits.items():
            if name in weights:
                yield name, weights[name] * self._limit_e(limit)[:, None]
        for stage in range(len(self.plan.stages)):
            for name, share in weights.items():
                if name in {"failure", *self._limits, *self.unwatched}:
                    continue
                weight = share * cohort_share(len(self.plan.stages), stage)
                split = name in self._by_class and self.classes > 1
                yield name, weight * (1 - CLASS_SHARE if split else 1) * self._e(stage, name)[:, None]
                if split:
                    yield name, weight * CLASS_SHARE / self.classes * self._class_e(stage, name)

    def _e(self, cohort: int, name: str) -> Array:
        if name == _MEAN:
            return self._copies[cohort, name].average(self._hours[cohort], self._means[cohort].sums)
        test = MEASURES[name].test
        if isinstance(test, OverLimit):
            return self._in_force(test.criterion, lambda limit_ms: self._bet_on(cohort, over_limit(limit_ms)))
        return self._bet_on(cohort, name)

    def _bet_on(self, cohort: int, name: str) -> Array:
        return self._copies[cohort, name].average(self._hours[cohort], self._global[cohort, name])

    def _class_e(self, cohort: int, name: str) -> Array:
        sums = self._class_means[cohort].sums if name == _MEAN else self._class[cohort, name]
        return self._class_copies[cohort, name].average(self._hours[cohort], sums)

    def _limit_e(self, test: OneSample) -> Array:
        """One sample against an absolute limit, over all cohorts; nothing where the control breaks it too."""
        stages = len(self.plan.stages)

        def against(limit: float) -> Array:
            rate = None if test.rate is None else self._rates[test.rate]
            events, trials = (limit, _TIMED) if rate is None else (rate.events, rate.exposure)
            share = LATENCY_TAIL if rate is None else limit
            if not 0 < share < 1:
                return np.ones(self.runs)
            total = np.zeros(self.runs)
            for cohort in range(stages):
                x_t, x_c = self._sums[events][cohort]
                n_t, n_c = self._sums[trials][cohort]
                clean = x_c <= share * n_c
                total += cohort_share(stages, cohort) * np.where(clean, _one_sample(x_t, n_t, limit=share), 1.0)
            return total

        return self._in_force(test.criterion, against)

    def _in_force(self, criterion: str, value: Callable[[float], Array]) -> Array:
        """`value` of the limit that holds at each run's stage; 1 where none does."""
        e_values = np.ones(self.runs)
        for stage, criteria in enumerate(self._criteria):
            limit = getattr(criteria, criterion)
            here = self.entered == stage
            if limit and here.any():
                e_values = np.where(here, value(limit), e_values)
        return e_values


def _strata(moments: Array, large: Array) -> Array:
    """Moments (3, runs, ages, classes) by stratum: the large classes apart, and the small ones together."""
    apart = (moments * large[None, :, None]).reshape(*moments.shape[:2], -1)
    return np.concatenate([apart, (moments * ~large[None, :, None]).sum(axis=3)], axis=2)


def _is_simulated(rate: Rate) -> bool:
    """Whether the arms that are drawn say what a rate is made of."""
    return {rate.events, rate.exposure} <= {"used", *Arm.__struct_fields__}


def _one_sample(events: Array | float, trials: Array | float, *, limit: float) -> Array:
    """`evidence.one_sample_log_e` for arrays, as E itself."""
    events, trials = np.asarray(events, dtype=float)[..., None], np.asarray(trials, dtype=float)[..., None]
    p1 = np.minimum(_GAINS * limit, 0.99)
    logs = events * np.log(p1 / limit) + (trials - events) * np.log((1 - p1) / (1 - limit))
    return np.asarray(np.exp(np.minimum(logs, 600)).mean(axis=-1))


def _bets(x_t: Array, e_t: Array, x_c: Array, e_c: Array, *, ratio: float) -> Array:
    """What one window adds to the seven logarithms, summed over the age groups (axis 1)."""
    use = (e_t > 0) & (e_c > 0)
    null = ratio * np.where(use, e_t, 1)
    share = null / (null + np.where(use, e_c, 1))
    both = np.where(use, x_t + x_c, 0)[..., None]
    change = np.where(use, x_t, 0)[..., None] * _LOG_GAINS - both * np.log1p(share[..., None] * (_GAINS - 1))
    return np.asarray(change.sum(axis=1))
