"""E-values: how strong the evidence of harm is. Bets against "no harm" that may be looked at after every window.

Under the null hypothesis an E-process is a nonnegative supermartingale that starts at 1, so it ever reaches 1/alpha
with probability at most alpha (Ville's inequality). All results are natural logarithms of E.

1. Rates (crashes, errors, silence): conditional on the total, the treated share of events is binomial; a mixture over
   seven alternatives. Valid for counts or values in [0, 1] at any time-varying rate and any changing allocation.
2. One sample: the same against a fixed limit, for what a control cannot show.
3. Means (accuracy): a one-sided normal mixture over precision-weighted window differences, variances from earlier
   windows only. Asymptotic (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv:2103.06476); at least 30 earlier
   observations an arm. The windows of one device are no independent observations: V is one over the variance of the
   mean difference with their covariance in it (Kish's design effect), and S is V times the difference.
4. Several at once: a weighted average of the current E-values is an E-value under any dependence.
5. Every test is a fold: a window is added to its state once, so a live gate and a replay do the same sums in the same
   order and agree to the last bit.
6. Promotion turns a test round: the arms swap places, and what is bet against is harm of a given size.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from whimbrel.gate.design_effect import ArmValues, constancy, design_effect, effect_of
from whimbrel.health.pairs import NO_PAIRS, Pairs

GAINS = (1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)  # alternatives: the harmful rate over the tolerated one
SMALLEST = 5e-324  # the least positive float: stands in for a probability that underflowed


def log_mean_exp(logs: Sequence[float], weights: Sequence[float]) -> float:
    """ln sum_i w_i exp(l_i), without overflow. Weights must be positive somewhere."""
    if min(weights) <= 0:
        logs = [log for log, weight in zip(logs, weights, strict=True) if weight > 0]
        weights = [weight for weight in weights if weight > 0]
    top, exp = max(logs), math.exp
    if math.isinf(top):
        return top
    total = 0.0
    for log, weight in zip(logs, weights, strict=True):
        total += weight * exp(log - top)
    return top + math.log(total)


_EVEN = tuple(1 / len(GAINS) for _ in GAINS)
_BETS = tuple((math.log(gain), gain - 1) for gain in GAINS)


class RateWindow(msgspec.Struct, frozen=True):
    """Events (or a sum of values in [0, 1]) over exposure, in one window and stratum: treated T, control C."""

    events_t: float
    exposure_t: float
    events_c: float
    exposure_c: float


def rate_log_e(windows: Iterable[RateWindow], *, ratio: float = 1.0) -> float:
    """ln E against H0: the treated rate is at most `ratio` times the control's in every window.

    Windows in which an arm has no exposure are skipped: what is missing proves nothing.
    """
    fold = RateFold(ratio)
    for window in windows:
        fold.add(window.events_t, window.exposure_t, window.events_c, window.exposure_c)
    return fold.log_e()


class RateFold:
    """The state of one rate test: the seven bets' logarithms. Cost of a window: one logarithm a bet."""

    __slots__ = ("logs", "ratio")

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.logs = [0.0] * len(GAINS)

    def add(self, events_t: float, exposure_t: float, events_c: float, exposure_c: float) -> None:
        """One window and stratum."""
        if exposure_t <= 0 or exposure_c <= 0:
            return
        null = self.ratio * exposure_t
        share, events, log1p = null / (null + exposure_c), events_t + events_c, math.log1p
        # p1/p0 = g / (1 + p0 (g-1)) and (1-p1)/(1-p0) = 1 / (1 + p0 (g-1))
        self.logs = [
            log + (events_t * log_gain - events * log1p(share * more))
            for log, (log_gain, more) in zip(self.logs, _BETS, strict=True)
        ]

    def log_e(self, bets: Sequence[float] = _EVEN) -> float:
        """ln E now; `bets`: how much was bet on each of the seven, fixed beforehand, 1 in all."""
        return log_mean_exp(self.logs, bets)


def ratio_bounds(windows: Sequence[RateWindow], *, alpha: float, digits: int) -> tuple[float, float]:
    """The confidence set of the rate ratio, as its ends: ratios that neither direction's test refutes at `alpha`.

    Anytime-valid, each end at `alpha`, rounded to so many `digits`. (0, inf) where nothing is refuted.
    """
    threshold = math.log(1 / alpha)
    windows = [w for w in windows if w.events_t or w.events_c]  # without an event no bet changes
    swapped = [RateWindow(w.events_c, w.exposure_c, w.events_t, w.exposure_t) for w in windows]

    def refuted(group: Sequence[RateWindow], ratio: float) -> bool:
        return rate_log_e(group, ratio=ratio) >= threshold

    def edge(group: Sequence[RateWindow], told: Callable[[float], float]) -> float:
        """What is told of the largest ratio that the group's test refutes; of 0 where it refutes none."""
        low, high = math.log(1e-4), math.log(1e4)
        if not refuted(group, math.exp(low)):
            return told(0.0)
        for _ in range(50):
            if told(math.exp(low)) == told(math.exp(high)):
                break
            middle = (low + high) / 2
            low, high = (middle, high) if refuted(group, math.exp(middle)) else (low, middle)
        return told(math.exp(low))

    return (
        edge(windows, lambda ratio: round(ratio, digits)),
        edge(swapped, lambda ratio: round(1 / ratio, digits) if ratio else math.inf),
    )


