"""How many devices does a bad version reach before it is taken back, and how often is a good one taken back?

Simulated streams (harm_streams.py: 200,000 devices in 20 classes, started between eight and eleven in the morning) go
through the product's own gate as tally windows, next to honest versions of peers' methods, and next to an oracle that
knows the effect beforehand. A method is judged by the first window at which it takes the version back.

False alarms come from rollouts in which nothing is wrong at all. Their windows are folded for hundreds of rollouts at
once (`gate/batch_gate.py`, held equal to the gate by a test). Every alarm is then judged by the gate itself, which must
agree. A peer sees the one metric that is about to get worse; the gate watches all of them.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harm_streams import (
    CLASSES,
    COARSE,
    DAY,
    FINE,
    MORNING,
    PLAIN,
    PLAN,
    RARE,
    SCENARIOS,
    SILENT,
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
SEED = 20261120
CHUNK = 100


# --- the gate ---


def gate(history: list[dict[int, tuple[Arm, Arm]]], run: int, latency: Latency, plan: Plan) -> tuple[int, str] | None:
    """The window at which the gate takes the version back, or a slice of it, and the sentence; None: never."""
    ledger = Ledger(plan)
    for window, cohorts in enumerate(history):
        now = GateInput(stage=stage_at(window), soaked_s=0, counts={}, cells=list(cells(window, cohorts, run, latency)))
        verdict = judge(plan, now, ledger)
        if verdict.move in {"roll_back", "slice_back"}:
            return window, f"{verdict.move}: {verdict.because}"
    return None


# --- the peers and the oracle: each sees the one metric, as (events, units) of both arms a window ---

Series = tuple[Array, Array, Array, Array]


def series(history: list[dict[int, tuple[Arm, Arm]]], metric: str, latency: Latency) -> Series:
    """(windows, runs) of treated events and units, control events and units."""
    rows: list[list[Array]] = []
    for cohorts in history:
        row = []
        for role in (0, 1):
            arms = [arms[role] for arms in cohorts.values()] if role == 0 else [cohorts[0][1]]
            row += [sum(part) for part in zip(*(_read(arm, metric, latency) for arm in arms), strict=True)]
        rows.append(row)
    stacked = [np.array([row[index] for row in rows], dtype=float) for index in range(4)]
    return stacked[0], stacked[1], stacked[2], stacked[3]


def _read(arm: Arm, metric: str, latency: Latency) -> tuple[Array, Array]:
    if metric == "crash":
        return arm.crashed.sum(axis=(1, 2)), arm.at_risk.sum(axis=(1, 2))
    if metric == "silence":
        return arm.overdue.sum(axis=(1, 2)), arm.due.sum(axis=(1, 2))
    if metric == "accuracy":
        return (arm.accuracy_n - arm.accuracy_sum).sum(axis=(1, 2)), arm.accuracy_n.sum(axis=(1, 2))
    over = arm.latency[:, :, latency.p[0.95 if metric == "p95" else 0.99] + 1 :]
    return over.sum(axis=(1, 2)), arm.at_risk.sum(axis=(1, 2))


def _first(stops: NDArray[np.bool_]) -> list[int | None]:
    return [int(np.argmax(column)) if column.any() else None for column in stops.T]


def _safe(x: Array, n: Array) -> Array:
    return np.asarray(np.where(n > 0, x / np.maximum(n, 1), 0.0))


def fixed_threshold(data: Series, *, base: float) -> list[int | None]:
    """A metric over 1.5 times a static baseline fails a window; the fourth failure takes it back (failureLimit 3)."""
    x_t, n_t, _, _ = data
    return _first(np.cumsum((_safe(x_t, n_t) > 1.5 * base) & (n_t > 0), axis=0) > 3)


def mann_whitney(data: Series, *, base: float) -> list[int | None]:  # noqa: ARG001 (a peer like the others)
    """Every hour, the windows' values of both arms so far, as Kayenta's default judge classifies them.

    The lower end of the 98% confidence interval of the shift (Hodges and Lehmann) must lie above a quarter of its
    estimate: a fraction of 0.25 and a confidence level of 0.98 are fixed in its source (NetflixACAJudge, 2017 to 2024),
    and so is the normal approximation of the interval. A single such hour takes the version back.
    """
    x_t, n_t, x_c, n_c = data
    t, c = _safe(x_t, n_t), _safe(x_c, n_c)
    stops = np.zeros(t.shape, dtype=bool)
    for end in range(12, len(t) + 1, 12):
        place = int(end * end / 2 - 2.326 * math.sqrt(end * end * (2 * end + 1) / 12))
        for run in range(t.shape[1]):
            if stops[:end, run].any():
                continue
            shifts = np.subtract.outer(t[:end, run], c[:end, run]).ravel()
            ordered = np.partition(shifts, (max(0, place), len(shifts) // 2))
            low, estimate = ordered[max(0, place)], ordered[len(shifts) // 2]
            stops[end - 1, run] = place >= 0 and low > max(0.0, 0.25 * estimate)
    return _first(stops)


def _z(data: Series) -> Array:
    x_t, n_t, x_c, n_c = (np.cumsum(each, axis=0) for each in data)
    pooled = _safe(x_t + x_c, n_t + n_c)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / np.maximum(n_t, 1) + 1 / np.maximum(n_c, 1)), 1e-12))
    return np.asarray((_safe(x_t, n_t) - _safe(x_c, n_c)) / spread)


def obrien_fleming(data: Series, *, base: float) -> list[int | None]:  # noqa: ARG001 (a peer like the others)
    """A pooled z-test at every window, with O'Brien-Fleming's boundary over the planned length, one-sided 1%."""
    fraction = (np.arange(len(data[0])) + 1)[:, None] / WINDOWS
    return _first(_z(data) >= 2.576 / np.sqrt(fraction))


def repeated_z(data: Series, *, base: float) -> list[int | None]:  # noqa: ARG001 (a peer like the others)
    """The same z-test at 1% after every window, as a dashboard is read."""
    return _first(_z(data) >= 2.326)


def oracle(data: Series, scenario: Scenario, latency: Latency) -> list[int | None]:
    """Wald's test of the true effect against no effect, from the treated share of the events, at 1%."""
    x_t, n_t, x_c, n_c = data
    base, after = rates(scenario, latency, best=True)
    ratio = after / base
    use = (n_t > 0) & (n_c > 0)
    p0 = np.where(use, n_t / np.maximum(n_t + n_c, 1), 0.5)
    p1 = ratio * p0 / (1 + p0 * (ratio - 1))
    change = np.where(use, x_t * np.log(p1 / p0) + x_c * np.log((1 - p1) / (1 - p0)), 0)
    return _first(np.cumsum(change, axis=0) >= math.log(100))


