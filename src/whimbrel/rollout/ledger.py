"""What do a rollout's windows add up to? The state of every test, folded window by window.

1. A closed window is folded once, in order, with its cells in the order of their keys: a gate that lives for weeks and
   a replay from nothing do the same sums, and agree to the last bit.
2. Like is compared with like: a stage's treated devices with that stage's controls, within a window and an age group.
3. The slices (hardware classes, and the values of other labels) with a share of the budget are those that were heard
   of when both arms first spoke; later ones count among all devices.
4. Edges of latency come from the control's earlier windows.
5. Shadow stages have a ledger of their own for the app, and sums for the candidate; here stages count from the first
   that serves.

Called by the gate.
"""

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from whimbrel import limits
from whimbrel.health.drift import DriftFold, Spread, expected_shares
from whimbrel.health.evidence import (
    BoundFold,
    MeanFold,
    MeanWindow,
    RateFold,
    RateWindow,
    e_bh,
    log_mean_exp,
    one_sided_rho,
)
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.sketch import count_above, count_over, quantile_key, steps_of
from whimbrel.health.tally import Cell, Moments
from whimbrel.rollout.criteria import SuccessCriteria
from whimbrel.rollout.guardrails import (
    BETS,
    BY_CLASS,
    CLASS_SHARE,
    PROVEN_DROP,
    PROVEN_RATIO,
    QUANTILES,
    RATES,
    SEEN_BATTERY,
    SEEN_DEVIATIONS,
    SEEN_DRIFT,
    SEEN_DROP,
    TOLERATED_DROP,
    TOLERATED_RATIO,
    Bound,
    Copy,
    bounds,
    cohort_share,
    compared_means,
    copies,
    drift_at,
    drift_limits,
    guard_weights,
    margins,
    severities,
)
from whimbrel.rollout.plan import Plan
from whimbrel.rollout.shadow_ledger import ShadowLedger, serving_part, shadow_part

_replace = msgspec.structs.replace
_HISTORY = 10  # values of the control beyond a quantile before its edge is believed


class Totals:
    """Sums of one arm of a cohort over all windows: what point estimates are made of."""

    __slots__ = (
        "at_risk", "crashed", "due", "error_share", "error_units", "latency", "metrics", "overdue", "user_reports",
    )  # fmt: skip

    def __init__(self) -> None:
        self.at_risk = self.crashed = self.error_units = self.due = self.overdue = self.user_reports = 0
        self.error_share = 0.0
        self.metrics: dict[str, tuple[int, float]] = {}
        self.latency: dict[int, int] = {}

    def add(self, cell: Cell) -> None:
        """One cell more."""
        self.at_risk += cell.at_risk
        self.crashed += cell.crashed
        self.error_units += cell.error_units
        self.error_share += cell.error_share
        self.due += cell.due
        self.overdue += cell.overdue
        self.user_reports += cell.user_reports
        for name, seen in cell.metrics.items():
            n, total = self.metrics.get(name, (0, 0.0))
            self.metrics[name] = n + seen.n, total + seen.sum
        for key, count in cell.latency.items():
            self.latency[key] = self.latency.get(key, 0) + count

    def mean(self, metric: str) -> float | None:
        """The metric's mean; None where nothing was reported."""
        n, total = self.metrics.get(metric, (0, 0.0))
        return total / n if n else None


class Tests:
    """The tests of one copy, for all devices or one class."""

    __slots__ = ("means", "rates", "rhos")

    def __init__(self, rates: dict[str, RateFold], means: dict[str, MeanFold]) -> None:
        self.rates, self.means = rates, means
        self.rhos: dict[str, float] = {}

    def log_e(self, name: str) -> float:
        """ln E of one of them."""
        if name in self.rates:
            return self.rates[name].log_e(BETS)
        if name in self.means and name in self.rhos:
            return self.means[name].log_e(self.rhos[name])
        return 0.0


