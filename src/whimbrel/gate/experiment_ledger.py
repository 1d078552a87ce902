"""Everything the windows of an experiment add up to: by arm, its guardrails and its metrics against the control's.

1. A window is folded once, in order. An arm and the control's cells of its stage go together, so arms tell nothing of
   one another.
2. An arm's slices that went back (`without`) are left out of all its sums from the first window on, and of its
   control's: what is left was drawn by the same buckets, and is compared like with like.
3. A guardrail of the app's own has half of its budget on all devices together and half evenly on the slices that the
   arm's gate judges, as the gate's rates have.
4. Mixture parameters are fixed when they are first known, and what fixed one is not looked at itself.
5. Where `cluster` devices count as one, a variance is multiplied by it, and a bet's logarithm divided by it.

Called by the gate of experiments. Needs numpy; nothing that a device imports imports this.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from whimbrel.gate.differences import Difference, adjusted, correlation, difference, half_width, slope, two_sided_rho
from whimbrel.gate.evidence import GAINS
from whimbrel.gate.guardrails import CLASS_SHARE
from whimbrel.gate.ledger import Ledger
from whimbrel.health.panel import LEAST_DEVICES, Panel
from whimbrel.health.tally import Cell
from whimbrel.plan.experiment import Experiment


class Look(msgspec.Struct, frozen=True):
    """An arm against the control after a window: an estimate and its interval. Of `crash_rate`: the rates' ratio."""

    estimate: float
    low: float
    high: float


class ArmNow(msgspec.Struct):
    """What is known of an arm's primary metric: the look that decides, and the plain one beside it."""

    deciding: Look | None = None
    plain: Look | None = None
    theta: float = 0.0
    explained: float = 0.0  # the share of the variance between devices that what they were before explains


class _Compared:
    """One metric of one arm against the control, window by window: mixture parameters are fixed when first known."""

    def __init__(self, *, alpha: float, sample: float, cluster: float) -> None:
        self.alpha, self.sample, self.cluster = alpha, sample, cluster
        self.rhos: dict[str, float] = {}
        self.theta: float | None = None

    def look(self, treated: Panel, control: Panel) -> ArmNow:
        if min(treated.n, control.n) < LEAST_DEVICES * self.cluster:
            return ArmNow()
        theta = self.theta
        plain = difference(treated, control)
        settled = adjusted(treated, control, theta=theta) if theta is not None else None
        # theta of the next window: this one's sums are then earlier ones.
        self.theta = slope([treated, control])
        devices = treated.n + control.n
        return ArmNow(
            deciding=self._interval("deciding", settled or plain, devices),
            plain=self._interval("plain", plain, devices),
            theta=theta if settled is not None and theta is not None else 0.0,
            explained=correlation([treated, control]) ** 2 if settled is not None else 0.0,
        )

    def _interval(self, name: str, estimate: Difference | None, devices: int) -> Look | None:
        if estimate is None:
            return None
        estimate = msgspec.structs.replace(estimate, variance=estimate.variance * self.cluster)
        rho = self.rhos.get(name)
        if rho is None:
            # Tightest at about the sample that is asked for; what fixed it is not looked at itself.
            v_opt = estimate.information * max(1.0, self.sample / devices)
            self.rhos[name] = two_sided_rho(v_opt=v_opt, alpha=self.alpha)
            return None
        width = half_width(estimate, rho=rho, alpha=self.alpha)
        return Look(estimate.estimate, estimate.estimate - width, estimate.estimate + width)