def rates(scenario: Scenario, latency: Latency, *, best: bool = False) -> tuple[float, float]:
    """The true rate of the metric's events before and after. `best`: of the oracle's own reading."""
    if scenario.metric == "crash":
        after = scenario.base + (scenario.after - scenario.base) / (CLASSES if scenario.one_class else 1)
        return scenario.base, after
    if scenario.metric == "accuracy":
        return 1 - scenario.base, 1 - scenario.after
    if scenario.metric == "silence":
        return SILENT, 1 - (1 - SILENT) * (1 - scenario.after)
    edge = latency.p[0.95 if best else 0.99] + 1
    return float(latency.plain[edge:].sum()), float(latency.slow[edge:].sum())


PEERS: dict[str, Callable[..., list[int | None]]] = {
    "fixed_threshold": fixed_threshold,
    "mann_whitney": mann_whitney,
    "obrien_fleming": obrien_fleming,
    "repeated_z": repeated_z,
}


# --- what is measured ---


def regressions(scenario: Scenario, *, runs: int, seed: int, plan: Plan, starts: int = MORNING) -> dict[str, Any]:
    """Median exposure and excess of every method over `runs` rollouts of a bad version."""
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
    spent = np.cumsum(streams.excess, axis=1)
    rows = {name: _row(column, spent) for name, column in stops.items()}
    return {
        "scenario": scenario.name,
        "seed": seed,
        "runs": runs,
        "moves": sentences,
        "windows": len(history),
        "methods": rows,
    }