def one_sample_log_e(*, events: float, trials: float, limit: float) -> float:
    """ln E against H0: the probability of an event is at most `limit` (0 < limit < 1)."""
    logs = []
    for gain in GAINS:
        p1 = min(gain * limit, 0.99)
        logs.append(events * math.log(p1 / limit) + (trials - events) * math.log((1 - p1) / (1 - limit)))
    return log_mean_exp(logs, _EVEN)


def one_sample_reverse_log_e(*, events: float, trials: float, limit: float) -> float:
    """ln E against H0: the probability is at least `limit`. Without events: the rule of three, anytime-valid.

    3/n of the classical rule becomes about 4.3/n here, at 5% and over any number of looks.
    """
    logs = [
        events * math.log(1 / gain) + (trials - events) * math.log((1 - limit / gain) / (1 - limit)) for gain in GAINS
    ]
    return log_mean_exp(logs, _EVEN)


class MeanWindow(msgspec.Struct, frozen=True):
    """n, sum and sum of squares of a metric, one value a device, in one window and stratum; and what came before."""

    n_t: float
    sum_t: float
    sumsq_t: float
    n_c: float
    sum_c: float
    sumsq_c: float
    pairs_t: Pairs = NO_PAIRS
    pairs_c: Pairs = NO_PAIRS

    def plus(self, other: "MeanWindow") -> "MeanWindow":
        """Both together, where a difference of like and like does not matter."""
        return MeanWindow(
            n_t=self.n_t + other.n_t,
            sum_t=self.sum_t + other.sum_t,
            sumsq_t=self.sumsq_t + other.sumsq_t,
            n_c=self.n_c + other.n_c,
            sum_c=self.sum_c + other.sum_c,
            sumsq_c=self.sumsq_c + other.sumsq_c,
            pairs_t=self.pairs_t.plus(other.pairs_t),
            pairs_c=self.pairs_c.plus(other.pairs_c),
        )


EARLIER = 30  # observations an arm before its variance is believed
EARLIER_MISSES, EARLIER_OF_RARE = 3, 1000  # of a share: wrong answers of the control, or answers where these are rare


def mean_statistic(windows: Iterable[Sequence[MeanWindow]], *, tolerance: float) -> tuple[float, float]:
    """(V, S): precision and weighted sum of D = mean_C - mean_T - tolerance (a drop is harm).

    Each item of `windows` holds one window's strata. The variances come from the windows before it (between devices,
    around the arm's earlier mean).
    """
    fold = MeanFold.drop(tolerance)
    for strata in windows:
        fold.add(strata)
    return fold.information()


