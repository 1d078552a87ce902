"""What does the gate make of simulated rollouts? Many at once in arrays, the first of them through the gate itself.

1. Evidence of all runs is folded by `BatchLedger`, which a test holds equal to the gate's. The first run goes window by
   window through `judge`, and the greatest difference between the two is kept and told.
2. A run moves on when the gate says so: `judge` is asked about its sums when its stage has soaked. Its two arms are
   given in two windows, which compares nothing, so that evidence stays what `BatchLedger` found.
3. A run that holds is asked again every hour; after a day beyond the plan's own time it counts as held.
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.forecast.effects import Effect
from whimbrel.forecast.headcount import Headcount
from whimbrel.forecast.shape import Shape
from whimbrel.forecast.streams import Streams
from whimbrel.gate.batch_gate import Arm, BatchLedger
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import KILL_LEAST, KILL_SHARE
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput, Verdict
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.plan import Plan

Array = NDArray[Any]
_PATIENCE_H = 24.0
_ASK_AGAIN_S = 3600.0
_NEVER = -1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Some runs of one effect. `real`: the first of them goes through the gate itself."""

    plan: Plan
    shape: Shape
    head: Headcount
    effect: Effect
    first: int
    runs: int
    seed: list[int]
    real: bool
    unproven_s: tuple[float, ...] = ()  # of each stage: what proof takes beyond the soak (`when_proven`)


class Played(msgspec.Struct):
    """What became of some runs. Windows count from the start; -1: never."""

    caught: Array  # (runs,) the window whose verdict took it back
    finished: Array
    entered: Array  # (runs, stages)
    exposed: Array  # (runs,) devices that had the version when it was caught, or at the end
    harmed: Array  # (windows,) of the first run: devices that have had the version
    log_e: Array  # (windows, 3): the 10%, 50% and 90% quantiles of the runs' ln E
    moved: str  # the first run's last move, and the gate's sentence
    because: str
    held: dict[str, int]  # why runs held, and how many
    gap: float | None  # the greatest difference of ln E between the gate and the arrays, in the first run
    unwatched: tuple[str, ...]
    windows: int  # simulated


def horizon(plan: Plan) -> int:
    """Windows until a run that still holds is given up. Raises `Refused` for more than can be simulated."""
    hours = sum(stage.duration_hours for stage in plan.stages) + _PATIENCE_H
    windows = math.ceil(hours * 3600 / plan.window_s()) + len(plan.stages)
    if windows > limits.FORECAST_WINDOWS:
        raise Refused(
            f"the plan has {windows} windows of {plan.window_s():g} s; at most {limits.FORECAST_WINDOWS} are "
            "simulated: forecast with a longer rollback.health_check_interval_sec"
        )
    return windows


def play(task: Task, tick: Callable[[int, int], None] | None = None) -> Played:
    """Play the runs to their ends. `tick`: called with the windows that are done, and all there may be."""
    rollouts = _Rollouts(task)
    last = horizon(task.plan)
    for window in range(last):
        rollouts.step(window)
        if tick is not None:
            tick(window + 1, last)
        if not rollouts.live.any():
            break
    return rollouts.done()


