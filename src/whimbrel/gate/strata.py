"""The sums of one window of a cohort, like by like: of both arms by age and class, of all devices and of slices.

1. A stratum is an age group of a hardware class: a class that installs late and crashes less is no proof of anything.
   Classes that are small in either arm are one stratum together, so that hundreds of them cost no power. Earlier
   windows alone say which.
2. A stratum's sums are a list of numbers. The layout of a plan says once which place is whose: the sums of the tally
   that any rate is made of, the sessions that were timed, and those over each edge and limit of latency.
3. The layout also says which test takes which places, and by what sums and pairs devices are told to be constant.
4. Tests take the strata in their order, so the same windows give the same bits.

Called by the ledger.
"""

import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from whimbrel.gate.evidence import MeanWindow
from whimbrel.gate.hypotheses import LATENCY, Hypotheses, Tests, over_limit
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.sketch import count_above, count_over
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.measures import SUMS

Sums = list[float]  # of one arm, in the places that the layout says
Stratum = tuple[int, str]  # age group and hardware class; "" stands for the small classes together
Strata = dict[Stratum, tuple[Sums, Sums]]  # treated, control
PairsByStratum = dict[Stratum, dict[str, list[Pairs]]]  # by measure: treated, control

LEAST_OF_A_CLASS = 5.0  # device-windows a window, in the smaller arm, that make a class a stratum of its own
_TIMED = "timed"  # sessions of which the latency is known
_KEYS, _KEY_SQUARES = "latency_keys", "latency_key_squares"  # sums of their buckets' numbers
_ERROR_SQUARES = "error_squares"
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


class AlikePlaces(msgspec.Struct, frozen=True):
    """The places of n values, their sum and their squares, by which devices are told to be constant in a measure."""

    name: str
    n: int
    total: int
    squares: int
    fewer: bool


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
        further = (_ERROR_SQUARES, _TIMED, _KEYS, _KEY_SQUARES)
        names = (*SUMS, *further, *(name for pair in edges.values() for name in pair), *limits)
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
        squares = {"error": place[_ERROR_SQUARES]}  # of the others, a device-window is 0 or 1
        self.alike = [
            AlikePlaces(rate.name, rate.exposure, rate.events, squares.get(rate.name, rate.events), rate.fewer)
            for rate in rates
        ]
        self.alike.append(AlikePlaces(LATENCY, place[_TIMED], place[_KEYS], place[_KEY_SQUARES], fewer=False))

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
        sums: Sums = [*_tally_sums(cell), cell.error_squares, *[0] * (len(self._places) - len(SUMS) - 1)]
        latency, treated = cell.latency, cell.role == "treated"
        if not latency:
            return sums
        sums[self._places[_TIMED]] = sum(latency.values())
        if LATENCY in cell.pairs:
            sums[self._places[_KEYS]] = sum(key * count for key, count in latency.items())
            sums[self._places[_KEY_SQUARES]] = sum(key * key * count for key, count in latency.items())
        for edge, key in zip(self._edges, edges, strict=True):
            if key is not None:
                sums[edge.over] = count_over(latency, key + edge.tolerated * treated)
                if self._steps_proven is not None:
                    sums[edge.over_proven] = count_over(latency, key + self._steps_proven * treated)
        for place, limit_ms in self._limits:
            sums[place] = count_above(latency, limit_ms)
        return sums

    def arms(self, strata: Strata, name: str) -> list[tuple[float, float, float, float]]:
        """A rate's sums by age group: events and exposure of the treated, and of the controls."""
        rate = next(each for each in self.compared if each.name == name)
        by_age: dict[int, list[float]] = {}
        for (age, _), (t, c) in sorted(strata.items()):
            sums = by_age.setdefault(age, [0.0] * 4)
            for place, value in enumerate((t[rate.events], t[rate.exposure], c[rate.events], c[rate.exposure])):
                sums[place] += value
        return [
            (events_t, exposure_t, events_c, exposure_c)
            for events_t, exposure_t, events_c, exposure_c in by_age.values()
        ]