def peers(history: list[dict[int, tuple[Arm, Arm]]], scenario: Scenario) -> dict[str, list[int | None]]:
    """The window at which every other method stops, for each run."""
    base = rates(scenario, FINE)[0]
    data = series(history, scenario.metric, FINE)
    stops = {name: method(data, base=base) for name, method in PEERS.items()}
    best = series(history, "p95", FINE) if scenario.metric == "latency" else data
    stops["oracle"] = oracle(best, scenario, FINE)
    return stops


def _row(column: list[int | None], spent: Array) -> dict[str, Any]:
    reached = [exposed(w) if w is not None else math.inf for w in column]
    harmed = [float(spent[run, w]) if w is not None else math.inf for run, w in enumerate(column)]
    exposure, excess = float(np.median(reached)), float(np.median(harmed))
    return {
        "exposed": round(exposure) if math.isfinite(exposure) else None,
        "excess": round(excess, 1) if math.isfinite(excess) else None,
        "missed": sum(each is None for each in column),
    }


def false_alarms(scenario: Scenario, *, runs: int, seed: int, plan: Plan, starts: int = MORNING) -> dict[str, Any]:
    """Whole rollouts of a version that is as good as the old one: how many does each method take back?"""
    alarms: dict[str, int] = dict.fromkeys(("whimbrel", *PEERS), 0)
    highest: list[float] = []
    sentences: list[str] = []
    checked = 0
    for chunk in range(0, runs, CHUNK):
        size = min(CHUNK, runs - chunk)
        streams = Streams(scenario, runs=size, seed=seed + chunk, latency=COARSE, starts=starts)
        ledger = BatchLedger(plan, runs=size, classes=CLASSES)
        history = []
        path = np.empty((WINDOWS, size))
        for window in range(WINDOWS):
            cohorts = streams.window(window)
            history.append(cohorts)
            ledger.fold(cohorts)
            path[window] = ledger.log_e()
        crossed = path >= math.log(1 / plan.alpha)
        highest += path.max(axis=0).tolist()
        checks = [run for run in range(size) if crossed[:, run].any()] + ([] if chunk else [0])
        for run in dict.fromkeys(checks):
            expected = int(np.argmax(crossed[:, run])) if crossed[:, run].any() else None
            last = WINDOWS if expected is None else expected + 1
            verdict = gate(history[:last], run, COARSE, plan)
            if (verdict[0] if verdict else None) != expected:
                raise SystemExit(f"run {chunk + run}: the gate says {verdict}, the arrays say {expected}")
            checked += 1
            if verdict:
                sentences.append(f"run {chunk + run}, window {verdict[0]}: {verdict[1]}")
        alarms["whimbrel"] += int(crossed.any(axis=0).sum())
        data = series(history, scenario.metric, COARSE)
        for name, method in PEERS.items():
            alarms[name] += sum(each is not None for each in method(data, base=scenario.base))
    tail = {str(p): round(float(np.quantile(highest, p)), 3) for p in (0.9, 0.95, 0.99, 0.995)}
    return {
        "scenario": scenario.name,
        "seed": seed,
        "runs": runs,
        "alarms": {n: c / runs for n, c in alarms.items()},
        "highest_log_e": tail,
        "played_through_the_gate": checked,
        "sentences": sentences,
    }


LIMITS_ORACLE = {"crash_1_2": 1.2, "crash_1_3": 1.2, "crash_01_03": 1.3, "p99": 1.6}
LIMITS_JUDGE = {"crash_1_2": 0.6, "crash_1_3": 0.6, "crash_01_03": 0.7, "one_class": 0.55}
BARRED = ("crash_1_2", "crash_1_3", "crash_01_03", "one_class", "accuracy", "p99")


