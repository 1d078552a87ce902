"""The sums of one window of a cohort, like by like: of both arms by age group, of all devices and of slices.

1. A stratum's sums are a list of numbers. The layout of a plan says once which place is whose: the sums of the tally
   that any rate is made of, the sessions that were timed, and those over each edge and limit of latency.
2. The layout also says which test takes which places.
3. Tests take the strata in the order of the age groups, so the same windows give the same bits.

Called by the ledger.
"""

import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from whimbrel.gate.evidence import MeanWindow
from whimbrel.gate.hypotheses import Hypotheses, Tests, over_limit
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.sketch import count_above, count_over
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.measures import SUMS

Sums = list[float]  # of one arm, in the places that the layout says
Strata = dict[int, tuple[Sums, Sums]]  # by age group: treated, control

_TIMED = "timed"  # sessions of which the latency is known
_tally_sums = operator.attrgetter(*SUMS)


class RatePlaces(msgspec.Struct, frozen=True):
    """A test of rates, and the places of its sums. `proven`: the treated events of the test that is turned round.

    `fewer`: fewer events are worse, so that the arms swap places.
    """

    name: str
    events: int
    exposure: int
    proven: int
    fewer: bool = False


class Edge(msgspec.Struct, frozen=True):
    """The places of what lies over a quantile of latency, and how many buckets further the treated are counted."""

    over: int
    over_proven: int
    tolerated: int


class Layout:
    """Where every sum of a stratum stands under one plan, and which tests take it.

    `compared`: the tests of all devices; `by_class`: of a slice; `reversed`: those turned round.
    """

    def __init__(self, against: Hypotheses) -> None:
        limits = {over_limit(limit_ms): limit_ms for limit_ms in against.limits_ms}
        edges = {name: (f"{name}_over", f"{name}_over_proven") for name in against.quantiles}
        names = (*SUMS, _TIMED, *(name for pair in edges.values() for name in pair), *limits)
        self._places = place = {name: index for index, name in enumerate(names)}
        slower = against.margins.slower
        self._edges = [Edge(place[over], place[proven], slower[name]) for name, (over, proven) in edges.items()]
        self._limits = [(place[name], limit_ms) for name, limit_ms in limits.items()]
        self._steps_proven = against.steps_proven() if against.proven else None
        rates = [self._rate(name, rate.events, rate.exposure, fewer=rate.fewer) for name, rate in against.rates.items()]
        quantiles = [self._rate(name, over, _TIMED, proven) for name, (over, proven) in edges.items()]
        self.compared = [*rates, *quantiles, *(self._rate(name, name, _TIMED) for name in limits)]
        self.by_class = [rate for rate in rates if rate.name in against.class_rates]
        self.reversed = [*rates, *quantiles]

    def _rate(
        self, name: str, events: str, exposure: str, proven: str | None = None, *, fewer: bool = False
    ) -> RatePlaces:
        place = self._places
        return RatePlaces(name, place[events], place[exposure], place[proven or events], fewer)

    def empty(self) -> tuple[Sums, Sums]:
        """Both arms of a stratum of which nothing was read."""
        return [0.0] * len(self._places), [0.0] * len(self._places)

    def read(self, cell: Cell, edges: Sequence[int | None]) -> Sums:
        """One cell's sums. `edges`: of latency, by quantile, where they are known."""
        sums: Sums = [*_tally_sums(cell), *[0] * (len(self._places) - len(SUMS))]
        latency, treated = cell.latency, cell.role == "treated"
        if not latency:
            return sums
        sums[self._places[_TIMED]] = sum(latency.values())
        for edge, key in zip(self._edges, edges, strict=True):
            if key is not None:
                sums[edge.over] = count_over(latency, key + edge.tolerated * treated)
                if self._steps_proven is not None:
                    sums[edge.over_proven] = count_over(latency, key + self._steps_proven * treated)
        for place, limit_ms in self._limits:
            sums[place] = count_above(latency, limit_ms)
        return sums

    def arms(self, strata: Strata, name: str) -> Iterable[tuple[float, float, float, float]]:
        """A rate's sums by age group: events and exposure of the treated, and of the controls."""
        rate = next(each for each in self.compared if each.name == name)
        for _, (t, c) in sorted(strata.items()):
            yield t[rate.events], t[rate.exposure], c[rate.events], c[rate.exposure]


def add_rates(tests: Tests, strata: Strata, rates: Sequence[RatePlaces]) -> None:
    """A window's rates into the tests."""
    for age in sorted(strata):
        arms = strata[age]
        for rate in rates:
            t, c = arms if not rate.fewer else arms[::-1]
            if t[rate.events] or c[rate.events]:  # without an event no bet changes
                tests.rates[rate.name].add(t[rate.events], t[rate.exposure], c[rate.events], c[rate.exposure])


def add_reverse(tests: Tests, strata: Strata, rates: Sequence[RatePlaces]) -> None:
    """A window's rates into the tests turned round: the arms swap places."""
    for age in sorted(strata):
        arms = strata[age]
        for rate in rates:
            t, c = arms if not rate.fewer else arms[::-1]
            tests.rates[rate.name].add(c[rate.events], c[rate.exposure], t[rate.proven], t[rate.exposure])


def predictions_of(cells: Iterable[Cell], role: str) -> tuple[int, dict[int, Moments]]:
    """How many devices of an arm predicted, and the shares of their predictions by bin."""
    units, shares = 0, {}  # type: int, dict[int, Moments]
    for cell in cells:
        if cell.role == role:
            units += cell.prediction_units
            for key, moments in cell.predictions.items():
                shares[key] = shares[key].plus(moments) if key in shares else moments
    return units, shares


def moments_of(
    cells: Iterable[Cell], metric: str, judged: Sequence[str]
) -> tuple[list[MeanWindow], dict[str, list[MeanWindow]]]:
    """The metric's moments by age group: of all devices, and of each judged slice."""
    groups: dict[tuple[str | None, int], tuple[Sums, Sums]] = {}  # n, sum and sum of squares of both arms
    pairs: dict[tuple[str | None, int], list[Pairs]] = {}
    for cell in cells:
        moments, before = cell.metrics.get(metric), cell.pairs.get(metric)
        if moments is None:
            continue
        control = cell.role == "control"
        for name in (None, *cell.groups.values()):
            if name is None or name in judged:
                key = name, cell.age_bucket
                arm = groups.setdefault(key, ([0.0] * 3, [0.0] * 3))[control]
                arm[0] += moments.n
                arm[1] += moments.sum
                arm[2] += moments.sumsq
                if before is not None:
                    arms = pairs.setdefault(key, [NO_PAIRS, NO_PAIRS])
                    arms[control] = arms[control].plus(before)
    windows: dict[str | None, list[MeanWindow]] = defaultdict(list)
    for name, age in sorted(groups, key=lambda key: (key[0] is not None, key[0] or "", key[1])):
        (n_t, sum_t, sumsq_t), (n_c, sum_c, sumsq_c) = groups[name, age]
        pairs_t, pairs_c = pairs.get((name, age), (NO_PAIRS, NO_PAIRS))
        windows[name].append(MeanWindow(n_t, sum_t, sumsq_t, n_c, sum_c, sumsq_c, pairs_t, pairs_c))
    everyone = windows.pop(None, [])
    return everyone, {name: parts for name, parts in windows.items() if name is not None}