class ClassSizes:
    """How many device-windows each hardware class had in both arms of a cohort."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def large(self, windows: int) -> frozenset[str]:
        """The classes that are strata of their own, after so many windows."""
        least = LEAST_OF_A_CLASS * windows
        return frozenset(name for name, arms in self._sums.items() if windows and min(arms) >= least)

    def add(self, cells: Iterable[Cell]) -> None:
        """One window."""
        for cell in cells:
            if cell.at_risk:
                self._sums.setdefault(cell.hardware_class, [0.0, 0.0])[cell.role == "control"] += cell.at_risk


def stratum_of(cell: Cell, large: frozenset[str]) -> Stratum:
    """The stratum that a cell belongs to."""
    return cell.age_bucket, cell.hardware_class if cell.hardware_class in large else ""


def add_rates(tests: Tests, strata: Strata, rates: Sequence[RatePlaces]) -> None:
    """A window's rates into the tests."""
    for stratum in sorted(strata):
        arms = strata[stratum]
        for rate in rates:
            t, c = arms if not rate.fewer else arms[::-1]
            tests.rates[rate.name].add(t[rate.events], t[rate.exposure], c[rate.events], c[rate.exposure])


def add_reverse(tests: Tests, strata: Strata, rates: Sequence[RatePlaces]) -> None:
    """A window's rates into the tests turned round: the arms swap places."""
    for stratum in sorted(strata):
        arms = strata[stratum]
        for rate in rates:
            t, c = arms if not rate.fewer else arms[::-1]
            tests.rates[rate.name].add(c[rate.events], c[rate.exposure], t[rate.proven], t[rate.exposure])


def add_alike(tests: Tests, strata: Strata, pairs: PairsByStratum, places: Sequence[AlikePlaces]) -> None:
    """What a window tells of how constant the devices are; nothing of a measure before pairs of it were told."""
    told = {name for by_name in pairs.values() for name in by_name}
    for each in places:
        alike = tests.alike.get(each.name)
        if alike is None or not (alike.known or each.name in told):
            continue
        for stratum in sorted(strata):
            arms = strata[stratum]
            own = pairs.get(stratum, {}).get(each.name, (NO_PAIRS, NO_PAIRS))
            for arm, sums, common in zip(
                (alike.treated, alike.control),
                arms[::-1] if each.fewer else arms,
                own[::-1] if each.fewer else own,
                strict=True,
            ):
                if sums[each.n]:
                    arm.add(sums[each.n], sums[each.total], sums[each.squares], common)


def merge_pairs(into: PairsByStratum, stratum: Stratum, cell: Cell) -> None:
    """A cell's pairs to those of its stratum."""
    by_name = into.setdefault(stratum, {})
    control = cell.role == "control"
    for name, pairs in cell.pairs.items():
        arms = by_name.setdefault(name, [NO_PAIRS, NO_PAIRS])
        arms[control] = arms[control].plus(pairs)


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
    cells: Iterable[Cell], metric: str, judged: Sequence[str], large: frozenset[str]
) -> tuple[list[MeanWindow], dict[str, list[MeanWindow]]]:
    """The metric's moments by stratum: of all devices, and of each judged slice."""
    groups: dict[tuple[str | None, Stratum], tuple[Sums, Sums]] = {}  # n, sum and sum of squares of both arms
    pairs: dict[tuple[str | None, Stratum], list[Pairs]] = {}
    for cell in cells:
        moments, before = cell.metrics.get(metric), cell.pairs.get(metric)
        if moments is None:
            continue
        control, stratum = cell.role == "control", stratum_of(cell, large)
        for name in (None, *cell.groups.values()):
            if name is None or name in judged:
                key = name, stratum
                arm = groups.setdefault(key, ([0.0] * 3, [0.0] * 3))[control]
                arm[0] += moments.n
                arm[1] += moments.sum
                arm[2] += moments.sumsq
                if before is not None:
                    arms = pairs.setdefault(key, [NO_PAIRS, NO_PAIRS])
                    arms[control] = arms[control].plus(before)
    windows: dict[str | None, list[MeanWindow]] = defaultdict(list)
    for name, stratum in sorted(groups, key=lambda key: (key[0] is not None, key[0] or "", key[1])):
        (n_t, sum_t, sumsq_t), (n_c, sum_c, sumsq_c) = groups[name, stratum]
        pairs_t, pairs_c = pairs.get((name, stratum), (NO_PAIRS, NO_PAIRS))
        windows[name].append(MeanWindow(n_t, sum_t, sumsq_t, n_c, sum_c, sumsq_c, pairs_t, pairs_c))
    everyone = windows.pop(None, [])
    return everyone, {name: parts for name, parts in windows.items() if name is not None}