def main() -> None:
    """Measure, print the table, write the raw figures; with --json the last line is one object."""
    arguments = _arguments()
    plan = PLAN if arguments.alpha is None else msgspec.structs.replace(PLAN, alpha=arguments.alpha)
    runs, quiet = (30, 1000) if arguments.quick else (300, 1000)
    runs, quiet = arguments.runs or runs, arguments.quiet_runs or quiet
    starts = DAY if arguments.any_hour else MORNING
    began = time.monotonic()
    print(f"seed {arguments.seed}; again: python bench/harm.py --seed {arguments.seed}; alpha {plan.alpha:g}")
    rows = []
    for index, scenario in enumerate(SCENARIOS):
        rows.append(regressions(scenario, runs=runs, seed=arguments.seed + 1000 * index, plan=plan, starts=starts))
        _print_row(rows[-1])
    alarms = []
    for index, scenario in enumerate((PLAIN, RARE)[: 1 if arguments.quick else 2]):
        seed = arguments.seed + 10**6 * (index + 1)
        alarms.append(false_alarms(scenario, runs=quiet, seed=seed, plan=plan, starts=starts))
        print(f"{alarms[-1]['scenario']}: " + "  ".join(f"{n} {a:.2%}" for n, a in alarms[-1]["alarms"].items()))
        print(f"  highest ln E of a run, by quantile: {alarms[-1]['highest_log_e']}")
    summary = _summary(rows, alarms)
    summary |= {"seed": arguments.seed, "seconds": round(time.monotonic() - began, 1), "alpha": plan.alpha}
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    raw = {"summary": summary, "regressions": rows, "false_alarms": alarms}
    (folder / "harm.json").write_text(json.dumps(raw, indent=1, sort_keys=True) + "\n")
    for missed in summary["missed"]:
        print(f"the bar is missed: {missed}")
    if arguments.json:
        print(json.dumps(summary, sort_keys=True))
    sys.exit(0 if summary["ok"] else 1)


def _summary(rows: list[dict[str, Any]], alarms: list[dict[str, Any]]) -> dict[str, Any]:
    def over(peer: str) -> dict[str, float | None]:
        ratios: dict[str, float | None] = {}
        for row in rows:
            ours, theirs = row["methods"]["whimbrel"]["exposed"], row["methods"][peer]["exposed"]
            if row["scenario"] in BARRED:  # a peer that has not stopped it yet is counted as stopping it now
                ratios[row["scenario"]] = (
                    None if ours is None else round(ours / (theirs or exposed(row["windows"] - 1)), 3)
                )
        return ratios

    versus = {"exposed_vs_oracle": over("oracle"), "exposed_vs_judge": over("mann_whitney")}
    worst = max(alarm["alarms"]["whimbrel"] for alarm in alarms)
    missed = [f"false alarms {worst:.2%}, at most 1%"] if worst > 0.01 else []
    for key, limits in (("exposed_vs_oracle", LIMITS_ORACLE), ("exposed_vs_judge", LIMITS_JUDGE)):
        for name, limit in limits.items():
            value = versus[key][name]
            if value is None or value > limit:
                missed.append(f"{key} {name} {value}, at most {limit}")
    return {"ok": not missed, "missed": missed, "false_alarm_max": worst, **versus}


def _print_row(row: dict[str, Any]) -> None:
    methods = "  ".join(f"{name} {m['exposed']}/{m['excess']}" for name, m in row["methods"].items())
    print(f"{row['scenario']} (seed {row['seed']}, {row['runs']} runs): {methods}  {row['moves']}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30 runs a regression instead of 300, one A/A stream")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--alpha", type=float, help="the plan's budget, instead of the default")
    parser.add_argument("--any-hour", action="store_true", help="rollouts start at any hour, not in the morning")
    parser.add_argument("--runs", type=int, help="runs a regression")
    parser.add_argument("--quiet-runs", type=int, help="rollouts without a change, a stream")
    return parser.parse_args()


if __name__ == "__main__":
    main()