class MeanFold:
    """The state of one test of means. D = control_factor mean_C - treated_factor mean_T - tolerance, a harm when > 0.

    `drop`: the treated mean fell by more than a tolerance; `rise`: it rose by more. `growth`: it is more than `ratio`
    times the control's (battery). `at_least`, `at_most`, `growth_within`: turned round, it stayed within a margin.

    `precision` and `total` take every device-window for an observation of its own; `noise_*` is each arm's part of the
    variance of `total` then.
    """

    __slots__ = (
        "_constancy",
        "before_c",
        "before_t",
        "factor_c",
        "factor_t",
        "noise_c",
        "noise_t",
        "precision",
        "share",
        "tolerance",
        "total",
    )

    def __init__(self, *, factor_t: float, factor_c: float, tolerance: float, share: bool = False) -> None:
        self.factor_t, self.factor_c, self.tolerance, self.share = factor_t, factor_c, tolerance, share
        self.precision = self.total = self.noise_t = self.noise_c = 0.0
        self.before_t, self.before_c = ArmValues(), ArmValues()
        self._constancy: tuple[float, float] | None = None  # of both arms, and of the control, until the next window

    @classmethod
    def drop(cls, tolerance: float, *, share: bool = False) -> "MeanFold":
        """H0: mean_C - mean_T <= tolerance. `share`: all values lie between 0 and 1."""
        return cls(factor_t=1.0, factor_c=1.0, tolerance=tolerance, share=share)

    @classmethod
    def growth(cls, ratio: float) -> "MeanFold":
        """H0: mean_T <= ratio mean_C."""
        return cls(factor_t=-1.0, factor_c=-ratio, tolerance=0.0)

    @classmethod
    def rise(cls, tolerance: float) -> "MeanFold":
        """H0: mean_T - mean_C <= tolerance."""
        return cls(factor_t=-1.0, factor_c=-1.0, tolerance=tolerance)

    @classmethod
    def at_least(cls, margin: float) -> "MeanFold":
        """H0: mean_C - mean_T >= margin."""
        return cls(factor_t=-1.0, factor_c=-1.0, tolerance=-margin)

    @classmethod
    def at_most(cls, margin: float) -> "MeanFold":
        """H0: mean_T - mean_C >= margin."""
        return cls(factor_t=1.0, factor_c=1.0, tolerance=-margin)

    @classmethod
    def growth_within(cls, ratio: float) -> "MeanFold":
        """H0: mean_T >= ratio mean_C."""
        return cls(factor_t=1.0, factor_c=ratio, tolerance=0.0)

    def add(self, strata: Sequence[MeanWindow]) -> None:
        """One window's strata; their variances come from the windows before."""
        if self.begins:
            variance_c = self.variance_c
            spread_t = self._treated_variance(variance_c) * self.factor_t**2
            spread_c = variance_c * self.factor_c**2
            for part in strata:
                if part.n_t > 0 and part.n_c > 0:
                    noise_t, noise_c = spread_t / part.n_t, spread_c / part.n_c
                    weight = 1 / (noise_t + noise_c)
                    difference = self.factor_c * part.sum_c / part.n_c - self.factor_t * part.sum_t / part.n_t
                    self.precision += weight
                    self.total += weight * (difference - self.tolerance)
                    self.noise_t += weight * weight * noise_t
                    self.noise_c += weight * weight * noise_c
        self._constancy = None
        for part in strata:
            self.before_t.add(part.n_t, part.sum_t, part.sumsq_t, part.pairs_t)
            self.before_c.add(part.n_c, part.sum_c, part.sumsq_c, part.pairs_c)

    @property
    def begins(self) -> bool:
        """Whether earlier windows say enough to weigh this one.

        Of a share, the control's must: three values that are not all alike, or a thousand values. A level that thirty
        right answers tell is no level.
        """
        if not self.share:
            return _is_believed(self.before_t, self.before_c) and _is_believed(self.before_c)
        n, total = self.before_c.n, self.before_c.sum
        return _is_believed(self.before_c) and (min(total, n - total) >= EARLIER_MISSES or n >= EARLIER_OF_RARE)

    @property
    def variance_c(self) -> float:
        """Of one value of the control; of a share as if half a value more were wrong."""
        variance = self.before_c.variance()
        return max(variance, 0.5 / (self.before_c.n + 1)) if self.share else variance

    def _treated_variance(self, variance_c: float) -> float:
        """Of one treated value, if no harm is done: of a share never more than its mean allows, m (1 - m).

        Thirty answers that were all right say little: the few treated are taken to vary as the control at least.
        """
        if not self.share:
            return max(self.before_t.variance(), variance_c)
        most = most_of_a_share(self.before_c.sum / self.before_c.n - self.tolerance)
        believed = _is_believed(self.before_t, self.before_c)
        return max(variance_c, min(most, self.before_t.variance()) if believed else most)

    @property
    def sums(self) -> tuple[float, ...]:
        """What the test has added up: V, S and the arms' noise as if independent, and the values of both arms."""
        return self.precision, self.total, self.noise_t, self.noise_c, self.before_t.n, self.before_c.n

    def information(self, sums: Sequence[float] | None = None) -> tuple[float, float]:
        """(V, S): one over the variance of the mean difference, and V times the difference.

        `sums`: those of the last windows alone; None: of all.
        """
        precision, total, noise_t, noise_c, n_t, n_c = self.sums if sums is None else sums
        if precision <= 0:
            return 0.0, 0.0
        if self._constancy is None:
            self._constancy = constancy(self.before_t, self.before_c), constancy(self.before_c)
        of_both, of_control = self._constancy
        more_t = effect_of(self.before_t, of_both, n_t) - 1
        more_c = effect_of(self.before_c, of_control, n_c) - 1
        inflation = 1 + (more_t * noise_t + more_c * noise_c) / precision
        return precision / inflation, total / inflation

    def log_e(self, rho: float, sums: Sequence[float] | None = None) -> float:
        """ln E now; `sums`: by the last windows alone."""
        precision, total = self.information(sums)
        return mean_log_e(precision=precision, total=total, rho=rho)


def most_of_a_share(mean: float) -> float:
    """The greatest variance of values between 0 and 1 whose mean is at least `mean`."""
    mean = max(0.5, min(1.0, mean))
    return mean * (1 - mean)