class ExperimentLedger:
    """Everything an experiment's windows add up to. `without`: by arm, its slices that went back.

    `guards`: of each arm, the looks at the app's own guardrails; `slice_guards`: the same by (guardrail, slice).
    """

    def __init__(self, plan: Experiment, *, without: Mapping[str, Sequence[str]] = {}) -> None:
        self.plan = plan
        self.without = {arm: frozenset(slices) for arm, slices in without.items() if slices}
        self.last = -1
        self.windows = 0
        self.ledgers = [
            Ledger(plan.guard_plan(variant), without=self.without.get(variant.id, ()), cluster=plan.cluster)
            for variant in plan.treated
        ]
        self.slice_panels: list[dict[tuple[str, str, str], Panel]] = [{} for _ in plan.treated]  # slice, role, metric
        self.panels: dict[tuple[int, str, str], Panel] = {}  # arm's place, role, metric
        self.arms = [ArmNow() for _ in plan.treated]
        self.guards: list[dict[str, Look]] = [{} for _ in plan.treated]
        self.history: list[tuple[int, int, ArmNow]] = []  # window, arm's place, what was known then
        self.slice_guards: list[dict[tuple[str, str], Look]] = [{} for _ in plan.treated]
        self._crashes = [_Crashes(cluster=plan.cluster) for _ in plan.treated]
        self._primary = [self._compared(plan.arm_alpha) for _ in plan.treated]
        self._own: list[dict[tuple[str, str | None], _Compared]] = [{} for _ in plan.treated]

    def _compared(self, alpha: float, *, share: float = 1.0) -> "_Compared":
        """A test of one metric. `share`: of the sample that is asked for, which the tested devices are."""
        sample = share * self.plan.minimum_sample_size
        return _Compared(alpha=alpha, sample=sample, cluster=self.plan.cluster)

    def fold(self, cells: Iterable[Cell]) -> None:
        """Closed windows, in order; each is folded once."""
        for window, group in itertools.groupby(cells, key=lambda cell: cell.window):
            if window <= self.last:
                continue
            self.last = window
            self.windows += 1
            self._window(window, list(group))

    def _window(self, window: int, cells: list[Cell]) -> None:
        for place, ledger in enumerate(self.ledgers):
            gone = self.without.get(self.plan.treated[place].id, frozenset())
            of_arm = [cell for cell in cells if cell.stage == place and gone.isdisjoint(cell.groups.values())]
            if not of_arm:
                continue
            ledger.fold([msgspec.structs.replace(cell, stage=0) for cell in of_arm])
            for cell in of_arm:
                for metric, change in cell.panels.items():
                    key = place, cell.role, metric
                    self.panels[key] = self.panels.get(key, Panel()).plus(change)
            self._slices(place, of_arm)
            self._crashes[place].add(of_arm)
            self._look(window, place)

    def _slices(self, place: int, cells: Sequence[Cell]) -> None:
        """The own guardrails' sums by slice: of all slices until it is known which are judged, then of these."""
        own, panels = {guard.name for guard in self.plan.own_guardrails}, self.slice_panels[place]
        for cell in cells:
            for metric in own & cell.panels.keys():
                for name in cell.groups.values():
                    key = name, cell.role, metric
                    panels[key] = panels.get(key, Panel()).plus(cell.panels[metric])
        if self.ledgers[place].slices is not None:
            judged = {name for names in self.judged_slices(place).values() for name in names}
            self.slice_panels[place] = {key: panel for key, panel in panels.items() if key[0] in judged}

    def judged_slices(self, place: int) -> Mapping[str, tuple[str, ...]]:
        """The slices that an arm's gate judges, by label."""
        return self.ledgers[place].slices or {}

    def _look(self, window: int, place: int) -> None:
        name = self.plan.primary.name
        if self.plan.primary.is_ratio:
            look = self._crashes[place].look(alpha=self.plan.arm_alpha)
            now = ArmNow(deciding=look, plain=look)
        else:
            now = self._primary[place].look(self.panel(place, "treated", name), self.panel(place, "control", name))
        self.arms[place] = now
        self.history.append((window, place, now))
        if self.ledgers[place].slices is not None:  # how the budget is shared is known
            for guard in self.plan.own_guardrails:
                self._look_at_guard(place, guard.name)

    def _look_at_guard(self, place: int, metric: str) -> None:
        slices = [name for names in self.judged_slices(place).values() for name in names]
        budget, own = self.plan.own_guard_alpha(), self._own[place]
        if (metric, None) not in own:
            own[metric, None] = self._compared(budget * (1 - CLASS_SHARE if slices else 1))
            for name in slices:
                own[metric, name] = self._compared(budget * CLASS_SHARE / len(slices), share=1 / len(slices))
        whole = own[metric, None].look(self.panel(place, "treated", metric), self.panel(place, "control", metric))
        if whole.deciding is not None:
            self.guards[place][metric] = whole.deciding
        for name in slices:
            treated, control = (self.slice_panel(place, name, role, metric) for role in ("treated", "control"))
            of_slice = own[metric, name].look(treated, control)
            if of_slice.deciding is not None:
                self.slice_guards[place][metric, name] = of_slice.deciding

    def slice_panel(self, place: int, name: str, role: str, metric: str) -> Panel:
        """The present sums of an own guardrail in one slice."""
        return self.slice_panels[place].get((name, role, metric), Panel())

    def panel(self, place: int, role: str, metric: str) -> Panel:
        """The present sums of a metric."""
        return self.panels.get((place, role, metric), Panel())

    def rates(self, place: int) -> tuple[float | None, float | None]:
        """The crash rates of an arm and of its control."""
        return self._crashes[place].rates


