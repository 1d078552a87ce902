"""Simulate many rollouts at once and let the gate judge them: in arrays, and the first one through the gate itself.

1. `BatchLedger` folds the evidence of all runs; a test holds it equal to the gate's ledger. The first run also goes
   window by window through `judge`, and the greatest difference between the two is reported.
2. A run advances when the gate says so: `judge` gets the run's sums when its stage has soaked. The sums of its two arms
   are given as two windows. Nothing is compared across windows, so the evidence stays that of `BatchLedger`.
3. A run that holds is judged again every hour. A run that lasts a day longer than its plan counts as held.

Called by forecast.py, in several processes.
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.forecast.cohort_sizes import CohortSizes
from whimbrel.forecast.effects import Effect
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.forecast.simulated_reports import SimulatedReports
from whimbrel.gate.batch_gate import Arm, BatchLedger
from whimbrel.gate.gate import judge
from whimbrel.gate.kill_switch import stops
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput, Verdict
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.measures import Severity
from whimbrel.plan.plan import Plan

Array = NDArray[Any]
_PATIENCE_H = 24.0
_JUDGE_AGAIN_S = 3600.0
_NEVER = -1
ACTING: tuple[Severity, ...] = ("rollback", "hold")  # whose proof stops a rollout
KILL_SWITCH = "kill switch"  # devices that went back by themselves


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Some runs of one effect. `through_gate`: the first of them goes through the gate itself."""

    plan: Plan
    fleet: FleetDescription
    cohorts: CohortSizes
    effect: Effect
    first: int
    runs: int
    seed: list[int]
    through_gate: bool
    unproven_s: tuple[float, ...] = ()  # of each stage: how long proof takes beyond the soak (`when_proven`)


class RunResults(msgspec.Struct):
    """The results of some runs. Windows count from the start; -1: never."""

    caught: Array  # (runs,) the window whose verdict took the version back
    harm: list[str]  # (runs,) the guardrail that carried most of that verdict's evidence, or KILL_SWITCH; "" for none
    finished: Array  # (runs,) the window after which the rollout was complete
    entered: Array  # (runs, stages)
    exposed: Array  # (runs,) devices that had run the version when it was caught, or at the end
    exposed_by_window: Array  # (windows,) the same, of the first run
    log_e: Array  # (windows, 3): the 10%, 50% and 90% quantiles of the runs' ln E
    move: str  # the first run's last move, and the gate's sentence
    because: str
    held: dict[str, int]  # why runs held, and how many
    gap: float | None  # the greatest difference of ln E between the gate and the arrays, in the first run
    unwatched: tuple[str, ...]
    windows: int  # simulated


def horizon(plan: Plan) -> int:
    """After how many windows a run that still holds ends. Raises `Refused` for more windows than can be simulated."""
    hours = sum(stage.duration_hours for stage in plan.stages) + _PATIENCE_H
    windows = math.ceil(hours * 3600 / plan.window_s()) + len(plan.stages)
    if windows > limits.FORECAST_WINDOWS:
        raise Refused(
            f"the plan has {windows} windows of {plan.window_s():g} s; at most {limits.FORECAST_WINDOWS} are "
            "simulated: forecast with a longer rollback.health_check_interval_sec"
        )
    return windows


def simulate_runs(task: Task, tick: Callable[[int, int], None] | None = None) -> RunResults:
    """Simulate the runs to their ends. `tick`: called with the number of windows that are done, and the greatest."""
    runs = _Runs(task)
    last = horizon(task.plan)
    for window in range(last):
        runs.simulate(window)
        if tick is not None:
            tick(window + 1, last)
        if not runs.live.any():
            break
    return runs.results()