class Cohort:
    """One stage's devices: copies of the tests, and sums."""

    def __init__(self) -> None:
        self.copies: dict[int, Tests] = {}  # by the stage at which they started
        self.classes: dict[str, Tests] = {}
        self.reverse: Tests | None = None
        self.totals = {"treated": Totals(), "control": Totals()}
        self.class_totals: dict[tuple[str, str], Totals] = defaultdict(Totals)
        self.crashes: list[RateWindow] = []
        self.bounds: dict[Bound, BoundFold] = {}
        self.bound_rhos: dict[Bound, float] = {}
        self.spreads: dict[str, Spread] = {}
        self.drifts: dict[float, DriftFold] = {}


class References(msgspec.Struct, frozen=True):
    """The share of every bin of predictions, by the references of the two arms' versions; None: it has none."""

    treated: tuple[float, ...] | None = None
    control: tuple[float, ...] | None = None


# A stratum's sums: crashed, at risk, error share, error units, overdue, due, sessions, what lies over each edge and
# limit, and last the devices that users wrote of.
_Sums = list[float]


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What e-BH says of one label's slices: the `bad` ones, ln E of each, and ln E of all the others together."""

    bad: list[str]
    logs: dict[str, float]
    rest: float  # inf where no other is left
    devices: int  # device-windows of the bad slices on the new version
    of: int  # device-windows of all slices of the label on the new version
    leads: dict[str, str]  # the guardrail that says most of each

    def clean(self, *, needed: float) -> bool:
        """Whether the bad ones are few and the others show nothing: then they may go back alone."""
        few = 2 * len(self.bad) < len(self.logs) and 2 * self.devices < self.of
        return bool(self.bad) and few and self.rest < needed / 2


_NO_REFERENCES = References()


