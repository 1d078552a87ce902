"""What does the gate do to bad versions, and to good ones? Every kind that it must get right, with its limit.

Three families of kinds, each in files of its own:

1. Large fleets of alike devices, beside peers' methods and an oracle (harm_exposure.py), and alone (harm_alike.py).
2. Fleets whose devices differ and stay themselves (harm_differing.py).
3. Bad versions that were once promoted (harm_blind_spots.py).

Each row says its figure, the 95% interval, the limit and whether it is kept; `ok` needs them all. Kinds run in parallel
processes, and every rollout has a seed of its own, so that `--only` plays the same rollouts as the whole table does.
The full form takes an hour or two on two cores; `--quick` a minute or two, with so few rollouts that a row fails there
only where its whole interval is past the limit.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

import harm_alike
import harm_blind_spots
import harm_differing
from harm_exposure import QUIET, alarm_row, exposure_rows, merged, quiet_chunk, regressions
from harm_rows import Kind, Outcome, Row
from harm_streams import DAY, MORNING, PLAN, SCENARIOS
from whimbrel.plan.plan import Plan

SEED = 20261120
CHUNK, QUIET_CHUNK = 25, 100  # rollouts of one job
KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (*harm_alike.KINDS, *harm_differing.KINDS, *harm_blind_spots.KINDS)
}
EXPOSURES = {scenario.name: scenario for scenario in (*SCENARIOS, *QUIET)}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Some rollouts of one kind; `first` of them, and so many. It travels to another process."""

    kind: str
    first: int
    runs: int
    seed: int
    plan: Plan
    starts: int
    pooled: bool


def main() -> None:
    """Measure, print the table, write the raw figures; with --json the last line is one object."""
    arguments = _arguments()
    plan = PLAN if arguments.alpha is None else msgspec.structs.replace(PLAN, alpha=arguments.alpha)
    began = time.monotonic()
    jobs = list(_jobs(arguments, plan))
    if not jobs:
        sys.exit(f"no kind is called {arguments.only}; they are {', '.join((*EXPOSURES, *KINDS))}")
    form = ", the quick form: few rollouts, wide intervals" if arguments.quick else ""
    print(f"seed {arguments.seed}; again: python bench/harm.py --seed {arguments.seed}; alpha {plan.alpha:g}{form}")
    print(f"{'kind':26}{'figure':>11}{'95% interval':>20}{'limit':>11}{'runs':>7}")
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    for kind, results in _played(jobs, processes=arguments.processes):
        made, raw[kind] = _rows_of(kind, results, quick=arguments.quick)
        rows += made
        for row in made:
            print(_line(row), flush=True)
    summary = _summary(rows, raw)
    summary |= {"seed": arguments.seed, "seconds": round(time.monotonic() - began, 1), "alpha": plan.alpha}
    summary |= {"quick": arguments.quick, "only": arguments.only}
    table = [msgspec.to_builtins(row) for row in sorted(rows, key=lambda row: row.kind)]
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    raw_file = folder / ("harm.json" if not arguments.only else "harm-only.json")
    raw_file.write_text(json.dumps({"summary": summary, "rows": table, "raw": raw}, indent=1, sort_keys=True) + "\n")
    for missed in summary["missed"]:
        print(f"the bar is missed: {missed}")
    print(f"{sum(row.passed for row in rows)} of {len(rows)} rows keep their limits; {summary['seconds']:.0f} s")
    if arguments.json:
        print(json.dumps(summary, sort_keys=True))
    sys.exit(0 if summary["ok"] else 1)


# --- jobs ---


