"""The simulated streams of bench/harm.py: a fleet's reports as tally windows, for many rollouts at once.

200,000 devices in 20 classes, windows of five minutes, 5% -> 25% -> 90%, installs over hours, traffic by the hour of
the day. This simulator was written apart from `whimbrel.forecast`, so that a test can compare the two.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from whimbrel.gate.batch_gate import Arm
from whimbrel.gate.guardrails import TOLERATED_SLOWER
from whimbrel.health.sketch import GAMMA, keys_of
from whimbrel.health.tally import AGE_EDGES_H, Cell, Moments
from whimbrel.plan.plan import Plan, Stage

Array = NDArray[Any]
DEVICES = 200_000
CLASSES = 20
SHARES = (0.05, 0.25, 0.90)
STAGE_WINDOWS = (36, 36, 72)  # 3 h, 3 h, 6 h
STARTS = (0, 36, 72)
WINDOWS = sum(STAGE_WINDOWS)
INSTALL = 24  # windows: mean time until a device has installed (exponential, two hours)
SESSIONS = 0.09  # of a device and window, on average over the day
SWING = 0.6  # of the day's traffic around its mean, which it passes at eight in the morning
LABELLED = 0.4  # sessions whose answer is confirmed or corrected
ERRORS = 0.005
SILENT = 0.01
DUE_AFTER = 3  # windows until a first report is due
SIGMA = 0.6  # of the logarithm of a session's latency
MEDIAN_MS = 20.0
EDGES = np.array([e * 12 for e in AGE_EDGES_H])  # in windows
DAY, MORNING = 288, 36  # windows among which a rollout's start is drawn: any hour, or from eight to eleven


class Scenario(msgspec.Struct, frozen=True):
    """What changes with the new version. `one_class`: the change is only in one of the classes.

    `silent`: of the devices that are due, those that stay silent whatever the version.
    """

    name: str
    metric: str
    base: float
    after: float
    one_class: bool = False
    silent: float = SILENT


SCENARIOS = (
    Scenario("crash_1_2", "crash", 0.01, 0.02),
    Scenario("crash_1_3", "crash", 0.01, 0.03),
    Scenario("crash_01_03", "crash", 0.001, 0.003),
    Scenario("one_class", "crash", 0.01, 0.05, one_class=True),
    Scenario("accuracy", "accuracy", 0.84, 0.80),
    Scenario("p99", "latency", 1.0, 1.5),
    Scenario("bricked_2", "silence", 0.0, 0.02),
    Scenario("bricked_2_of_silent_2", "silence", 0.0, 0.02, silent=0.02),
)
PLAIN = Scenario("aa_crash_1", "crash", 0.01, 0.01)
RARE = Scenario("aa_crash_01", "crash", 0.001, 0.001)
PLAN = Plan(
    model_version="m@1.0.0",
    stages=tuple(
        Stage(name=f"s{index}", target_percent=100 * share, duration_hours=windows / 12)
        for index, (share, windows) in enumerate(zip(SHARES, STAGE_WINDOWS, strict=True))
    ),
)


def installed(elapsed: float) -> float:
    """The share of a cohort that has the version, or the placebo, so many windows after its stage began."""
    return 1 - math.exp(-max(0.0, elapsed) / INSTALL)


def ages(elapsed: float) -> list[float]:
    """The share of a cohort in each age group."""
    edges = [0.0, *EDGES, math.inf]
    shares = [installed(elapsed - low) - installed(elapsed - high) for low, high in itertools.pairwise(edges)]
    while len(shares) > 1 and shares[-1] <= 0:
        shares.pop()
    return shares


def exposed(window: int) -> float:
    """Devices that had the version at the end of a window."""
    stage = stage_at(window)
    before = 0.0
    total = 0.0
    for index in range(stage + 1):
        total += (SHARES[index] - before) * DEVICES * installed(window - STARTS[index] + 1)
        before = SHARES[index]
    return total


def stage_at(window: int) -> int:
    """The stage that a window lies in."""
    return sum(window >= start for start in STARTS) - 1


class Latency:
    """Sketch buckets of a log-normal latency, and the chance of each. `step` buckets lie between two values."""

    def __init__(self, step: int) -> None:
        low, high = keys_of(MEDIAN_MS * np.exp(np.array([-3.2, 4.2]) * SIGMA))
        self.keys = np.arange(low, high, step)
        edges = (self.keys * math.log(GAMMA) - math.log(MEDIAN_MS)) / SIGMA
        normal = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in edges])
        self.cdf = normal
        self.plain = np.diff(normal, prepend=0.0)
        self.plain[-1] += 1 - self.plain.sum()
        shift = math.log(1.5) / SIGMA
        slower = np.array([0.5 * math.erfc(-(z - shift) / math.sqrt(2)) for z in edges])
        self.slow = np.diff(slower, prepend=0.0)
        self.slow[-1] += 1 - self.slow.sum()
        self.p = {p: int(np.argmax(normal >= p)) for p in (0.5, 0.95, 0.99)}


FINE, COARSE = Latency(1), Latency(TOLERATED_SLOWER)


class Streams:
    """The windows of `runs` rollouts of one scenario, drawn at once, window by window."""

    def __init__(self, scenario: Scenario, *, runs: int, seed: int, latency: Latency, starts: int = MORNING) -> None:
        self.scenario, self.runs, self.latency = scenario, runs, latency
        self.draw = np.random.default_rng(seed)
        self.phase = self.draw.uniform(0, starts, size=(runs, 1, 1))  # of 288, from eight in the morning on
        self.excess = np.zeros((runs, WINDOWS))

    def window(self, window: int) -> dict[int, tuple[Arm, Arm]]:
        """The reports of one window: both arms of every cohort that began."""
        stage = stage_at(window)
        traffic = SESSIONS * (1 + SWING * np.sin(2 * np.pi * (window + self.phase) / 288))
        arms = {}
        before = 0.0
        for cohort in range(stage + 1):
            elapsed = window - STARTS[cohort] + 0.5
            treated = (SHARES[cohort] - before) * DEVICES / CLASSES
            control = (1 - SHARES[stage]) * DEVICES / CLASSES
            arms[cohort] = (
                self._arm(treated, elapsed, traffic, window, treated=True),
                self._arm(control, elapsed, traffic, window, treated=False),
            )
            before = SHARES[cohort]
        return arms

    def _arm(self, devices: float, elapsed: float, traffic: Array, window: int, *, treated: bool) -> Arm:
        draw, scenario = self.draw, self.scenario
        shares = np.array(ages(elapsed))
        shape = (self.runs, len(shares), CLASSES)
        worse = treated and scenario.after != scenario.base
        alive = 1 - (scenario.after if worse and scenario.metric == "silence" else 0)
        at_risk = draw.poisson(np.broadcast_to(devices * alive * traffic * shares[None, :, None], shape))
        rate = np.full(CLASSES, scenario.base if scenario.metric == "crash" else 0.01)
        if worse and scenario.metric == "crash":
            rate[: 1 if scenario.one_class else CLASSES] = scenario.after
        crashed = draw.binomial(at_risk, rate[None, None, :])
        errors = draw.binomial(at_risk, ERRORS)
        fresh = devices * (installed(elapsed - DUE_AFTER + 0.5) - installed(elapsed - DUE_AFTER - 0.5))
        due, overdue = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        due[:, 0] = draw.poisson(fresh, size=(self.runs, CLASSES))
        silent = 1 - (1 - scenario.silent) * alive
        overdue[:, 0] = draw.binomial(due[:, 0], silent)
        labelled = draw.binomial(at_risk, LABELLED)
        mean = scenario.after if worse and scenario.metric == "accuracy" else 0.84
        right = draw.binomial(labelled, mean)
        chances = self.latency.slow if worse and scenario.metric == "latency" else self.latency.plain
        latency = draw.multinomial(at_risk.sum(axis=2), chances)
        if worse:
            self._count(scenario, window, at_risk, labelled, rate)
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
        )

    def _count(self, scenario: Scenario, window: int, at_risk: Any, labelled: Any, rate: Array) -> None:
        if scenario.metric == "crash":
            self.excess[:, window] += (at_risk * (rate - scenario.base)[None, None, :]).sum(axis=(1, 2))
        elif scenario.metric == "accuracy":
            self.excess[:, window] += (labelled * (scenario.base - scenario.after)).sum(axis=(1, 2))
        elif scenario.metric == "latency":
            tail = self.latency.slow[self.latency.p[0.99] + 1 :].sum() - 0.01
            self.excess[:, window] += at_risk.sum(axis=(1, 2)) * tail
        else:
            self.excess[:, window] = exposed(window) * scenario.after - (
                exposed(window - 1) * scenario.after if window else 0
            )


def cells(window: int, cohorts: dict[int, tuple[Arm, Arm]], run: int, latency: Latency) -> Iterator[Cell]:
    """One run's tally window in the server's form. The latencies of an age group are kept with its first class."""
    for stage, arms in cohorts.items():
        for role, arm in zip(("treated", "control"), arms, strict=True):
            for age in range(arm.at_risk.shape[1]):
                row = arm.latency[run, age]
                (places,) = np.nonzero(row)
                timed = {int(latency.keys[k]): int(row[k]) for k in places}
                for index in range(CLASSES):
                    at = (run, age, index)
                    if not arm.at_risk[at] and not arm.due[at] and not (timed and index == 0):
                        continue
                    n = int(arm.accuracy_n[at])
                    yield Cell(
                        stage=stage,
                        window=window,
                        role=role,  # type: ignore[arg-type]
                        hardware_class=f"class-{index:02d}",
                        age_bucket=age,
                        at_risk=int(arm.at_risk[at]),
                        sessions=int(arm.at_risk[at]),
                        crashed=int(arm.crashed[at]),
                        error_units=int(arm.at_risk[at]),
                        error_share=float(arm.error_share[at]),
                        due=int(arm.due[at]),
                        overdue=int(arm.overdue[at]),
                        metrics={
                            "accuracy": Moments(
                                n=n, sum=float(arm.accuracy_sum[at]), sumsq=float(arm.accuracy_sumsq[at])
                            )
                        }
                        if n
                        else {},
                        latency=timed if index == 0 else {},
                    )
