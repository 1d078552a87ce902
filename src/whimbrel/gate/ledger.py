"""The state of every test of a rollout, folded window by window.

1. A closed window is folded once, in order, with its cells in the order of their keys: a gate that lives for weeks and
   a replay from nothing do the same sums, and agree to the last bit.
2. Like is compared with like: a stage's treated devices with that stage's controls, within a window, an age group and
   a hardware class.
3. The slices (hardware classes, and the values of other labels) with a share of the budget are those that reported
   by the time when both arms first did; later ones count among all devices only.
4. Edges of latency come from the control's earlier windows.
5. Copies of the tests begin anew at every hour of a stage. An hour is so many windows, so a rehearsal's are short too.
6. Shadow stages have a ledger of their own for the app, and sums for the candidate; here stages count from the first
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
from whimbrel.gate.drift import DriftFold
from whimbrel.gate.evidence import BoundFold, MeanWindow, RateFold, RateWindow
from whimbrel.gate.guardrails import (
    CLASS_SHARE,
    SEEN_DRIFT,
    Bound,
    bounds,
    cohort_share,
    drift_at,
    drift_limits,
    guard_weights,
    margins,
    severities,
)
from whimbrel.gate.hypotheses import Hypotheses, Tests, over_limit, sharpest_at
from whimbrel.gate.restarted_tests import LeadingCopy, Recent
from whimbrel.gate.shadow_ledger import ShadowLedger, serving_part, shadow_part
from whimbrel.gate.strata import (
    ClassSizes,
    Layout,
    PairsByStratum,
    Strata,
    add_alike,
    add_rates,
    add_reverse,
    merge_pairs,
    moments_of,
    predictions_of,
    stratum_of,
)
from whimbrel.gate.totals import Totals
from whimbrel.health.drift import BinSums, expected_shares
from whimbrel.health.tally import Cell
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import MEASURES, Mean, OverLimit, Quantile, Rate
from whimbrel.plan.plan import Plan

_replace = msgspec.structs.replace
EDGE_HISTORY = 10  # values of the control beyond a quantile before its edge is believed


class Cohort:
    """One stage's devices: their tests, and sums. `began`: the first window in which they were heard of."""

    def __init__(self, tests: Tests | None = None, *, began: int = 0) -> None:
        self.tests, self.began = tests, began
        self.classes: dict[str, Tests] = {}
        self.class_sizes = ClassSizes()
        self.reverse: Tests | None = None
        self.totals = {"treated": Totals(), "control": Totals()}
        self.class_totals: dict[tuple[str, str], Totals] = defaultdict(Totals)
        self.crashes: list[RateWindow] = []
        self.bounds: dict[Bound, BoundFold] = {}
        self.bound_rhos: dict[Bound, float] = {}
        self.bin_sums: dict[str, BinSums] = {}
        self.drifts: dict[float, DriftFold] = {}


class Lane(msgspec.Struct, frozen=True):
    """A test with its share of the budget, and ln E now. `stage` and `slice`: None where it is of none."""

    guardrail: str
    weight: float
    log_e: float
    stage: int | None = None
    slice: str | None = None


class References(msgspec.Struct, frozen=True):
    """The share of every bin of predictions, by the references of the two arms' versions; None: it has none."""

    treated: tuple[float, ...] | None = None
    control: tuple[float, ...] | None = None


_NO_REFERENCES = References()