class _Runs:
    """The runs side by side: the stage of each, and its results so far."""

    def __init__(self, task: Task) -> None:
        self.task, runs, stages = task, task.runs, len(task.plan.stages)
        self.reports = SimulatedReports(
            task.plan, task.fleet, task.cohorts, task.effect, runs=runs, first=task.first, seed=task.seed
        )
        self.ledger = BatchLedger(
            task.plan, runs=runs, classes=len(task.fleet.hardware), keys=self.reports.latency.keys
        )
        self.sums = _Sums(runs, stages, len(self.reports.latency.keys))
        self.gate_ledger = Ledger(task.plan) if task.through_gate else None
        self.needed = math.log(1 / task.plan.alpha)
        self.all_act = "warn" not in self.ledger.severities.values()
        self.live = np.ones(runs, dtype=bool)
        self.stage, self.gate_stage, self.stage_since, self.judge_again = (
            np.zeros(runs, dtype=np.int64) for _ in range(4)
        )
        self.caught, self.finished = (np.full(runs, _NEVER) for _ in range(2))
        self.harm = [""] * runs
        self.entered = np.full((runs, stages), _NEVER)
        self.entered[:, 0] = 0
        self.exposed = np.zeros(runs, dtype=np.int64)
        self.path: list[Array] = []
        self.exposed_by_window: list[int] = []
        self.reasons: dict[int, str] = {}
        self.verdict: Verdict | None = None
        self.gap = 0.0 if task.through_gate else None
        self.reports.enter(0, self.live)

    def simulate(self, window: int) -> None:
        """One window: devices report, the evidence grows, runs advance or end."""
        cohorts = self.reports.window(window)
        for stage, arms in cohorts.items():  # a stage begins for the gate with its first reports
            reports = sum((arm.at_risk + arm.due).sum(axis=(1, 2)) for arm in arms)
            self.gate_stage = np.where((self.stage >= stage) & (np.asarray(reports) > 0), stage, self.gate_stage)
        self.ledger.fold(cohorts, entered=self.gate_stage)
        self.sums.add(cohorts)
        failures, attempts, went_back = self.reports.failures()
        log_e = self.ledger.log_e(failures=failures, attempts=attempts)
        stopping = log_e if self.all_act else self.ledger.log_e(*ACTING, failures=failures, attempts=attempts)
        self.path.append(np.quantile(stopping, [0.1, 0.5, 0.9]))
        self.exposed = np.where(self.live, self.reports.exposed(), self.exposed)
        self.exposed_by_window.append(int(self.exposed[0]))
        tried = self.reports.exposed()
        killed = np.array([stops(int(gone), int(of)) for gone, of in zip(went_back, tried, strict=True)])
        bad = self.live & ((stopping >= self.needed) | killed)
        judged = (
            self._judge_first(window, cohorts, float(log_e[0]))
            if self.gate_ledger is not None and self.live[0]
            else None
        )
        if judged is not None:
            bad[0] = bool(killed[0]) or _proven(judged, self.needed)
        self.caught[bad] = window
        if bad.any():
            kinds = () if self.all_act else ACTING
            leads = self.ledger.leads(*kinds, failures=failures, attempts=attempts)
            for run in np.flatnonzero(bad):
                self.harm[int(run)] = KILL_SWITCH if killed[run] else leads[run]
        self._end(bad)
        self._advance(window, judged)

    def _judge_first(self, window: int, cohorts: dict[int, tuple[Arm, Arm]], log_e: float) -> Verdict:
        stage = int(self.stage[0])
        cells = tuple(self.reports.cells(window, cohorts, 0, stage=stage))
        self.verdict = judge(self.task.plan, self._gate_input(0, window, cells), self.gate_ledger)
        if self.gap is not None:
            self.gap = max(self.gap, abs(self.verdict.evidence["log_e"] - log_e))
        return self.verdict

    def _gate_input(self, run: int, window: int, cells: tuple[Cell, ...]) -> GateInput:
        stage = int(self.stage[run])
        return GateInput(
            stage=stage,
            soaked_s=self._soaked_s(run, window),
            cells=cells,
            counts=self.reports.counts(run, stage=stage),
            shares=tuple(int(share) for share in self.reports.shares[run, : stage + 1]),
        )

    def _soaked_s(self, run: int, window: int) -> float:
        return float(window + 1 - self.stage_since[run]) * self.reports.window_s

    def _end(self, runs: Array) -> None:
        if runs.any():
            self.live &= ~runs
            self.reports.stop(runs)

    def _advance(self, window: int, judged: Verdict | None) -> None:
        """Judge every run whose stage has soaked. A run that advances enters its next stage in the next window."""
        entering: dict[int, list[int]] = {}
        ended = np.zeros(self.task.runs, dtype=bool)
        for run in np.flatnonzero(self.live):
            verdict = judged if run == 0 and judged is not None else self._judge_soaked(int(run), window)
            if verdict is None or verdict.move == "wait":
                continue
            if verdict.move == "hold":
                self.reasons[int(run)] = verdict.because
                self.judge_again[run] = window + math.ceil(_JUDGE_AGAIN_S / self.reports.window_s)
            elif verdict.move == "advance":
                entering.setdefault(int(self.stage[run]) + 1, []).append(int(run))
            elif verdict.move == "finish":
                self.finished[run], ended[run] = window, True
            else:  # one sample proves that a limit is broken; the ledger would prove it later from the same sums
                self.caught[run], ended[run] = window, True
                carried: dict[str, float] = verdict.evidence["guardrails"]
                self.harm[int(run)] = max(sorted(carried), key=carried.__getitem__)
        self._end(ended)
        for stage, runs in sorted(entering.items()):
            chosen = np.zeros(self.task.runs, dtype=bool)
            chosen[runs] = True
            self.stage[chosen], self.stage_since[chosen] = stage, window + 1
            self.entered[chosen, stage] = window + 1
            self.reasons = {run: reason for run, reason in self.reasons.items() if not chosen[run]}
            self.reports.enter(stage, chosen)

    def _judge_soaked(self, run: int, window: int) -> Verdict | None:
        """The verdict on a run from its sums. None before its stage has soaked, and before it is judged again."""
        plan, stage = self.task.plan, int(self.stage[run])
        soak_s = plan.stages[stage].duration_hours * 3600
        if plan.promote == "when_proven":
            if self._soaked_s(run, window) >= soak_s:
                self.reasons[run] = "it is not proven yet to be within the margins (when_proven)"
            soak_s += self.task.unproven_s[stage] if self.task.unproven_s else 0.0
            plan = msgspec.structs.replace(plan, promote="when_no_harm")
        if self._soaked_s(run, window) < soak_s or window < self.judge_again[run]:
            return None
        cells = self.sums.cells(run, stage=stage, keys=self.reports.latency.keys)
        return judge(plan, self._gate_input(run, window, cells))

    def results(self) -> RunResults:
        held: dict[str, int] = {}
        for run in np.flatnonzero(self.live):
            reason = self.reasons.get(int(run), "its last stage still soaks")
            held[reason] = held.get(reason, 0) + 1
        return RunResults(
            caught=self.caught,
            harm=self.harm,
            finished=self.finished,
            entered=self.entered,
            exposed=self.exposed,
            exposed_by_window=np.array(self.exposed_by_window),
            log_e=np.array(self.path),
            move=self.verdict.move if self.verdict else "",
            because=self.verdict.because if self.verdict else "",
            held=held,
            gap=self.gap,
            unwatched=self.ledger.unwatched,
            windows=len(self.path),
        )


