"""How many devices does a bad version reach before it goes back, in 200,000 devices that are alike?

Streams (harm_streams.py: 20 classes, started between eight and eleven in the morning) go through the product's own gate
as tally windows, next to the methods of harm_methods.py.

False alarms come from rollouts in which nothing is wrong at all. Their windows are folded for a hundred rollouts at
once (`gate/batch_gate.py`, held equal to the gate by a test). Every alarm is then judged by the gate itself, which must
agree. A peer sees the one metric that is about to get worse; the gate watches all of them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harm_methods import PEERS, peers, series
from harm_rows import FALSE_ALARMS, Row, median_interval, share_interval
from harm_streams import (
    CLASSES,
    COARSE,
    FINE,
    MORNING,
    PLAIN,
    RARE,
    STARTS,
    WINDOWS,
    Latency,
    Scenario,
    Streams,
    cells,
    exposed,
    stage_at,
)
from whimbrel.gate.batch_gate import Arm, BatchLedger
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput
from whimbrel.plan.plan import Plan

Array = NDArray[Any]
QUIET = (PLAIN, RARE)
NEVER = "never"  # in place of the window in which a method stops a rollout


def regressions(scenario: Scenario, *, runs: int, seed: int, plan: Plan, starts: int = MORNING) -> dict[str, Any]:
    """In which window every method stops a bad version: how many of `runs` rollouts, by window."""
    streams = Streams(scenario, runs=runs, seed=seed, latency=FINE, starts=starts)
    ledgers = [Ledger(plan) for _ in range(runs)]
    caught: list[int | None] = [None] * runs
    sentences: dict[str, int] = {}
    history = []
    for window in range(STARTS[2]):
        cohorts = streams.window(window)
        history.append(cohorts)
        for run in range(runs):
            if caught[run] is None:
                now = GateInput(
                    stage=stage_at(window), soaked_s=0, counts={}, cells=list(cells(window, cohorts, run, FINE))
                )
                verdict = judge(plan, now, ledgers[run])
                if verdict.move in {"roll_back", "slice_back"}:
                    caught[run] = window
                    sentences[verdict.move] = sentences.get(verdict.move, 0) + 1
        if (window + 1) % 12 == 0 and all(each is not None for each in caught):
            stops = peers(history, scenario)
            if all(sum(each is not None for each in stops[name]) > runs / 2 for name in ("mann_whitney", "oracle")):
                break
    stops = {"whimbrel": caught, **peers(history, scenario)}
    return {
        "scenario": scenario.name,
        "runs": runs,
        "moves": sentences,
        "windows": len(history),
        "stops": {name: _tallied(NEVER if each is None else str(each) for each in of) for name, of in stops.items()},
    }


def merged_regressions(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The rollouts of two parts of a scenario."""
    return {
        "scenario": one["scenario"],
        "runs": one["runs"] + other["runs"],
        "moves": _summed(one["moves"], other["moves"]),
        "windows": max(one["windows"], other["windows"]),
        "stops": {name: _summed(one["stops"][name], other["stops"][name]) for name in one["stops"]},
    }