class Ledger:
    """All tests of a rollout. `without`: slices that went back and are judged no more.

    `cluster`: how many devices count as one, since they are alike in ways that no device tells; each lane's ln E is
    divided by it: the geometric mean of the E-values of alike devices is an E-value, however they depend on each other.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        without: Iterable[str] = (),
        references: References = _NO_REFERENCES,
        cluster: float = 1.0,
    ) -> None:
        self.cluster = cluster
        self.unproven: Ledger | None = None  # of devices that prove nothing; made by who reads what they told
        self.shadows = plan.shadows
        self.app = Ledger(shadow_part(plan), without=without) if plan.shadows else None
        self.shadow = ShadowLedger()
        self.plan = plan = serving_part(plan)
        self.without = frozenset(without)
        self.weights, self.severities, self.margins = guard_weights(plan), severities(plan), margins(plan)
        self.hypotheses = Hypotheses(plan)
        self.layout = Layout(self.hypotheses)
        self.limits = bounds(plan)
        self.version_reports = RateFold(self.margins.ratios["user_reports"])
        bounded = {bound.name for bound in self.limits}
        self._compared = [name for name in self.weights if name not in bounded and _is_compared(name)]
        self.drift_limits = drift_limits(plan)
        asked = {"treated": references.treated, "control": references.control} if self.drift_limits else {}
        self.expected = {role: expected_shares(shares) for role, shares in asked.items() if shares is not None}
        self._drift_rho = sharpest_at(SEEN_DRIFT, alpha=plan.alpha)
        self._windows_an_hour = max(1, round(3600 / plan.window_s()))
        self.windows = 0
        self.last = -1
        self.cohorts: dict[int, Cohort] = {}
        self.slices: dict[str, tuple[str, ...]] | None = None  # judged ones by label; None before both arms spoke
        self._heard: dict[str, dict[str, int]] = defaultdict(dict)

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
        window = cells[0].window
        for stage in sorted({cell.stage for cell in cells} - set(self.cohorts)):
            self._begin(stage, window)
        for cohort in self.cohorts.values():
            self._restart(cohort, self.hour(cohort, window))
        for stage, group in itertools.groupby(cells, key=lambda cell: cell.stage):
            self._cohort(self.cohorts[stage], list(group))
        if "version_reports" in self.weights:
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

    def hour(self, cohort: Cohort, window: int) -> int:
        """The hour of a cohort's life, of the plan, in which a window lies."""
        return (window - cohort.began) // self._windows_an_hour

    def _begin(self, stage: int, window: int) -> None:
        tests = self.hypotheses.tests()
        cohort = self.cohorts[stage] = Cohort(tests, began=window)
        cohort.bounds = {bound: BoundFold(bound.limit, floor=bound.floor) for bound in self.limits}
        cohort.bin_sums = {role: BinSums(len(shares)) for role, shares in self.expected.items()}
        if "treated" in self.expected:
            expected = self.expected["treated"]
            cohort.drifts = {each: DriftFold(expected, limit=each) for each in self.drift_limits}
        cohort.reverse = self.hypotheses.reversed(tests)

    @staticmethod
    def _restart(cohort: Cohort, hour: int) -> None:
        for tests in (cohort.tests, *cohort.classes.values()):
            if tests is not None:
                tests.begin(hour)

    def _cohort(self, cohort: Cohort, cells: list[Cell]) -> None:
        edges = [_edge(cohort, p) for p in self.hypotheses.quantiles.values()]
        large = cohort.class_sizes.large(cells[0].window - cohort.began)
        strata: dict[str | None, Strata] = {None: {}}  # of all devices, and by slice
        pairs: dict[str | None, PairsByStratum] = {None: {}}
        judged, chosen = self._judged, frozenset(self._judged)
        for cell in cells:
            control, stratum = cell.role == "control", stratum_of(cell, large)
            sums = self.layout.read(cell, edges)
            names = [name for name in cell.groups.values() if name in chosen]
            for name in (None, *names):
                group = strata.setdefault(name, {})
                pair = group.get(stratum)
                if pair is None:
                    pair = group[stratum] = self.layout.empty()
                arm = pair[control]
                for index, value in enumerate(sums):
                    arm[index] += value
                if cell.pairs:
                    merge_pairs(pairs.setdefault(name, {}), stratum, cell)
            cohort.totals[cell.role].add(cell)
            for name in names:
                cohort.class_totals[name, cell.role].add(cell)
        self._rates(cohort, strata, pairs, self.hour(cohort, cells[0].window))
        self._means(cohort, cells, judged, large)
        cohort.class_sizes.add(cells)
        for role, bins in cohort.bin_sums.items():
            units, predictions = predictions_of(cells, role)
            bins.add(units, predictions)
            if role == "treated":
                for fold in cohort.drifts.values():
                    fold.add(units, predictions)

    def _rates(
        self,
        cohort: Cohort,
        strata: dict[str | None, Strata],
        pairs: dict[str | None, PairsByStratum],
        hour: int,
    ) -> None:
        """A window's rates, of all devices and of the slices."""
        everyone = strata[None]
        if cohort.tests is None:
            return
        add_rates(cohort.tests, everyone, self.layout.compared)
        add_alike(cohort.tests, everyone, pairs[None], self.layout.alike)
        if cohort.reverse is not None:
            add_reverse(cohort.reverse, everyone, self.layout.reversed)
        for name in self._judged:
            tests = cohort.classes.get(name)
            if tests is None:
                tests = cohort.classes[name] = self.hypotheses.of_slice(cohort.tests)
                tests.begin(hour)
            if name in strata:
                add_rates(tests, strata[name], self.layout.by_class)
                add_alike(tests, strata[name], pairs.get(name, {}), self.layout.alike)
        cohort.crashes += [RateWindow(*sums) for sums in self.layout.arms(everyone, "crash")]

    def _means(self, cohort: Cohort, cells: list[Cell], judged: Sequence[str], large: frozenset[str]) -> None:
        reported = {name for cell in cells for name in cell.metrics}
        for name in self.hypotheses.means:
            if name not in reported or cohort.tests is None:
                continue
            strata, by_class = moments_of(cells, name, judged, large)
            tests = [(cohort.tests.means[name], strata)]
            if cohort.reverse is not None:
                tests.append((cohort.reverse.means[name], strata))
            if name in self.hypotheses.class_means:
                tests += [(cohort.classes[key].means[name], by_class[key]) for key in judged if key in by_class]
            for test, parts in tests:
                if test.fold.precision == 0 and (rho := self.hypotheses.rho(name, test.fold)) is not None:
                    test.rho = rho  # from earlier windows alone, and never changed once something was weighed
                test.fold.add(parts)
        for bound, limit in cohort.bounds.items():
            if bound.metric in reported:
                if limit.precision == 0 and (rho := self.hypotheses.rho(bound.metric, limit)) is not None:
                    cohort.bound_rhos[bound] = rho
                strata, _ = moments_of(cells, bound.metric, (), frozenset())
                limit.add(functools.reduce(MeanWindow.plus, strata))

    # --- the evidence ---

    def lanes(self, *, limit_ms: float | None) -> list[Lane]:
        """Every test that compares the arms, of all devices and of the slices.

        Tests that have not begun are at ln E = 0: an average must keep their weight. `limit_ms`: the limit of latency
        in force, if any. The limits of one sample and the failures are the gate's.
        """
        lanes: list[Lane] = []
        labels = self.slices or {}
        by_class = {*self.hypotheses.class_rates, *self.hypotheses.class_means}
        stages = len(self.plan.stages)
        for stage in range(stages):
            cohort = self.cohorts.get(stage)
            tests = cohort.tests if cohort else None
            for name in self._compared:
                key = _test_key(name, limit_ms)
                split = name in by_class and bool(labels)
                weight = self.weights[name] * cohort_share(stages, stage)
                log_e = tests.log_e(key) if tests else 0.0
                lanes.append(Lane(name, weight * (1 - CLASS_SHARE if split else 1), log_e, stage))
                for slices in labels.values() if split else ():
                    for each in slices:
                        of_slice = cohort.classes.get(each) if cohort else None
                        part = weight * CLASS_SHARE / len(labels) / len(slices)
                        lanes.append(Lane(name, part, of_slice.log_e(key) if of_slice else 0.0, stage, each))
        return lanes

    def recent(self, stage: int, name: str, *, hours: int) -> Recent | None:
        """What the last hours of a stage told of a rate, with the share of the budget that its copy has."""
        cohort = self.cohorts.get(stage)
        if cohort is None or cohort.tests is None:
            return None
        recent = cohort.tests.rates[name].recent(hours, hour=self.hour(cohort, self.last + 1))
        share = self.weights[name] * cohort_share(len(self.plan.stages), stage)
        split = bool(self.slices) and name in self.hypotheses.class_rates
        return _replace(recent, weight=recent.weight * share * (1 - CLASS_SHARE if split else 1))

    def leading_copy(
        self, stage: int, name: str, *, slice_name: str | None, limit_ms: float | None
    ) -> LeadingCopy | None:
        """The copy that carries most of the evidence of a test; None: that is the test which began with the stage.

        `slice_name`: the slice that the test is about, None for all devices. `limit_ms`: as in `lanes`.
        """
        cohort = self.cohorts.get(stage)
        tests = None if cohort is None else cohort.tests if slice_name is None else cohort.classes.get(slice_name)
        return tests.leading_copy(_test_key(name, limit_ms)) if tests is not None else None

    def hours_since(self, stage: int, hour: int) -> int:
        """How many hours of the plan, at least one, have passed since hour `hour` of a stage began."""
        windows = self.last + 1 - self.cohorts[stage].began - hour * self._windows_an_hour
        return max(1, round(windows / self._windows_an_hour))

    def bound_lanes(self, criteria: SuccessCriteria) -> list[Lane]:
        """The tests of the bounds of means, with those that `criteria` sets in force.

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
                lanes.append(Lane(name, self.weights[name] * cohort_share(len(self.plan.stages), stage), log_e))
        return lanes

    def drift(self, stage: int, role: str) -> float | None:
        """The index of an arm's predictions against its own version's reference; None where nothing can be said."""
        cohort = self.cohorts.get(stage)
        bins = cohort.bin_sums.get(role) if cohort else None
        return bins.index(self.expected[role]) if bins else None

    def drift_lanes(self, stage: int) -> list[Lane]:
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
            lanes.append(Lane("drift", self.weights["drift"] * cohort_share(len(self.plan.stages), number), log_e))
        return lanes


def _edge(cohort: Cohort, p: float) -> int | None:
    """The bucket of the control's p-quantile of latency in earlier windows; None where too few sessions were timed."""
    history = cohort.totals["control"]
    return history.quantile(p) if history.timed >= math.ceil(EDGE_HISTORY / (1 - p)) else None


def _test_key(name: str, limit_ms: float | None) -> str:
    return name if limit_ms is None or name != "latency_over" else over_limit(limit_ms)


def _is_compared(name: str) -> bool:
    """Whether a guardrail's test compares the arms, in every copy; a metric of the devices' own has no row and does."""
    return name not in MEASURES or isinstance(MEASURES[name].test, Rate | Mean | Quantile | OverLimit)
