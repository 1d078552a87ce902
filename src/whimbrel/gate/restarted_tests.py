"""The tests of rates and of means, each with its copies that begin anew, and with what its devices have in common.

The logarithm of each bet on a rate is divided by the design effect of the windows that it is about, when it is read.

Made by the hypotheses of a plan; folded by the ledger.
"""

import math

import msgspec

from whimbrel.gate.design_effect import Alikeness
from whimbrel.gate.evidence import GAINS, MeanFold, RateFold
from whimbrel.gate.guardrails import BETS
from whimbrel.gate.restarts import RESTARTED, Restarts, Sums


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """What the copy of a test of rates has seen that is about so many `hours` old; None: the test that stands.

    Device-windows and events count as so many of strangers; `weight`: that of the copy, in its test.
    """

    hours: int | None
    weight: float
    exposure_t: float
    exposure_c: float
    events_c: float


class LeadingCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The copy that carries most of a test's evidence: the hour in which it began, and the rate or mean of each arm
    since then; None where nothing was told.
    """

    hour: int
    treated: float | None
    control: float | None


class RateTest:
    """A test of rates, and its copies if it has any: one that is turned round has none.

    `alike`: how constant devices are, of all devices and of the slice that the test is about.
    """

    __slots__ = ("alike", "fold", "restarts", "totals")

    def __init__(self, ratio: float, *alike: Alikeness, restarts: Restarts | None = None) -> None:
        self.fold, self.restarts, self.alike = RateFold(ratio), restarts, alike
        self.totals = [0.0] * 4  # events and exposure of the treated, and of the controls, where they were compared

    def add(self, events_t: float, exposure_t: float, events_c: float, exposure_c: float) -> None:
        """One window and stratum."""
        if exposure_t <= 0 or exposure_c <= 0:
            return
        if events_t or events_c:  # without an event no bet changes
            self.fold.add(events_t, exposure_t, events_c, exposure_c)
        totals = self.totals
        totals[0] += events_t
        totals[1] += exposure_t
        totals[2] += events_c
        totals[3] += exposure_c

    @property
    def sums(self) -> Sums:
        """The logarithms of the bets, and the totals."""
        return (*self.fold.logs, *self.totals)

    def begin(self, hour: int) -> None:
        """Hour `hour` of the stage has come."""
        if self.restarts is not None:
            self.restarts.begin(hour, self.sums, self._log_e)

    def log_e(self) -> float:
        """ln E now, of the test with all its copies."""
        sums = self.sums
        standing = self._log_e(sums)
        return standing if self.restarts is None else self.restarts.average(standing, sums, self._log_e)

    def _log_e(self, sums: Sums) -> float:
        divisor, logs, exp = self.divisor(sums), sums[: len(GAINS)], math.exp
        top, total = max(logs) / divisor, 0.0  # as `log_mean_exp`, which this is for weights that are known
        for log, weight in zip(logs, BETS, strict=True):
            total += weight * exp(log / divisor - top)
        return top + math.log(total)

    def recent(self, hours: int, *, hour: int) -> Recent:
        """What a copy that is at least so many hours old has seen, at hour `hour`."""
        copy = self.restarts.at_least(hours, hour=hour) if self.restarts is not None else None
        sums = self.sums if copy is None else copy.since(self.sums)
        divisor = self.divisor(sums)
        _, exposure_t, events_c, exposure_c = (each / divisor for each in sums[len(GAINS) :])
        return Recent(
            hours=None if copy is None else hour - copy.hour,
            weight=1 - RESTARTED if copy is None else RESTARTED * copy.weight,
            exposure_t=exposure_t,
            exposure_c=exposure_c,
            events_c=events_c,
        )

    def leading(self) -> LeadingCopy | None:
        """The copy that carries most of the evidence; None: that is the test that stands."""
        if self.restarts is None:
            return None
        sums = self.sums
        copy = self.restarts.leading(self._log_e(sums), sums, self._log_e)
        if copy is None:
            return None
        events_t, exposure_t, events_c, exposure_c = copy.since(sums)[len(GAINS) :]
        return LeadingCopy(
            hour=copy.hour, treated=_quotient(events_t, exposure_t), control=_quotient(events_c, exposure_c)
        )

    def divisor(self, sums: Sums) -> float:
        """The design effect of the windows that `sums` are made of."""
        _, exposure_t, _, exposure_c = sums[len(GAINS) :]
        divisor = 1.0
        for alike in self.alike:
            divisor = max(divisor, alike.divisor(exposure_t, exposure_c))
        return divisor


class MeanTest:
    """A test of means, and its copies if it has any. `rho`: what makes it sharpest; None until earlier windows tell."""

    __slots__ = ("fold", "restarts", "rho")

    def __init__(self, fold: MeanFold, *, restarts: Restarts | None = None) -> None:
        self.fold, self.restarts = fold, restarts
        self.rho: float | None = None

    def begin(self, hour: int) -> None:
        """Hour `hour` of the stage has come."""
        if self.restarts is not None:
            self.restarts.begin(hour, self._sums, self._log_e)

    def log_e(self) -> float:
        """ln E now, of the test with all its copies."""
        sums = self._sums
        standing = self._log_e(sums)
        return standing if self.restarts is None else self.restarts.average(standing, sums, self._log_e)

    def leading(self) -> LeadingCopy | None:
        """The copy that carries most of the evidence; None: that is the test that stands."""
        if self.restarts is None:
            return None
        sums = self._sums
        copy = self.restarts.leading(self._log_e(sums), sums, self._log_e)
        if copy is None:
            return None
        *_, n_t, n_c, sum_t, sum_c = copy.since(sums)
        return LeadingCopy(hour=copy.hour, treated=_quotient(sum_t, n_t), control=_quotient(sum_c, n_c))

    @property
    def _sums(self) -> Sums:
        """What the test has added up, and the sums of the values that `MeanFold.sums` counts."""
        return (*self.fold.sums, self.fold.before_t.sum, self.fold.before_c.sum)

    def _log_e(self, sums: Sums) -> float:
        return 0.0 if self.rho is None else self.fold.log_e(self.rho, sums[:-2])


def _quotient(total: float, n: float) -> float | None:
    return round(total / n, 9) if n > 0 else None
