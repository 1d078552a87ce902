"""What does the gate do to bad versions, and to good ones? Every kind that it must get right, with its limit.

Three families of kinds, each in files of its own:

1. Large fleets of alike devices, beside peers' methods and an oracle (harm_exposure.py), and alone (harm_alike.py).
2. Fleets whose devices differ and stay themselves (harm_differing.py).
3. Bad versions that were once promoted (harm_blind_spots.py).

Each row says its figure, the 95% interval, the limit and whether it is kept; `ok` needs every row, played in full by
this code. Parts of kinds run in parallel processes, and every rollout has a seed of its own, so that `--only` plays the
same rollouts as the whole table does. What was played is kept in a file after each part: `--resume` goes on where a run
was stopped (harm_results.py). The full form takes an hour or two of CPU, `--quick` two minutes, with so few rollouts
that a row fails there only where its whole interval is past the limit.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import msgspec

import harm_alike
import harm_blind_spots
import harm_differing
from harm_exposure import QUIET, alarm_row, exposure_rows, quiet_chunk, regressions
from harm_results import (
    Part,
    ResultsFile,
    Settings,
    code_version,
    counted,
    merged,
    missing_runs,
    outcomes_of,
    read_results,
    with_part,
    write_results,
)
from harm_rows import SHARES, Kind, Row
from harm_streams import DAY, MORNING, PLAN, SCENARIOS
from whimbrel.plan.plan import Plan

SEED = 20261120
CHUNK, EXPOSURE_CHUNK, QUIET_CHUNK = 25, 50, 100  # rollouts of one job
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
    """Measure, print the table, write the results; with --json the last line is one object."""
    arguments = _arguments()
    plan = PLAN if arguments.alpha is None else msgspec.structs.replace(PLAN, alpha=arguments.alpha)
    settings = Settings(
        seed=arguments.seed,
        alpha=plan.alpha,
        any_hour=arguments.any_hour,
        pooled=arguments.pooled,
        quick=arguments.quick,
    )
    wanted = _wanted(arguments)
    code = code_version()
    results = ResultsFile(settings=settings)
    if arguments.resume:
        try:
            results = read_results(arguments.results, settings, code=None if arguments.any_code else code)
        except ValueError as error:
            sys.exit(str(error))
    jobs = list(_jobs(wanted, arguments, plan, results))
    form = ", the quick form: few rollouts, wide intervals" if arguments.quick else ""
    print(f"seed {settings.seed}; again: python bench/harm.py --seed {settings.seed}; alpha {plan.alpha:g}{form}")
    print(f"code {code}, results {arguments.results}")
    print(f"{'kind':26}{'figure':>11}{'95% interval':>20}{'limit':>11}{'runs':>7}{'CPU s':>7}")
    waiting = {job.kind for job in jobs}
    for kind in wanted:
        if kind in results.parts and kind not in waiting:
            _print_rows(kind, results)
    _play_all(jobs, results, arguments, code=code)
    summary = results.summary
    for told in (*summary["missed"], *_missing_words(summary["missing"])):
        print(told)
    print(f"{summary['kept']} of {summary['rows']} rows keep their limits; {summary['cpu_s']:.0f} s of CPU")
    if arguments.json:
        print(json.dumps(summary, sort_keys=True))
    sys.exit(0 if summary["ok"] else 1)


def _play_all(jobs: list[Job], results: ResultsFile, arguments: argparse.Namespace, *, code: str) -> None:
    """Play what is missing. After each part the file is whole; a kind's rows are printed when all of it is there."""
    left: dict[str, int] = {}
    for job in jobs:
        left[job.kind] = left.get(job.kind, 0) + 1
    _summarize(results, code=code)
    for number, (job, cpu_s, played) in enumerate(
        _played(jobs, arguments.processes, seconds=arguments.seconds), start=1
    ):
        part = Part(first=job.first, runs=job.runs, cpu_s=cpu_s, code=code, results=played)
        results.parts[job.kind] = with_part(results.parts.get(job.kind, ()), part)
        left[job.kind] -= 1
        _summarize(results, code=code)
        write_results(arguments.results, results)
        if not left[job.kind]:
            _print_rows(job.kind, results)
        if sys.stderr.isatty():
            print(f"\r{number} of {len(jobs)} parts", end="\r", file=sys.stderr, flush=True)
    for kind in (kind for kind, parts in left.items() if parts and kind in results.parts):
        _print_rows(kind, results)
    write_results(arguments.results, results)