class Ledger:
    """All tests of a rollout. `without`: slices that went back and are judged no more."""

    def __init__(self, plan: Plan, *, without: Iterable[str] = (), references: References = _NO_REFERENCES) -> None:
        self.shadows = plan.shadows
        self.app = Ledger(shadow_part(plan), without=without) if plan.shadows else None
        self.shadow = ShadowLedger()
        self.plan = plan = serving_part(plan)
        self.without = frozenset(without)
        self.weights, self.severities, self.margins = guard_weights(plan), severities(plan), margins(plan)
        self.means = compared_means(plan)
        self.limits = bounds(plan)
        self._asked_users = "user_reports" in self.weights
        self.version_reports = RateFold(self.margins.ratios["user_reports"])
        self._one_sample = {"failure", "error_limit", "latency_limit", "version_reports", "drift"} | {
            bound.name for bound in self.limits
        }
        self.drift_limits = drift_limits(plan)
        asked = {"treated": references.treated, "control": references.control} if self.drift_limits else {}
        self.expected = {role: expected_shares(shares) for role, shares in asked.items() if shares is not None}
        self._drift_rho = one_sided_rho(v_opt=2 * math.log(1 / plan.alpha) / SEEN_DRIFT**2, alpha=min(plan.alpha, 0.4))
        self.windows = 0
        self.last = -1
        self.cohorts: dict[int, Cohort] = {}
        self.slices: dict[str, tuple[str, ...]] | None = None  # judged ones by label; None before both arms spoke
        self._heard: dict[str, dict[str, int]] = defaultdict(dict)
        every = [plan.criteria(index) for index in range(len(plan.stages))]
        self._bounds = sorted({each.latency_p99_max_ms for each in every if each.latency_p99_max_ms is not None})
        self._proven = every[-1] if plan.promote == "when_proven" else None

    def fold(self, cells: Sequence[Cell]) -> None:
        """Fold closed windows, none of which was folded before."""
        kept = [cell for cell in cells if self.without.isdisjoint(cell.groups.values())]
        kept.sort(key=lambda cell: cell.key)
        if self.app is not None:
            beside = [cell for cell in kept if cell.stage < self.shadows]
            self.app.fold(beside)
            self.shadow.fold(beside)
            kept = [_replace(cell, stage=cell.stage - self.shadows) for cell in kept if cell.stage >= self.shadows]
        for window, group in itertools.groupby(kept, key=lambda cell: cell.window):
            if window <= self.last:
                raise ValueError(f"window {window} comes after window {self.last} was folded")
            self._window(list(group))
            self.last, self.windows = window, self.windows + 1
        if self.app is not None:
            self.last = max(self.last, self.app.last)

    def _window(self, cells: list[Cell]) -> None:
        self._hear(cells)
        for stage in sorted({cell.stage for cell in cells} - set(self.cohorts)):
            self._begin(stage)
        for stage, group in itertools.groupby(cells, key=lambda cell: cell.stage):
            self._cohort(self.cohorts[stage], list(group))
        if self._asked_users:
            self._versions(cells)

    def _versions(self, cells: list[Cell]) -> None:
        """Tickets that name a version alone: of all stages together, over the device-windows of the arms."""
        written, at_risk = {"treated": 0, "control": 0}, {"treated": 0, "control": 0}
        controls: dict[int, int] = defaultdict(int)  # a control device stands in several stages, and is one device
        for cell in cells:
            written[cell.role] += cell.version_reports
            if cell.role == "treated":
                at_risk["treated"] += cell.at_risk
            else:
                controls[cell.stage] += cell.at_risk
        at_risk["control"] = max(controls.values(), default=0)
        self.version_reports.add(written["treated"], at_risk["treated"], written["control"], at_risk["control"])

    def _hear(self, cells: list[Cell]) -> None:
        if self.slices is not None:
            return
        for cell in cells:
            for label, name in cell.groups.items():
                heard = self._heard[label]
                heard[name] = heard.get(name, 0) + cell.at_risk + cell.due
        if len({cell.role for cell in cells}) == 2:
            self.slices = {}
            for label, heard in sorted(self._heard.items()):
                most = sorted(heard, key=lambda name: (-heard[name], name))[: limits.JUDGED_CLASSES]
                if len(most) > 1:
                    self.slices[label] = tuple(sorted(most))

    @property
    def _judged(self) -> list[str]:
        return [name for names in (self.slices or {}).values() for name in names]

    def _begin(self, stage: int) -> None:
        for cohort in self.cohorts.values():
            cohort.copies[stage] = self._tests()
        self.cohorts[stage] = Cohort()
        self.cohorts[stage].copies[stage] = self._tests()
        self.cohorts[stage].bounds = {bound: BoundFold(bound.limit, floor=bound.floor) for bound in self.limits}
        self.cohorts[stage].spreads = {role: Spread(len(shares)) for role, shares in self.expected.items()}
        if "treated" in self.expected:
            expected = self.expected["treated"]
            self.cohorts[stage].drifts = {each: DriftFold(expected, limit=each) for each in self.drift_limits}
        if self._proven is not None:
            self.cohorts[stage].reverse = self._reverse_tests()

    def _tests(self) -> Tests:
        ratios = self.margins.ratios
        rates = {name: RateFold(ratios[name]) for name in RATES}
        rates |= {name: RateFold(1.0) for name in QUANTILES}
        rates |= {f"latency_over:{bound}": RateFold(TOLERATED_RATIO) for bound in self._bounds}
        if self._asked_users:
            rates["user_reports"] = RateFold(ratios["user_reports"])
        return Tests(rates, {name: self._mean_test(name) for name in self.means})

    def _mean_test(self, name: str) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.rise(margin) if direction == "higher_is_worse" else MeanFold.drop(margin)
        if name == "battery":
            return MeanFold.growth(self.margins.ratios[name])
        return MeanFold.drop(self.margins.drops[name])

    def _class_tests(self) -> Tests:
        return Tests(
            {name: RateFold(self.margins.ratios[name]) for name in RATES}, {"accuracy": self._mean_test("accuracy")}
        )

    def _reverse_tests(self) -> Tests:
        criteria = self._proven
        if criteria is None:  # pragma: no cover - asked for only where the plan proves
            return Tests({}, {})
        wanted = {"crash": criteria.crash_ratio_max or PROVEN_RATIO, "error": PROVEN_RATIO, "silence": PROVEN_RATIO}
        rates = {name: RateFold(1 / max(margin, self.margins.ratios[name])) for name, margin in wanted.items()}
        rates |= {name: RateFold(1.0) for name in QUANTILES}
        if self._asked_users:
            margin = max(criteria.user_reports_ratio_max or PROVEN_RATIO, self.margins.ratios["user_reports"])
            rates["user_reports"] = RateFold(1 / margin)
        return Tests(rates, {name: self._reverse_mean(name, criteria) for name in self.means})

    def _reverse_mean(self, name: str, criteria: SuccessCriteria) -> MeanFold:
        if name in self.margins.own:
            direction, margin = self.margins.own[name]
            return MeanFold.at_most(margin) if direction == "higher_is_worse" else MeanFold.at_least(margin)
        if name == "battery":
            margin = 1 + (criteria.battery_increase_max or PROVEN_RATIO - 1)
            return MeanFold.growth_within(max(margin, self.margins.ratios[name]))
        asked = criteria.accuracy_drop_max if name == "accuracy" else None
        return MeanFold.at_least(max(asked or PROVEN_DROP, self.margins.drops[name]))

    def _cohort(self, cohort: Cohort, cells: list[Cell]) -> None:
        edges = self._edges(cohort)
        strata: dict[int, tuple[_Sums, _Sums]] = {}
        by_class: dict[str, dict[int, tuple[_Sums, _Sums]]] = {}
        width = 8 + 2 * len(QUANTILES) + len(self._bounds)
        judged, chosen = self._judged, frozenset(self._judged)
        for cell in cells:
            control = cell.role == "control"
            sums = self._read(cell, edges)
            names = [name for name in cell.groups.values() if name in chosen]
            groups = [strata, *(by_class.setdefault(name, {}) for name in names)]
            for group in groups:
                pair = group.get(cell.age_bucket)
                if pair is None:
                    pair = group[cell.age_bucket] = ([0.0] * width, [0.0] * width)
                mine = pair[control]
                for index, value in enumerate(sums):
                    mine[index] += value
            cohort.totals[cell.role].add(cell)
            for name in names:
                cohort.class_totals[name, cell.role].add(cell)
        for tests in cohort.copies.values():
            _add_rates(tests, strata, self._bounds)
        if cohort.reverse is not None:
            _add_reverse(cohort.reverse, strata)
        for name in judged:
            if name in by_class:
                tests = cohort.classes.setdefault(name, self._class_tests())
                _add_rates(tests, by_class[name], ())
        cohort.crashes += [
            RateWindow(t[0], t[1], c[0], c[1]) for _, (t, c) in sorted(strata.items()) if t[1] > 0 and c[1] > 0
        ]
        self._means(cohort, cells, judged)
        for role, spread in cohort.spreads.items():
            units, predictions = _predictions(cells, role)
            spread.add(units, predictions)
            if role == "treated":
                for fold in cohort.drifts.values():
                    fold.add(units, predictions)

    def _edges(self, cohort: Cohort) -> list[int | None]:
        history = cohort.totals["control"].latency
        count = sum(history.values())
        return [
            quantile_key(history, p) if count >= math.ceil(_HISTORY / (1 - p)) else None for p in QUANTILES.values()
        ]

    def _read(self, cell: Cell, edges: Sequence[int | None]) -> _Sums:
        sums: _Sums = [cell.crashed, cell.at_risk, cell.error_share, cell.error_units, cell.overdue, cell.due]
        latency = cell.latency
        sums.append(sum(latency.values()) if latency else 0)
        treated = cell.role == "treated"
        margin = self._margin() if treated else 0
        for edge, slower in zip(edges, self.margins.slower.values(), strict=True):
            known = edge if latency and edge is not None else None
            sums.append(count_over(latency, known + slower * treated) if known is not None else 0)
            sums.append(count_over(latency, known + margin) if known is not None and self._proven else 0)
        sums += [count_above(latency, bound) if latency else 0 for bound in self._bounds]
        sums.append(cell.user_reports)
        return sums

    def _margin(self) -> int:
        increase = self._proven.latency_increase_max if self._proven else None
        return steps_of(1 + increase if increase else PROVEN_RATIO)

    def _means(self, cohort: Cohort, cells: list[Cell], judged: Sequence[str]) -> None:
        reported = {name for cell in cells for name in cell.metrics}
        for name in self.means:
            if name not in reported:
                continue
            strata, by_class = _moments(cells, name, judged)
            tests = [(each, strata) for each in cohort.copies.values()]
            if cohort.reverse is not None:
                tests.append((cohort.reverse, strata))
            if name in BY_CLASS:
                tests += [(cohort.classes[key], by_class[key]) for key in judged if key in by_class]
            for each, parts in tests:
                fold = each.means[name]
                if fold.precision == 0 and (rho := self._rho(name, fold)) is not None:
                    each.rhos[name] = rho  # from earlier windows alone, and never changed once something was weighed
                fold.add(parts)
        for bound, test in cohort.bounds.items():
            if bound.metric in reported:
                if test.precision == 0 and (rho := self._rho(bound.metric, test)) is not None:
                    cohort.bound_rhos[bound] = rho
                test.add(functools.reduce(MeanWindow.plus, _moments(cells, bound.metric, ())[0]))

    def _rho(self, name: str, fold: MeanFold | BoundFold) -> float | None:
        """The mixture's parameter; but for shares, it depends on the level or the spread in earlier windows."""
        alpha, seen = self.plan.alpha, SEEN_DROP - TOLERATED_DROP
        if name == "battery" and isinstance(fold, MeanFold):
            if not fold.before_c.n or not fold.before_c.sum:
                return None
            seen = SEEN_BATTERY * abs(fold.before_c.sum / fold.before_c.n)
        elif name not in {"accuracy", "feedback"}:
            before = fold.before_c if fold.before_c.n > 1 else fold.before_t
            if before.n <= 1:
                return None
            seen = SEEN_DEVIATIONS * math.sqrt(before.variance())
        return one_sided_rho(v_opt=2 * math.log(1 / alpha) / seen**2, alpha=min(alpha, 0.4))

    # --- what was found ---

    def lanes(self, *, bound: float | None) -> list[tuple[str, Copy, str | None, float, float]]:
        """Every test with its weight: guardrail, copy, slice (None: all devices), weight, ln E.

        Tests that have not begun are at ln E = 0: an average must keep their weight. `bound`: the limit of latency in
        force, if any. The limits of one sample and the failures are the gate's.
        """
        found: list[tuple[str, Copy, str | None, float, float]] = []
        labels = self.slices or {}
        for copy in copies(len(self.plan.stages)):
            cohort = self.cohorts.get(copy.cohort)
            tests = cohort.copies.get(copy.start) if cohort else None
            own = copy.start == copy.cohort
            for name, share in self.weights.items():
                if name in self._one_sample:
                    continue
                key = name if name != "latency_over" else f"latency_over:{bound}"
                split = own and name in BY_CLASS and bool(labels)
                weight = share * copy.weight
                log_e = tests.log_e(key) if tests else 0.0
                found.append((name, copy, None, weight * (1 - CLASS_SHARE if split else 1), log_e))
                for slices in labels.values() if split else ():
                    for each in slices:
                        mine = cohort.classes.get(each) if cohort else None
                        part = weight * CLASS_SHARE / len(labels) / len(slices)
                        found.append((name, copy, each, part, mine.log_e(key) if mine else 0.0))
        return found

    def bound_lanes(self, criteria: SuccessCriteria) -> list[tuple[str, float, float]]:
        """The tests of the bounds of means, with those that `criteria` sets in force: name, weight, ln E.

        No evidence where the control breaks the bound too: the world changed, not the version.
        """
        lanes = []
        floors, ceilings = criteria.floors, criteria.ceilings
        for name, (metric, floor) in {bound.name: (bound.metric, bound.floor) for bound in self.limits}.items():
            limit = (floors if floor else ceilings).get(metric)
            for stage in range(len(self.plan.stages)):
                cohort, log_e = self.cohorts.get(stage), 0.0
                if cohort is not None and limit is not None:
                    bound, level = Bound(metric, floor, limit), cohort.totals["control"].mean(metric)
                    breaks = level is not None and (level < limit if floor else level > limit)
                    if not breaks and bound in cohort.bound_rhos:
                        log_e = cohort.bounds[bound].log_e(cohort.bound_rhos[bound])
                lanes.append((name, self.weights[name] * cohort_share(len(self.plan.stages), stage), log_e))
        return lanes

    def drift(self, stage: int, role: str) -> float | None:
        """The index of an arm's predictions against its own version's reference; None where nothing can be said."""
        cohort = self.cohorts.get(stage)
        spread = cohort.spreads.get(role) if cohort else None
        return spread.index(self.expected[role]) if spread else None

    def drift_lanes(self, stage: int) -> list[tuple[str, float, float]]:
        """The test of drift by cohort, at the limit in force at `stage`; none where the control drifts as far."""
        if "drift" not in self.weights:
            return []
        lanes, limit = [], drift_at(self.plan, stage)
        for number in range(len(self.plan.stages)):
            cohort, log_e = self.cohorts.get(number), 0.0
            if cohort is not None and limit is not None and limit in cohort.drifts:
                beside = self.drift(number, "control")
                if beside is None or beside <= limit:
                    log_e = cohort.drifts[limit].log_e(self._drift_rho)
            lanes.append(("drift", self.weights["drift"] * cohort_share(len(self.plan.stages), number), log_e))
        return lanes

    def named(self) -> dict[str, Named]:
        """By label: its bad slices, by e-BH among the label's own."""
        if all(self.severities[name] != "rollback" for name in BY_CLASS):
            return {}
        own = [copy for copy in copies(len(self.plan.stages)) if copy.start == copy.cohort]
        severe = [name for name in BY_CLASS if self.severities[name] == "rollback"]
        shares = [(name, copy, self.weights[name] * copy.weight) for name in severe for copy in own]
        total = sum(share for _, _, share in shares)
        found = {}
        for label, slices in (self.slices or {}).items():
            logs, leads = {}, {}
            for each in slices:
                mine = [self._class_log_e(each, name, copy) for name, copy, _ in shares]
                leads[each] = shares[mine.index(max(mine))][0]
                logs[each] = log_mean_exp(mine, [share / total for _, _, share in shares])
            bad = [slices[index] for index in e_bh(list(logs.values()), alpha=self.plan.alpha)]
            rest = [logs[each] for each in slices if each not in bad]
            found[label] = Named(
                bad=bad,
                logs=logs,
                rest=log_mean_exp(rest, [1 / len(rest)] * len(rest)) if rest else math.inf,
                devices=sum(self._at_risk(each) for each in bad),
                of=sum(self._at_risk(each) for each in slices),
                leads=leads,
            )
        return found

    def _at_risk(self, name: str) -> int:
        return sum(cohort.class_totals[name, "treated"].at_risk for cohort in self.cohorts.values())

    def _class_log_e(self, name: str, guard: str, copy: Copy) -> float:
        cohort = self.cohorts.get(copy.cohort)
        tests = cohort.classes.get(name) if cohort else None
        return tests.log_e(guard) if tests else 0.0


def _add_rates(tests: Tests, strata: dict[int, tuple[_Sums, _Sums]], bounds: Sequence[float]) -> None:
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


def _add_reverse(tests: Tests, strata: dict[int, tuple[_Sums, _Sums]]) -> None:
    for age in sorted(strata):
        t, c = strata[age]
        for index, name in enumerate(RATES):
            tests.rates[name].add(c[2 * index], c[2 * index + 1], t[2 * index], t[2 * index + 1])
        for index, name in enumerate(QUANTILES):
            tests.rates[name].add(c[7 + 2 * index], c[6], t[8 + 2 * index], t[6])
        if "user_reports" in tests.rates:
            tests.rates["user_reports"].add(c[-1], c[1], t[-1], t[1])


def _predictions(cells: Iterable[Cell], role: str) -> tuple[int, dict[int, Moments]]:
    units, found = 0, {}  # type: int, dict[int, Moments]
    for cell in cells:
        if cell.role == role:
            units += cell.prediction_units
            for key, seen in cell.predictions.items():
                found[key] = found[key].plus(seen) if key in found else seen
    return units, found


def _moments(
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