class _Rollouts:
    """The runs side by side: where each stands, and what was seen of it."""

    def __init__(self, task: Task) -> None:
        self.task, runs, stages = task, task.runs, len(task.plan.stages)
        self.streams = Streams(
            task.plan, task.shape, task.head, task.effect, runs=runs, first=task.first, seed=task.seed
        )
        self.batch = BatchLedger(task.plan, runs=runs, classes=len(task.shape.hardware), keys=self.streams.latency.keys)
        self.sums = _Sums(runs, stages, len(self.streams.latency.keys))
        self.gate = Ledger(task.plan) if task.real else None
        self.needed = math.log(1 / task.plan.alpha)
        self.plain = "warn" not in self.batch.severities.values()
        self.live = np.ones(runs, dtype=bool)
        self.stage, self.begun, self.since, self.ask = (np.zeros(runs, dtype=np.int64) for _ in range(4))
        self.caught, self.finished = (np.full(runs, _NEVER) for _ in range(2))
        self.entered = np.full((runs, stages), _NEVER)
        self.entered[:, 0] = 0
        self.exposed = np.zeros(runs, dtype=np.int64)
        self.path: list[Array] = []
        self.reached: list[int] = []
        self.why: dict[int, str] = {}
        self.verdict: Verdict | None = None
        self.gap = 0.0 if task.real else None
        self.streams.enter(0, self.live)

    def step(self, window: int) -> None:
        """One window: what is reported, what is proven, who moves on."""
        cohorts = self.streams.window(window)
        for stage, arms in cohorts.items():  # a stage begins for the gate when it is first heard of
            heard = sum((arm.at_risk + arm.due).sum(axis=(1, 2)) for arm in arms)
            self.begun = np.where((self.stage >= stage) & (np.asarray(heard) > 0), stage, self.begun)
        self.batch.fold(cohorts, entered=self.begun)
        self.sums.add(cohorts)
        failures, attempts, went = self.streams.failures()
        log_e = self.batch.log_e(failures=failures, attempts=attempts)
        stopping = log_e if self.plain else self.batch.log_e("rollback", "hold", failures=failures, attempts=attempts)
        self.path.append(np.quantile(stopping, [0.1, 0.5, 0.9]))
        self.exposed = np.where(self.live, self.streams.exposed(), self.exposed)
        self.reached.append(int(self.exposed[0]))
        tried = self.streams.exposed()
        killed = (went > 0) & ((went >= np.maximum(KILL_LEAST, np.ceil(KILL_SHARE * tried))) | (tried == 1))
        bad = self.live & ((stopping >= self.needed) | killed)
        judged = self._judge(window, cohorts, float(log_e[0])) if self.gate is not None and self.live[0] else None
        if judged is not None:
            bad[0] = bool(killed[0]) or _proven(judged, self.needed)
        self.caught[bad] = window
        self._end(bad)
        self._move(window, judged)

    def _judge(self, window: int, cohorts: dict[int, tuple[Arm, Arm]], log_e: float) -> Verdict:
        stage = int(self.stage[0])
        cells = tuple(self.streams.cells(window, cohorts, 0, stage=stage))
        self.verdict = judge(self.task.plan, self._gate_input(0, window, cells), self.gate)
        if self.gap is not None:
            self.gap = max(self.gap, abs(self.verdict.evidence["log_e"] - log_e))
        return self.verdict

    def _gate_input(self, run: int, window: int, cells: tuple[Cell, ...]) -> GateInput:
        stage = int(self.stage[run])
        return GateInput(
            stage=stage,
            soaked_s=self._soaked_s(run, window),
            cells=cells,
            counts=self.streams.counts(run, stage=stage),
            shares=tuple(int(share) for share in self.streams.shares[run, : stage + 1]),
        )

    def _soaked_s(self, run: int, window: int) -> float:
        return float(window + 1 - self.since[run]) * self.streams.window_s

    def _end(self, runs: Array) -> None:
        if runs.any():
            self.live &= ~runs
            self.streams.stop(runs)

    def _move(self, window: int, judged: Verdict | None) -> None:
        """Ask the gate about every run whose stage has soaked; those that advance do so in the next window."""
        entering: dict[int, list[int]] = {}
        ended = np.zeros(self.task.runs, dtype=bool)
        for run in np.flatnonzero(self.live):
            verdict = judged if run == 0 and judged is not None else self._asked(int(run), window)
            if verdict is None or verdict.move == "wait":
                continue
            if verdict.move == "hold":
                self.why[int(run)] = verdict.because
                self.ask[run] = window + math.ceil(_ASK_AGAIN_S / self.streams.window_s)
            elif verdict.move == "advance":
                entering.setdefault(int(self.stage[run]) + 1, []).append(int(run))
            elif verdict.move == "finish":
                self.finished[run], ended[run] = window, True
            else:  # a limit that one sample proves broken, from the same sums: as the arrays say in its own time
                self.caught[run], ended[run] = window, True
        self._end(ended)
        for stage, runs in sorted(entering.items()):
            chosen = np.zeros(self.task.runs, dtype=bool)
            chosen[runs] = True
            self.stage[chosen], self.since[chosen] = stage, window + 1
            self.entered[chosen, stage] = window + 1
            self.why = {run: why for run, why in self.why.items() if not chosen[run]}
            self.streams.enter(stage, chosen)

    def _asked(self, run: int, window: int) -> Verdict | None:
        plan, stage = self.task.plan, int(self.stage[run])
        soak_s = plan.stages[stage].duration_hours * 3600
        if plan.promote == "when_proven":
            if self._soaked_s(run, window) >= soak_s:
                self.why[run] = "it is not proven yet to be within the margins (when_proven)"
            soak_s += self.task.unproven_s[stage] if self.task.unproven_s else 0.0
            plan = msgspec.structs.replace(plan, promote="when_no_harm")
        if self._soaked_s(run, window) < soak_s or window < self.ask[run]:
            return None
        cells = self.sums.cells(run, stage=stage, keys=self.streams.latency.keys)
        return judge(plan, self._gate_input(run, window, cells))

    def done(self) -> Played:
        held: dict[str, int] = {}
        for run in np.flatnonzero(self.live):
            why = self.why.get(int(run), "its last stage still soaks")
            held[why] = held.get(why, 0) + 1
        return Played(
            caught=self.caught,
            finished=self.finished,
            entered=self.entered,
            exposed=self.exposed,
            harmed=np.array(self.reached),
            log_e=np.array(self.path),
            moved=self.verdict.move if self.verdict else "",
            because=self.verdict.because if self.verdict else "",
            held=held,
            gap=self.gap,
            unwatched=self.batch.unwatched,
            windows=len(self.path),
        )


def _proven(verdict: Verdict, needed: float) -> bool:
    """Whether a verdict says that harm is proven; it may still hold, where the plan leaves that to a person."""
    evidence = verdict.evidence
    proven = evidence["log_e"] >= needed and evidence.get("severity") != "warn"
    return verdict.move in {"roll_back", "slice_back"} or proven


_SUMMED = ("at_risk", "error_units", "crashed", "error_share", "due", "overdue", "accuracy_n", "accuracy_sum")


class _Sums:
    """What both arms of every cohort added up to, by run: what the gate's estimates are made of."""

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
        """The sums of a run, each arm in a window of its own."""
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