class _Crashes:
    """Crashes of an arm and its control, by window and age: the confidence set of the ratio of the rates."""

    def __init__(self, *, cluster: float) -> None:
        self._cluster = cluster
        self._rows: list[tuple[float, float, float, float]] = []

    def add(self, cells: Sequence[Cell]) -> None:
        ages: dict[int, list[float]] = {}
        for cell in cells:
            sums = ages.setdefault(cell.age_bucket, [0.0] * 4)
            first = 0 if cell.role == "treated" else 2
            sums[first] += cell.crashed
            sums[first + 1] += cell.at_risk
        self._rows += [(a, b, c, d) for _, (a, b, c, d) in sorted(ages.items()) if b > 0 and d > 0]

    @property
    def rates(self) -> tuple[float | None, float | None]:
        x_t, e_t, x_c, e_c = (sum(row[index] for row in self._rows) for index in range(4))
        return (x_t / e_t if e_t else None), (x_c / e_c if e_c else None)

    def look(self, *, alpha: float) -> Look | None:
        treated, control = self.rates
        if not self._rows or treated is None or control is None or not treated + control:
            return None
        low, high = ratio_set(np.array(self._rows) / self._cluster, alpha=alpha / 2)  # two ends, each at half
        return Look(treated / control if control else math.inf, low, high)


def ratio_set(rows: "np.ndarray[Any, Any]", *, alpha: float) -> tuple[float, float]:
    """The ends of the confidence set of the rate ratio, each at `alpha`: `evidence.ratio_bounds` over arrays.

    `rows`: events and exposure of T, events and exposure of C, one window and stratum a row.
    """
    gains = np.array(GAINS)
    threshold = math.log(1 / alpha)

    def edge(x_t: Any, e_t: Any, x_c: Any, e_c: Any) -> float:
        def refuted(log_ratio: float) -> bool:
            null = math.exp(log_ratio) * e_t
            share = null / (null + e_c)
            logs = x_t.sum() * np.log(gains) - ((x_t + x_c)[:, None] * np.log1p(share[:, None] * (gains - 1))).sum(
                axis=0
            )
            top = float(logs.max())
            return top + math.log(float(np.exp(logs - top).mean())) >= threshold

        low, high = math.log(1e-4), math.log(1e4)
        if not refuted(low):
            return 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if refuted(middle) else (low, middle)
        return math.exp(low)

    x_t, e_t, x_c, e_c = rows.T
    above = edge(x_c, e_c, x_t, e_t)
    return edge(x_t, e_t, x_c, e_c), (1 / above if above else math.inf)