def _proven(verdict: Verdict, needed: float) -> bool:
    """Whether harm is proven. Such a verdict may be a hold, where the plan leaves the decision to a person."""
    evidence = verdict.evidence
    proven = evidence["log_e"] >= needed and evidence.get("severity") != "warn"
    return verdict.move in {"roll_back", "slice_back"} or proven


_SUMMED = ("at_risk", "error_units", "crashed", "error_share", "due", "overdue", "accuracy_n", "accuracy_sum")


class _Sums:
    """The sums of both arms of every cohort, by run: the gate makes its estimates from them."""

    def __init__(self, runs: int, stages: int, keys: int) -> None:
        self.counts = {name: np.zeros((stages, 2, runs), dtype=np.int64) for name in _SUMMED}
        self.latency = np.zeros((stages, 2, runs, keys), dtype=np.int64)

    def add(self, cohorts: dict[int, tuple[Arm, Arm]]) -> None:
        for cohort, arms in cohorts.items():
            for side, arm in enumerate(arms):
                for name, counts in self.counts.items():
                    counts[cohort, side] += arm.sums(name).sum(axis=(1, 2))
                self.latency[cohort, side] += arm.latency.sum(axis=1)

    def cells(self, run: int, *, stage: int, keys: Array) -> tuple[Cell, ...]:
        """The sums of a run. Each arm has a window of its own."""
        cells = []
        for cohort in range(stage + 1):
            for side, role in enumerate(("treated", "control")):
                sums = {name: int(counts[cohort, side, run]) for name, counts in self.counts.items()}
                n, right = sums["accuracy_n"], float(sums["accuracy_sum"])
                row = self.latency[cohort, side, run]
                cells.append(
                    Cell(
                        stage=cohort,
                        window=side,
                        role=role,  # type: ignore[arg-type]
                        at_risk=sums["at_risk"],
                        sessions=sums["error_units"],
                        unused=sums["at_risk"] - sums["error_units"],
                        crashed=sums["crashed"],
                        error_units=sums["error_units"],
                        error_share=float(sums["error_share"]),
                        due=sums["due"],
                        overdue=sums["overdue"],
                        metrics={"accuracy": Moments(n=n, sum=right, sumsq=right)} if n else {},
                        latency={int(keys[k]): int(row[k]) for k in np.flatnonzero(row)},
                    )
                )
        return tuple(cells)