def _tallied(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def methods_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Median exposure of every method.

    A method looks after each window, so its median is a step; of two medians, one that stands at the edge of a step
    makes their ratio one window more or less by chance. `within` is the median of grouped data: the rollouts that stop
    in one window are taken to be spread evenly over it. `low` and `high`: its interval at 95%.
    """
    return {name: _method(stops, result["runs"]) for name, stops in result["stops"].items()}


def _method(stops: dict[str, int], runs: int) -> dict[str, Any]:
    windows = sorted((int(window), count) for window, count in stops.items() if window != NEVER)
    half_width = 0.98 / math.sqrt(runs)  # of the share that has stopped by the true median
    every = [exposed(window) for window, count in windows for _ in range(count)]
    return {
        "exposed": _finite(median_interval([*every, *[math.inf] * (runs - len(every))])[0]),
        "within": _finite(_exposed_when(windows, 0.5 * runs)),
        "low": _finite(_exposed_when(windows, (0.5 - half_width) * runs)),
        "high": _finite(_exposed_when(windows, (0.5 + half_width) * runs)),
        "missed": runs - len(every),
    }


def _exposed_when(windows: Sequence[tuple[int, int]], needed: float) -> float:
    """The devices exposed when so many rollouts have stopped; infinite where so many never do."""
    before = 0
    for window, count in windows:
        if before + count >= needed:
            begun = exposed(window - 1) if window else 0.0
            return begun + max(0.0, needed - before) / count * (exposed(window) - begun)
        before += count
    return math.inf


def _finite(value: float) -> int | None:
    return round(value) if math.isfinite(value) else None


def quiet_chunk(scenario: Scenario, *, runs: int, seed: int, plan: Plan, starts: int = MORNING) -> dict[str, Any]:
    """Whole rollouts of a version that is as good as the old one: how many does each method take back?"""
    streams = Streams(scenario, runs=runs, seed=seed, latency=COARSE, starts=starts)
    ledger = BatchLedger(plan, runs=runs, classes=CLASSES)
    history = []
    path = np.empty((WINDOWS, runs))
    for window in range(WINDOWS):
        cohorts = streams.window(window)
        history.append(cohorts)
        ledger.fold(cohorts)
        path[window] = ledger.log_e()
    crossed = path >= math.log(1 / plan.alpha)
    sentences, disagreements = [], []
    checks = [run for run in range(runs) if crossed[:, run].any()] or [0]
    for run in checks:
        expected = int(np.argmax(crossed[:, run])) if crossed[:, run].any() else None
        last = WINDOWS if expected is None else expected + 1
        verdict = gate(history[:last], run, COARSE, plan)
        if (verdict[0] if verdict else None) != expected:
            disagreements.append(f"seed {seed}, run {run}: the gate says {verdict}, the arrays say {expected}")
        if verdict:
            sentences.append(f"seed {seed}, run {run}, window {verdict[0]}: {verdict[1]}")
    data = series(history, scenario.metric, COARSE)
    alarms = {"whimbrel": int(crossed.any(axis=0).sum())}
    for name, method in PEERS.items():
        alarms[name] = sum(each is not None for each in method(data, base=scenario.base))
    return {
        "scenario": scenario.name,
        "runs": runs,
        "alarms": alarms,
        "highest_log_e": _tallied(f"{each:.1f}" for each in path.max(axis=0)),
        "played_through_the_gate": len(checks),
        "sentences": sentences,
        "disagreements": disagreements,
    }


def merged_quiet(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The rollouts of two parts of a scenario without a change."""
    return {
        "scenario": one["scenario"],
        **{name: _summed(one[name], other[name]) for name in ("alarms", "highest_log_e")},
        **{name: one[name] + other[name] for name in ("runs", "played_through_the_gate", "sentences", "disagreements")},
    }


# --- the table's rows ---

LIMITS_ORACLE = {
    "crash_1_2": 1.2,
    "crash_1_3": 1.2,
    "crash_01_03": 1.3,
    "accuracy": 1.15,
    "p99": 1.6,
    "bricked_2": 1.2,
    "bricked_2_of_silent_2": 1.3,  # not 1.2: docs/explain/statistics.md says why, and what it would cost
}
LIMITS_JUDGE = {"crash_1_2": 0.6, "crash_1_3": 0.6, "crash_01_03": 0.7, "one_class": 0.55}
BARS = (("oracle", LIMITS_ORACLE), ("mann_whitney", LIMITS_JUDGE))


def exposure_rows(result: dict[str, Any], *, quick: bool) -> list[Row]:
    """What a scenario's limits say of it: the median exposure beside the oracle's, and beside the hourly judge's."""
    scenario, methods = result["scenario"], methods_of(result)
    whimbrel = methods["whimbrel"]
    rows = []
    for peer, limits in BARS:
        if scenario not in limits:
            continue
        # A peer that has not stopped it yet is counted as stopping it now.
        theirs = methods[peer]["within"] or exposed(result["windows"] - 1)
        figure, low, high = (
            None if each is None else round(each / theirs, 3)
            for each in (whimbrel["within"], whimbrel["low"], whimbrel["high"])
        )
        edge = low if quick else figure
        rows.append(
            Row(
                kind=f"{scenario}_vs_{'judge' if peer == 'mann_whitney' else peer}",
                says=f"{scenario}: devices exposed, beside the {'hourly judge' if peer == 'mann_whitney' else peer}'s",
                unit="ratio",
                figure=figure,
                low=low,
                high=high,
                limit=limits[scenario],
                passed=edge is not None and edge <= limits[scenario],
                runs=result["runs"],
                note=f"{whimbrel['exposed']} devices in whole windows, theirs {methods[peer]['exposed']}",
            )
        )
    return rows


def alarm_row(result: dict[str, Any], *, quick: bool) -> Row:
    """The share of rollouts without a change that were taken back."""
    alarms, runs = result["alarms"]["whimbrel"], result["runs"]
    share, (low, high) = alarms / runs, share_interval(alarms, runs)
    disagreements = result["disagreements"]
    return Row(
        kind=result["scenario"],
        says="200,000 alike devices, three stages, nothing is wrong: taken back",
        unit="share",
        figure=round(share, 5),
        low=round(low, 5),
        high=round(high, 5),
        limit=FALSE_ALARMS,
        passed=(low if quick else share) <= FALSE_ALARMS and not disagreements,
        runs=runs,
        count=alarms,
        note=disagreements[0]
        if disagreements
        else ", ".join(f"{n} {a / runs:.2%}" for n, a in result["alarms"].items()),
    )


def gate(history: list[dict[int, tuple[Arm, Arm]]], run: int, latency: Latency, plan: Plan) -> tuple[int, str] | None:
    """The window at which the gate takes the version back, or a slice of it, and the sentence; None: never."""
    ledger = Ledger(plan)
    for window, cohorts in enumerate(history):
        now = GateInput(stage=stage_at(window), soaked_s=0, counts={}, cells=list(cells(window, cohorts, run, latency)))
        verdict = judge(plan, now, ledger)
        if verdict.move in {"roll_back", "slice_back"}:
            return window, f"{verdict.move}: {verdict.because}"
    return None
