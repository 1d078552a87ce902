"""The reports of the devices of many simulated rollouts, drawn window by window for all runs at once.

1. Devices that differ only by chance are drawn together as a group. How many devices of a group do something in a
   window is binomial, which is exact. A group shares stage, arm, hardware class, presence group and hours since
   activation.
2. A control takes its placebo after the same delay as a treated device its update. When a stage begins, the controls
   that become treated leave their cohorts.
3. A device that is a control of several stages is drawn anew for each stage: unlike in a real fleet, these cohorts do
   not share their chance.
4. A device with sessions in a window has one session that is timed (as the tally keeps one), and at most one whose
   answer is known to be right or wrong. Devices do not differ from one another, so no pairs of their windows are told.

Called by simulate_runs.py. The gate gets nothing but these reports.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whimbrel.flows.records import ModelSettings
from whimbrel.flows.reports.judge_silence import SILENCE_PERIODS
from whimbrel.forecast.cohort_sizes import CohortSizes
from whimbrel.forecast.effects import Effect
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.gate.batch_gate import Arm
from whimbrel.gate.guardrails import margins
from whimbrel.gate.verdict import Counts
from whimbrel.health.sketch import GAMMA, key_of
from whimbrel.health.tally import AGE_EDGES_H, Cell, Moments, age_bucket
from whimbrel.plan.plan import Plan

Array = NDArray[Any]
_AGES = len(AGE_EDGES_H) + 1
_LOWEST, _HIGHEST = -0.85, 3.3  # standard deviations between which latencies are told apart: below p50, beyond p99.9
_BUCKETS_MOST = 400


class Latency:
    """Sketch buckets as far apart as the plan's margins of latency, and the chance of each, with and without effect.

    The plan's first limit of latency is an edge; other limits are rounded to an edge.
    """

    def __init__(self, plan: Plan, fleet: FleetDescription, effect: Effect) -> None:
        self._fleet = fleet
        step = math.gcd(*margins(plan).slower.values()) or 1
        bounds = [bound for n in range(len(plan.stages)) if (bound := plan.criteria(n).latency_p99_max_ms) is not None]
        slow = effect.on("latency", plain=fleet.latency_ms)
        low = key_of(min(fleet.latency_ms, slow) * math.exp(_LOWEST * fleet.latency_spread))
        high = key_of(max(fleet.latency_ms, slow) * math.exp(_HIGHEST * fleet.latency_spread))
        near = [key_of(bound) for bound in bounds if low - 100 < key_of(bound) < high + 100]
        low, high = min([low, *near]), max([high, *near])
        aligned = key_of(bounds[0]) if bounds else low
        low -= (low - aligned) % step
        self.keys = np.arange(low, high + step, step)[:_BUCKETS_MOST]
        self.plain, self.slow = self._chances(fleet.latency_ms), self._chances(slow)

    def _chances(self, median: float) -> Array:
        edges = (self.keys * math.log(GAMMA) - math.log(median)) / max(self._fleet.latency_spread, 1e-9)
        below = np.array([0.5 * math.erfc(-edge / math.sqrt(2)) for edge in edges])
        chances = np.diff(below, prepend=0.0)
        chances[-1] = max(0.0, 1 - chances[:-1].sum())
        return np.asarray(chances / chances.sum())


class _CohortArm:
    """One arm of one cohort in all runs. Arrays of (runs, classes, groups)."""

    def __init__(self, shape: tuple[int, ...], edges: list[int], *, due_after: int) -> None:
        zeros = np.zeros(shape, dtype=np.int64)
        self.edges = edges  # windows after which a device is in the next age group
        self.waiting = zeros.copy()
        self.ages = np.zeros((_AGES, *shape), dtype=np.int64)  # alive, by hours since activation
        self.unheard = zeros.copy()
        self.joins: deque[Array] = deque(maxlen=max(edges[-1], due_after) + 1)  # of the alive, newest first
        self.dead: deque[Array] = deque(maxlen=due_after + 1)
        self.assigned, self.activated, self.reported, self.failed, self.went_back = (
            np.zeros(shape[0], dtype=np.int64) for _ in range(5)
        )

    def grow(self) -> None:
        """A window passes: devices that reach the age of an edge move to the next age group."""
        for group, edge in enumerate(self.edges, start=1):
            if edge <= len(self.joins):
                moved = self.joins[edge - 1]
                self.ages[group - 1] -= moved
                self.ages[group] += moved

    def thin(self, draw: np.random.Generator, stays: Array) -> None:
        """Each device stays with the chance `stays` (runs, classes, groups). The others are treated from now on."""
        if (stays >= 1).all():
            return
        self.waiting = draw.binomial(self.waiting, stays)
        self.unheard = draw.binomial(self.unheard, stays)
        for held in (self.joins, self.dead):
            for place, counts in enumerate(held):
                held[place] = draw.binomial(counts, stays)
        older = draw.binomial(self.ages[-1], stays)  # joined before what `joins` remembers
        self.ages[:] = 0
        for group, (low, high) in enumerate(itertools.pairwise([0, *self.edges])):
            for counts in list(self.joins)[low:high]:
                self.ages[group] += counts
        self.ages[-1] = older

    def stop(self, runs: Array) -> None:
        """Nothing more is drawn for these runs."""
        for array in (self.waiting, self.unheard, *self.joins, *self.dead):
            array[runs] = 0
        self.ages[:, runs] = 0


class SimulatedReports:
    """The reports of `runs` rollouts of one version."""

    def __init__(
        self,
        plan: Plan,
        fleet: FleetDescription,
        cohorts: CohortSizes,
        effect: Effect,
        *,
        runs: int,
        first: int,
        seed: list[int],
    ) -> None:
        self.plan, self.fleet, self.effect, self.runs = plan, fleet, effect, runs
        self.draw = np.random.default_rng(seed)
        fleets = (first + np.arange(runs)) % len(cohorts.treated)
        self._treated, self._control = cohorts.treated[fleets], cohorts.control[fleets]
        self.shares = cohorts.shares[fleets]
        self.latency = Latency(plan, fleet, effect)
        self.window_s = plan.window_s()
        self.classes = len(fleet.hardware)
        self._bad = np.array([effect.hardware in {None, name} for name in fleet.hardware])
        self._online = np.array([each.online for each in fleet.presence])
        hours = np.array([each.delay_h or math.inf for each in fleet.presence])
        self._joining = 1 - np.exp(-self.window_s / (3600 * hours))
        report_s = min(ModelSettings().report_s, self.window_s)  # as the policy says while a rollout is judged
        self._due_after = max(1, math.ceil(SILENCE_PERIODS * report_s / self.window_s))  # windows
        self._due_group = age_bucket(SILENCE_PERIODS * report_s, hour_s=3600.0)
        self.cohorts: dict[int, tuple[_CohortArm, _CohortArm]] = {}

    def enter(self, stage: int, runs: Array) -> None:
        """These runs (a mask) enter `stage`."""
        if stage not in self.cohorts:
            shape = (self.runs, self.classes, len(self._online))
            edges = [math.ceil(edge * 3600 / self.window_s) for edge in AGE_EDGES_H]
            arms = [_CohortArm(shape, edges, due_after=self._due_after) for _ in range(2)]
            self.cohorts[stage] = arms[0], arms[1]
        treated, control = self.cohorts[stage]
        treated.waiting[runs] = self._treated[runs, stage]
        control.waiting[runs] = self._control[runs, stage, stage]
        treated.assigned[runs] = treated.waiting[runs].sum(axis=(1, 2))
        control.assigned[runs] = control.waiting[runs].sum(axis=(1, 2))
        for earlier in range(stage):
            before = self._control[:, stage - 1, earlier]
            after = self._control[:, stage, earlier]
            stays = np.where(runs[:, None, None] & (before > 0), after / np.maximum(before, 1), 1.0)
            self.cohorts[earlier][1].thin(self.draw, np.minimum(stays, 1.0))

    def stop(self, runs: Array) -> None:
        """These runs are over: nothing more is drawn for them."""
        for sides in self.cohorts.values():
            for side in sides:
                side.stop(runs)

    def window(self, number: int) -> dict[int, tuple[Arm, Arm]]:
        """The reports of one window: both arms of every cohort that began in any run."""
        hour = (self.fleet.start_hour + (number + 0.5) * self.window_s / 3600) % 24
        uses_model = self.fleet.sessions(hour, window_s=self.window_s)
        made = {}
        for cohort, (treated, control) in sorted(self.cohorts.items()):
            ages = max(self._ages(treated), self._ages(control))
            made[cohort] = (
                self._arm(treated, uses_model, ages, effect=self.effect),
                self._arm(control, uses_model, ages, effect=None),
            )
        return made

    def _ages(self, side: _CohortArm) -> int:
        begun = sum(edge <= len(side.joins) for edge in side.edges)
        return max(begun, self._due_group) + 1

    def _rate(self, effect: Effect | None, metric: str, plain: float) -> Array:
        """The rate of each class."""
        worse = plain if effect is None else effect.on(metric, plain=plain)
        return np.where(self._bad, worse, plain)

    def _arm(self, side: _CohortArm, uses_model: float, ages: int, *, effect: Effect | None) -> Arm:
        draw, fleet = self.draw, self.fleet
        side.grow()
        at_risk = draw.binomial(side.ages[:ages], self._online).sum(axis=3).transpose(1, 0, 2)
        heard = draw.binomial(side.unheard, self._online)
        side.unheard -= heard
        side.reported += heard.sum(axis=(1, 2))
        active = draw.binomial(at_risk, uses_model)
        crashed = draw.binomial(active, self._rate(effect, "crash", fleet.crash))
        errors = draw.binomial(active, self._rate(effect, "error", fleet.error))
        labelled = draw.binomial(active, fleet.labelled)
        right = draw.binomial(labelled, self._rate(effect, "accuracy", fleet.accuracy))
        due, overdue = np.zeros_like(at_risk), np.zeros_like(at_risk)
        if len(side.joins) >= self._due_after:
            alive, dead = side.joins[self._due_after - 1], side.dead[self._due_after - 1]
            late = draw.binomial(alive, (1 - self._online) ** self._due_after)
            due[:, self._due_group] = (alive + dead).sum(axis=2)
            overdue[:, self._due_group] = (late + dead).sum(axis=2)
        latency = self._timed(active, slower=effect is not None and effect.metric == "latency")
        self._join(side, effect)
        return Arm(
            at_risk=at_risk,
            crashed=crashed,
            error_share=errors,
            due=due,
            overdue=overdue,
            accuracy_n=labelled,
            accuracy_sum=right,
            accuracy_sumsq=right,
            latency=latency,
            error_units=active,
        )

    def _timed(self, active: Array, *, slower: bool) -> Array:
        if not slower:
            return np.asarray(self.draw.multinomial(active.sum(axis=2), self.latency.plain))
        bad = self.draw.multinomial(active[:, :, self._bad].sum(axis=2), self.latency.slow)
        rest = self.draw.multinomial(active[:, :, ~self._bad].sum(axis=2), self.latency.plain)
        return np.asarray(bad + rest)

    def _join(self, side: _CohortArm, effect: Effect | None) -> None:
        """Let devices activate in this window. They report from the next window on."""
        draw = self.draw
        new = draw.binomial(side.waiting, self._joining)
        side.waiting -= new
        dead = np.zeros_like(new)
        if effect is not None:
            failed = draw.binomial(new, self._rate(effect, "install_failed", self.fleet.install_failed)[:, None])
            new -= failed
            side.failed += failed.sum(axis=(1, 2))
            side.activated += new.sum(axis=(1, 2))
            dead = draw.binomial(new, self._rate(effect, "bricked", 0.0)[:, None])
            new -= dead
            side.went_back += draw.binomial(new, self._rate(effect, "went_back", 0.0)[:, None]).sum(axis=(1, 2))
        else:
            side.activated += new.sum(axis=(1, 2))
        side.joins.appendleft(new)
        side.dead.appendleft(dead)
        side.ages[0] += new
        side.unheard += new

    # --- counts of each run ---

    def exposed(self) -> Array:
        """How many devices have run the new version, by run."""
        return np.asarray(sum(treated.activated for treated, _ in self.cohorts.values()))

    def failures(self) -> tuple[Array, Array, Array]:
        """How many devices failed or went back, how many tried, and how many went back, by run."""
        treated = [side for side, _ in self.cohorts.values()]
        failed, went_back = sum(s.failed for s in treated), sum(s.went_back for s in treated)
        return np.asarray(failed + went_back), np.asarray(failed + self.exposed()), np.asarray(went_back)

    def counts(self, run: int, *, stage: int) -> dict[int, Counts]:
        """The server's counts of one run's devices, by stage."""
        made = {}
        for cohort, (t, c) in self.cohorts.items():
            if cohort <= stage:
                made[cohort] = Counts(
                    assigned_t=int(t.assigned[run]),
                    assigned_c=int(c.assigned[run]),
                    activated_t=int(t.activated[run]),
                    placebo_c=int(c.activated[run]),
                    reported_t=int(t.reported[run]),
                    reported_c=int(c.reported[run]),
                    failed_t=int(t.failed[run]),
                    went_back_t=int(t.went_back[run]),
                )
        return made

    def cells(self, number: int, cohorts: dict[int, tuple[Arm, Arm]], run: int, *, stage: int) -> Iterator[Cell]:
        """One run's window in the server's form. The latencies of an age group are kept with its first class."""
        names = list(self.fleet.hardware)
        for cohort, arms in cohorts.items():
            if cohort > stage:
                continue
            for role, arm in zip(("treated", "control"), arms, strict=True):
                for age in range(arm.at_risk.shape[1]):
                    (places,) = np.nonzero(arm.latency[run, age])
                    timed = {int(self.latency.keys[k]): int(arm.latency[run, age, k]) for k in places}
                    for index, name in enumerate(names):
                        at = (run, age, index)
                        if arm.at_risk[at] or arm.due[at] or (timed and index == 0):
                            key = {"stage": cohort, "window": number, "role": role, "hardware_class": name}
                            yield _cell(arm, at, key=key, latency=timed if index == 0 else {})


def _cell(arm: Arm, at: tuple[int, int, int], *, key: dict[str, Any], latency: dict[int, int]) -> Cell:
    n = int(arm.accuracy_n[at])
    moments = Moments(n=n, sum=float(arm.accuracy_sum[at]), sumsq=float(arm.accuracy_sumsq[at]))
    active = 0 if arm.error_units is None else int(arm.error_units[at])
    return Cell(
        **key,
        age_bucket=at[1],
        at_risk=int(arm.at_risk[at]),
        sessions=active,
        unused=int(arm.at_risk[at]) - active,
        crashed=int(arm.crashed[at]),
        error_units=active,
        error_share=float(arm.error_share[at]),
        error_squares=float(arm.error_share[at]),  # each share is 0 or 1
        due=int(arm.due[at]),
        overdue=int(arm.overdue[at]),
        metrics={"accuracy": moments} if n else {},
        latency=latency,
    )