class BoundFold:
    """The state of one test of the treated mean against a fixed bound. D = bound - mean_T, or mean_T - bound.

    H0: the mean keeps the bound in every window. Variances come from earlier windows, and are the control's at least.
    """

    __slots__ = ("before_c", "before_t", "bound", "precision", "sign", "total")

    def __init__(self, bound: float, *, floor: bool) -> None:
        self.bound, self.sign = bound, 1.0 if floor else -1.0
        self.precision = self.total = 0.0
        self.before_t, self.before_c = ArmValues(), ArmValues()

    def add(self, window: MeanWindow) -> None:
        """One window."""
        if _is_believed(self.before_t, self.before_c) and window.n_t > 0:
            spread = self.before_t.variance()
            if self.before_c.n >= EARLIER:
                spread = max(spread, self.before_c.variance())
            weight = window.n_t / spread
            self.precision += weight
            self.total += weight * self.sign * (self.bound - window.sum_t / window.n_t)
        self.before_t.add(window.n_t, window.sum_t, window.sumsq_t, window.pairs_t)
        self.before_c.add(window.n_c, window.sum_c, window.sumsq_c, window.pairs_c)

    def log_e(self, rho: float) -> float:
        """ln E now."""
        inflation = design_effect(self.before_t, self.before_c) if self.precision else 1.0
        return mean_log_e(precision=self.precision / inflation, total=self.total / inflation, rho=rho)


def _is_believed(arm: ArmValues, *others: ArmValues) -> bool:
    """Whether an arm has as many values as 30 independent observations: its variance is believed then."""
    return arm.n >= EARLIER and arm.n >= EARLIER * design_effect(arm, *others)


def mean_log_e(*, precision: float, total: float, rho: float) -> float:
    """ln of the one-sided normal mixture; 0 where S <= 0 or nothing was weighed.

    E = sqrt(4 rho / (V + rho)) exp(S^2 / (2 (V + rho))) Phi(S / sqrt(V + rho)).
    """
    if total <= 0 or precision <= 0:
        return 0.0
    return one_sided_log_mixture(total, precision, rho)


def one_sided_log_mixture(s: float, v: float, rho: float) -> float:
    """ln of the one-sided normal mixture at sum `s` and variance process `v` (Howard et al., arXiv:1810.08240)."""
    spread = v + rho
    tail = 0.5 * math.erfc(-s / math.sqrt(2 * spread))
    return 0.5 * math.log(4 * rho / spread) + s * s / (2 * spread) + math.log(max(tail, SMALLEST))


def one_sided_rho(*, v_opt: float, alpha: float) -> float:
    """The mixture parameter that makes the boundary tightest at variance `v_opt`, one-sided at `alpha`."""
    log = math.log(1 / (2 * alpha))
    return v_opt / (2 * log + math.log(1 + 2 * log))


def asymptotic_half_width(*, variance: float, n: float, n_opt: float, alpha: float) -> float:
    """Half the width of the asymptotic confidence sequence of a mean after n values (arXiv:2103.06476, theorem 2.2).

    Narrowest at about `n_opt` values.
    """
    log = math.log(1 / alpha)
    rho = (2 * log + math.log(1 + 2 * log)) / n_opt
    return math.sqrt(variance) * math.sqrt(2 * (n * rho + 1) / (n * n * rho) * math.log(math.sqrt(n * rho + 1) / alpha))


def ratio_mismatch_log_bf(
    batches: Iterable[Sequence[float]], expected: Sequence[float], *, concentration: float = 1e4
) -> list[float]:
    """ln of the Bayes factor against "devices fall into arms as `expected`", after each batch of counts.

    A Dirichlet prior of weight `concentration` around the expected shares (Lindon and Malek, arXiv:2011.03567). It is
    an E-value: 1/alpha refutes the split at any time. A changed allocation starts a new factor.
    """
    prior = [concentration * share for share in expected]
    counts = [0.0] * len(prior)
    factors = []
    for batch in batches:
        counts = [count + more for count, more in zip(counts, batch, strict=True)]
        log = math.lgamma(sum(prior)) - math.lgamma(sum(prior) + sum(counts))
        for a, x, share in zip(prior, counts, expected, strict=True):
            log += math.lgamma(a + x) - math.lgamma(a) - x * math.log(share)
        factors.append(log)
    return factors


def e_bh(logs: Sequence[float], *, alpha: float) -> list[int]:
    """Which of K hypotheses fall, by their ln E, at a false-discovery rate of `alpha` (arXiv:2009.02824).

    The largest k with e_(k) >= K / (k alpha); valid under any dependence. Returns the indices, in order.
    """
    order = sorted(range(len(logs)), key=lambda index: (-logs[index], index))
    for k in range(len(logs), 0, -1):
        if logs[order[k - 1]] >= math.log(len(logs) / (k * alpha)):
            return sorted(order[:k])
    return []
