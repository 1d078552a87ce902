"""What does one window of a cohort say, like by like? Sums of both arms by age group, of all devices and of slices.

Called by the ledger. Tests take the strata in the order of the age groups, so the same windows give the same bits.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from whimbrel.gate.evidence import MeanWindow
from whimbrel.gate.guardrails import QUANTILES, RATES
from whimbrel.gate.hypotheses import Hypotheses, Tests
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.sketch import count_above, count_over
from whimbrel.health.tally import Cell, Moments

# A stratum's sums: crashed, at risk, error share, error units, overdue, due, sessions, what lies over each edge and
# limit, and last the devices that users wrote of.
Sums = list[float]
Strata = dict[int, tuple[Sums, Sums]]  # by age group: treated, control


def read(cell: Cell, edges: Sequence[int | None], against: Hypotheses) -> Sums:
    """One cell's sums. `edges`: of latency, by quantile, where they are known."""
    sums: Sums = [cell.crashed, cell.at_risk, cell.error_share, cell.error_units, cell.overdue, cell.due]
    latency = cell.latency
    sums.append(sum(latency.values()) if latency else 0)
    treated = cell.role == "treated"
    margin = against.steps_proven() if treated else 0
    for edge, slower in zip(edges, against.margins.slower.values(), strict=True):
        known = edge if latency and edge is not None else None
        sums.append(count_over(latency, known + slower * treated) if known is not None else 0)
        sums.append(count_over(latency, known + margin) if known is not None and against.proven else 0)
    sums += [count_above(latency, bound) if latency else 0 for bound in against.bounds]
    sums.append(cell.user_reports)
    return sums


def add_rates(tests: Tests, strata: Strata, bounds: Sequence[float]) -> None:
    """A window's rates into the tests. `bounds`: the limits of latency among them."""
    rates = tests.rates
    for age in sorted(strata):
        t, c = strata[age]
        for index, name in enumerate(RATES):
            if t[2 * index] or c[2 * index]:  # without an event no bet changes
                rates[name].add(t[2 * index], t[2 * index + 1], c[2 * index], c[2 * index + 1])
        if "latency_p50" in rates and t[6] and c[6]:
            for index, name in enumerate(QUANTILES):
                if c[7 + 2 * index] or t[7 + 2 * index]:
                    rates[name].add(t[7 + 2 * index], t[6], c[7 + 2 * index], c[6])
            for index, bound in enumerate(bounds, start=7 + 2 * len(QUANTILES)):
                rates[f"latency_over:{bound}"].add(t[index], t[6], c[index], c[6])
        if "user_reports" in rates and (t[-1] or c[-1]):
            rates["user_reports"].add(t[-1], t[1], c[-1], c[1])


def add_reverse(tests: Tests, strata: Strata) -> None:
    """A window's rates into the tests turned round: the arms swap places."""
    for age in sorted(strata):
        t, c = strata[age]
        for index, name in enumerate(RATES):
            tests.rates[name].add(c[2 * index], c[2 * index + 1], t[2 * index], t[2 * index + 1])
        for index, name in enumerate(QUANTILES):
            tests.rates[name].add(c[7 + 2 * index], c[6], t[8 + 2 * index], t[6])
        if "user_reports" in tests.rates:
            tests.rates["user_reports"].add(c[-1], c[1], t[-1], t[1])


def predictions_of(cells: Iterable[Cell], role: str) -> tuple[int, dict[int, Moments]]:
    """How many devices of an arm predicted, and the shares of their predictions by bin."""
    units, found = 0, {}  # type: int, dict[int, Moments]
    for cell in cells:
        if cell.role == role:
            units += cell.prediction_units
            for key, seen in cell.predictions.items():
                found[key] = found[key].plus(seen) if key in found else seen
    return units, found


def moments_of(
    cells: Iterable[Cell], metric: str, judged: Sequence[str]
) -> tuple[list[MeanWindow], dict[str, list[MeanWindow]]]:
    """The metric's moments by age group: of all devices, and of each judged slice."""
    groups: dict[tuple[str | None, int], list[float]] = {}
    pairs: dict[tuple[str | None, int], list[Pairs]] = {}
    for cell in cells:
        seen = cell.metrics.get(metric)
        if seen is None:
            continue
        first, before = 3 if cell.role == "control" else 0, cell.pairs.get(metric)
        for key in (None, *cell.groups.values()):
            if key is None or key in judged:
                mine = groups.setdefault((key, cell.age_bucket), [0.0] * 6)
                mine[first] += seen.n
                mine[first + 1] += seen.sum
                mine[first + 2] += seen.sumsq
                if before is not None:
                    held = pairs.setdefault((key, cell.age_bucket), [NO_PAIRS, NO_PAIRS])
                    held[first > 0] = held[first > 0].plus(before)
    found: dict[str | None, list[MeanWindow]] = defaultdict(list)
    for name, age in sorted(groups, key=lambda key: (key[0] is not None, key[0] or "", key[1])):
        n_t, sum_t, sumsq_t, n_c, sum_c, sumsq_c = groups[name, age]
        pairs_t, pairs_c = pairs.get((name, age), (NO_PAIRS, NO_PAIRS))
        found[name].append(MeanWindow(n_t, sum_t, sumsq_t, n_c, sum_c, sumsq_c, pairs_t, pairs_c))
    everyone = found.pop(None, [])
    return everyone, {name: parts for name, parts in found.items() if name is not None}