def _jobs(arguments: argparse.Namespace, plan: Plan) -> Iterator[Job]:
    """The longest first, so that the last ones are short."""

    def chosen(name: str) -> bool:
        return not arguments.only or any(name.startswith(prefix) for prefix in arguments.only)

    def job(kind: str, first: int, runs: int) -> Job:
        return Job(
            kind=kind,
            first=first,
            runs=runs,
            seed=arguments.seed,
            plan=plan,
            starts=DAY if arguments.any_hour else MORNING,
            pooled=arguments.pooled,
        )

    for scenario in SCENARIOS:
        if chosen(scenario.name):
            yield job(scenario.name, 0, arguments.runs or (30 if arguments.quick else 300))
    for scenario in QUIET:
        runs = arguments.runs or (200 if arguments.quick else 1000)
        for first in range(0, runs if chosen(scenario.name) else 0, QUIET_CHUNK):
            yield job(scenario.name, first, min(QUIET_CHUNK, runs - first))
    for kind in KINDS.values():
        runs = arguments.runs or (kind.quick if arguments.quick else kind.runs)
        chunk = max(CHUNK, runs // 20)
        for first in range(0, runs if chosen(kind.name) else 0, chunk):
            yield job(kind.name, first, min(chunk, runs - first))


def _played(jobs: list[Job], *, processes: int) -> Iterator[tuple[str, list[Any]]]:
    """Every kind with the results of its jobs, as soon as all of them are there."""
    waiting: dict[str, int] = {}
    for job in jobs:
        waiting[job.kind] = waiting.get(job.kind, 0) + 1
    results: dict[str, dict[int, Any]] = {kind: {} for kind in waiting}
    with ProcessPoolExecutor(max_workers=processes) as pool:
        futures: dict[Future[Any], Job] = {pool.submit(play, job): job for job in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            job = futures[future]
            results[job.kind][job.first] = future.result()
            if sys.stderr.isatty():
                print(f"\r{number} of {len(jobs)} parts", end="\r", file=sys.stderr, flush=True)
            if len(results[job.kind]) == waiting[job.kind]:
                yield job.kind, [results[job.kind][first] for first in sorted(results[job.kind])]


def play(job: Job) -> Any:
    """The job's rollouts, in a process of its own: outcomes, or a scenario's figures."""
    if job.kind in KINDS:
        kind = KINDS[job.kind]
        seeds = [seed_of(job, run) for run in range(job.first, job.first + job.runs)]
        return [kind.play(seed, pooled=True) if job.pooled and kind.by_device else kind.play(seed) for seed in seeds]
    measure = regressions if EXPOSURES[job.kind] in SCENARIOS else quiet_chunk
    return measure(EXPOSURES[job.kind], runs=job.runs, seed=seed_of(job, job.first), plan=job.plan, starts=job.starts)


def seed_of(job: Job, run: int) -> int:
    """Of one rollout: the same whichever kinds are played."""
    return int.from_bytes(hashlib.blake2b(f"{job.seed} {job.kind} {run}".encode(), digest_size=7).digest())


# --- rows ---


def _rows_of(kind: str, results: list[Any], *, quick: bool) -> tuple[list[Row], Any]:
    """The rows of a kind, and its raw figures."""
    if kind in KINDS:
        outcomes: list[Outcome] = [outcome for part in results for outcome in part]
        raw = [msgspec.to_builtins(each) for each in outcomes] if len(outcomes) <= 1000 else []
        return [KINDS[kind].row(outcomes, quick=quick)], raw
    if EXPOSURES[kind] in SCENARIOS:
        return exposure_rows(results[0], quick=quick), results[0]
    alarms = merged(results)
    return [alarm_row(alarms, quick=quick)], alarms


def _line(row: Row) -> str:
    def told(value: float | None) -> str:
        if value is None:
            return "never"
        return f"{100 * value:.2f}%" if row.unit == "share" else f"{value:g}"

    unit = {"windows": " win", "minutes": " min", "devices": " dev"}.get(row.unit, "")
    interval = f"{told(row.low)} to {told(row.high)}"
    limit = f"{'>=' if row.at_least else '<='} {told(row.limit)}" if row.limit is not None else "none"
    kept = "kept" if row.passed else "MISSED"
    return f"{row.kind:26}{told(row.figure) + unit:>11}{interval:>20}{limit:>11}{row.runs:>7}  {kept:8}{row.note[:80]}"


def _summary(rows: list[Row], raw: dict[str, Any]) -> dict[str, Any]:
    missed = [
        f"{row.kind} {row.figure}, at {'least' if row.at_least else 'most'} {row.limit} ({row.says})"
        for row in rows
        if not row.passed
    ]
    alarms = [row.figure for row in rows if row.kind in raw and row.says.endswith("taken back")]
    summary: dict[str, Any] = {"ok": not missed, "missed": missed, "rows": len(rows)}
    summary["false_alarm_max"] = max((each for each in alarms if each is not None), default=None)
    for key, peer in (("exposed_vs_oracle", "oracle"), ("exposed_vs_judge", "judge")):
        summary[key] = {
            row.kind.removesuffix(f"_vs_{peer}"): row.figure for row in rows if row.kind.endswith(f"_vs_{peer}")
        }
    return summary


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rollouts of each kind: a minute or two")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--only", action="append", metavar="KIND", help="kinds whose name begins so; may be repeated")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--alpha", type=float, help="the budget of the streams' plan, instead of the default")
    parser.add_argument("--any-hour", action="store_true", help="the streams start at any hour, not in the morning")
    parser.add_argument("--runs", type=int, help="rollouts of each kind")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--pooled", action="store_true", help="tally as a server would that knows no devices: what its care is worth"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