def _missing_words(missing: dict[str, list[str]]) -> Iterator[str]:
    """What `ok` lacks, one line a reason."""
    yield from (f"{reason}: {', '.join(kinds)}" for reason, kinds in missing.items() if kinds)


def _print_rows(kind: str, results: ResultsFile) -> None:
    for row in rows_of(kind, results):
        print(_line(row, cpu_s=sum(part.cpu_s for part in results.parts[kind])), flush=True)


# --- jobs ---


def _wanted(arguments: argparse.Namespace) -> list[str]:
    """The kinds in the order in which they are played: as `--only` names them, else all."""
    every = (*EXPOSURES, *KINDS)
    prefixes = arguments.only or [""]
    wanted = list(dict.fromkeys(name for prefix in prefixes for name in every if name.startswith(prefix)))
    if not wanted:
        sys.exit(f"no kind is called {', '.join(prefixes)}; they are {', '.join(every)}")
    return wanted


def runs_of(kind: str, *, quick: bool) -> tuple[int, int]:
    """How many rollouts of a kind the form asks for, and how many of them are one job."""
    if kind in KINDS:
        runs = KINDS[kind].runs
        return (KINDS[kind].quick if quick else runs), max(CHUNK, runs // 20)
    if EXPOSURES[kind] in SCENARIOS:
        return (30 if quick else 300), EXPOSURE_CHUNK
    return (200 if quick else 1000), QUIET_CHUNK


def _jobs(wanted: list[str], arguments: argparse.Namespace, plan: Plan, results: ResultsFile) -> Iterator[Job]:
    """The rollouts that are not played yet, kind by kind."""
    for kind in wanted:
        asked, chunk = runs_of(kind, quick=arguments.quick)
        for first, runs in missing_runs(results.parts.get(kind, ()), runs=arguments.runs or asked, chunk=chunk):
            yield Job(
                kind=kind,
                first=first,
                runs=runs,
                seed=arguments.seed,
                plan=plan,
                starts=DAY if arguments.any_hour else MORNING,
                pooled=arguments.pooled,
            )


def _played(jobs: list[Job], processes: int, *, seconds: float | None) -> Iterator[tuple[Job, float, dict[str, Any]]]:
    """Every job with its seconds of CPU and its results, as they come. After `seconds` no new one begins."""
    ends = math.inf if seconds is None else time.monotonic() + seconds
    queue = iter(jobs)
    with ProcessPoolExecutor(max_workers=processes) as pool:
        running: dict[Future[tuple[float, dict[str, Any]]], Job] = {}
        while True:
            while len(running) < processes and time.monotonic() < ends and (job := next(queue, None)) is not None:
                running[pool.submit(play, job)] = job
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), *future.result()


def play(job: Job) -> tuple[float, dict[str, Any]]:
    """The job's rollouts, in a process of its own: its seconds of CPU, and outcomes or a scenario's figures."""
    began = time.process_time()
    if job.kind in KINDS:
        kind = KINDS[job.kind]
        seeds = [seed_of(job, run) for run in range(job.first, job.first + job.runs)]
        pooled = {"pooled": True} if job.pooled and kind.by_device else {}
        results = counted((kind.play(seed, **pooled) for seed in seeds), first=job.first, named=kind.measure in SHARES)
    else:
        measure = regressions if EXPOSURES[job.kind] in SCENARIOS else quiet_chunk
        results = measure(
            EXPOSURES[job.kind], runs=job.runs, seed=seed_of(job, job.first), plan=job.plan, starts=job.starts
        )
    return round(time.process_time() - began, 1), results


def seed_of(job: Job, run: int) -> int:
    """Of one rollout: the same whichever kinds are played."""
    return int.from_bytes(hashlib.blake2b(f"{job.seed} {job.kind} {run}".encode(), digest_size=7).digest())


# --- rows ---


def rows_of(kind: str, results: ResultsFile) -> list[Row]:
    """The rows of a kind, of all that was played of it."""
    parts, quick = results.parts[kind], results.settings.quick
    if kind in KINDS:
        outcomes = [outcome for part in parts for outcome in outcomes_of(part.results)]
        return [KINDS[kind].row(outcomes, quick=quick)]
    together = functools.reduce(merged, (part.results for part in parts))
    if EXPOSURES[kind] in SCENARIOS:
        return exposure_rows(together, quick=quick)
    return [alarm_row(together, quick=quick)]


def _line(row: Row, *, cpu_s: float) -> str:
    def told(value: float | None) -> str:
        if value is None:
            return "never"
        return f"{100 * value:.2f}%" if row.unit == "share" else f"{value:g}"

    unit = {"windows": " win", "minutes": " min", "devices": " dev"}.get(row.unit, "")
    interval = f"{told(row.low)} to {told(row.high)}"
    limit = f"{'>=' if row.at_least else '<='} {told(row.limit)}" if row.limit is not None else "none"
    kept = "kept" if row.passed else "MISSED"
    figures = f"{row.kind:26}{told(row.figure) + unit:>11}{interval:>20}{limit:>11}{row.runs:>7}{cpu_s:>7.0f}"
    return f"{figures}  {kept:8}{row.note[:80]}"


def _summarize(results: ResultsFile, *, code: str) -> None:
    """Rows and summary of the parts. `ok` needs every row of every kind, played in full by this code, and kept."""
    settings, kinds = results.settings, [kind for kind in (*EXPOSURES, *KINDS) if results.parts.get(kind)]
    rows: list[Row] = []
    results.rows = []
    missing: dict[str, list[str]] = {
        "not played": [kind for kind in (*EXPOSURES, *KINDS) if not results.parts.get(kind)],
        "played in part": [],
        f"played by other code than {code}": [],
    }
    _, partly, otherwise = missing.values()
    for kind in kinds:
        parts = results.parts[kind]
        made, asked = rows_of(kind, results), runs_of(kind, quick=settings.quick)[0]
        rows += made
        codes = sorted({part.code for part in parts})
        cpu_s = round(sum(part.cpu_s for part in parts), 1)
        results.rows += [msgspec.to_builtins(row) | {"cpu_s": cpu_s, "code": codes} for row in made]
        if (runs := sum(part.runs for part in parts)) < asked:
            partly.append(f"{kind} ({runs} of {asked} rollouts)")
        if codes != [code]:
            otherwise.append(f"{kind} ({', '.join(codes)})")
    missed = [
        f"limit missed: {row.kind} {row.figure}, at {'least' if row.at_least else 'most'} {row.limit} ({row.says})"
        for row in rows
        if not row.passed
    ]
    alarms = [row.figure for row in rows if row.says.endswith("taken back") and row.figure is not None]
    results.summary = {
        "ok": not missed and not any(missing.values()),
        "missed": missed,
        "missing": missing,
        "rows": len(rows),
        "kept": sum(row.passed for row in rows),
        "false_alarm_max": max(alarms, default=None),
        "exposed_vs_oracle": _ratios(rows, "oracle"),
        "exposed_vs_judge": _ratios(rows, "judge"),
        "cpu_s": round(sum(part.cpu_s for parts in results.parts.values() for part in parts), 1),
        "code": code,
        **msgspec.to_builtins(settings),
    }


def _ratios(rows: list[Row], peer: str) -> dict[str, float | None]:
    ending = f"_vs_{peer}"
    return {row.kind.removesuffix(ending): row.figure for row in rows if row.kind.endswith(ending)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rollouts of each kind: a minute or two")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--only", action="append", metavar="KIND", help="kinds whose name begins so; may be repeated")
    parser.add_argument("--results", type=Path, metavar="FILE", help="where all that was played is kept, as JSON")
    parser.add_argument("--resume", action="store_true", help="keep what FILE holds of this code, and play the rest")
    parser.add_argument("--any-code", action="store_true", help="with --resume: keep what other code played, too")
    parser.add_argument("--seconds", type=float, help="begin no part after so many seconds; --resume goes on")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--alpha", type=float, help="the budget of the streams' plan, instead of the default")
    parser.add_argument("--any-hour", action="store_true", help="the streams start at any hour, not in the morning")
    parser.add_argument("--runs", type=int, help="rollouts of each kind")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--pooled", action="store_true", help="tally as a server would that knows no devices: what its care is worth"
    )
    arguments = parser.parse_args()
    if arguments.results is None:
        name = "harm-only" if arguments.only else "harm-quick" if arguments.quick else "harm"
        arguments.results = Path(__file__).parent / "results" / f"{name}.json"
    return arguments


if __name__ == "__main__":
    main()
