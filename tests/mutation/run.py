"""Change the code a little, and see whether a test notices: `python tests/mutation/run.py [AREA ...]`.

`make mutate AREA=gate` runs one area. An area is a package of `src/whimbrel`, or `packing`: the package's own files. A
seeded sample of its mutants is tried, each against the tests of the fast suites that run its line, in a copy of the
sources. Survivors are printed. README.md in this folder says the rest.
"""

import argparse
import compileall
import functools
import json
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutation.choice import choose, file_of, own_files
from mutation.equivalent import faults, read_equivalents
from mutation.forks import ROOT, Fork, import_libraries, run_pytest
from mutation.line_map import Record, current_map, test_files
from mutation.mutants import Mutant, areas, sample

MINDS = ("policy", "plan", "gate", "health", "device", "model", "flows")
LIMIT_OF_MINDS = 0.95
LIMIT = 0.90
NICENESS = 10
MAP = ROOT / ".mutation"

SECONDS_A_MUTANT = 60.0  # of CPU: what was not tried until then is said beside a survivor
START_S, TEST_CPU_S, TEST_WALL_S = 300.0, 20.0, 180.0  # a mutant that ends in none of these never ends

Runs = list[dict[str, float]]  # tests with their seconds, a group for each process


class Result(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    outcome: str  # "killed", "timeout", "survived", "equivalent"
    tests: int  # that could notice
    left_out: int  # of these, beyond the limit of seconds
    by: str  # the test that noticed
    output: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"all by default: {', '.join(areas())}")
    parser.add_argument("--mutants", type=int, default=60, metavar="N", help="of each area (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="mutants that are tried side by side")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS_A_MUTANT, help="of CPU for the tests of a mutant (default: 60)"
    )
    parser.add_argument("--map", type=Path, default=MAP, help="where the map from lines to tests is kept")
    parser.add_argument(
        "--own", action="store_true", help="run only the areas' own tests: a first look, before all is recorded"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the sample, and which tests it would run; try nothing"
    )
    parser.add_argument("--verbose", action="store_true", help="print each mutant, and by which test it was killed")
    parser.add_argument("--json", action="store_true", help="the last line is one object with the figures")
    parser.add_argument(
        "--lax", action="store_true", help="record only tests that changed, and not those of a source that changed"
    )
    options = parser.parse_args()
    if unknown := set(options.areas) - set(areas()):
        parser.error(f"there is no area {', '.join(sorted(unknown))}; there are {', '.join(areas())}")
    if wrong := faults(read_equivalents()):
        parser.error("equivalent.toml: " + "; ".join(wrong))
    os.nice(max(0, NICENESS - os.nice(0)))
    import_libraries()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # also where a shell has it ignored, in the background
    tell = functools.partial(print, flush=True, file=sys.stderr)
    try:
        files = test_files()
        if options.own:
            own = {name for area in options.areas or areas() for name in own_files(area, frozenset(files))}
            files = [name for name in files if name in own]
        records = current_map(options.map, files, workers=options.workers, tell=tell, is_lax=options.lax)
        figures = [run_area(area, records, options, tell) for area in options.areas or areas()]
    except KeyboardInterrupt:
        raise SystemExit("stopped") from None
    print(table(figures))
    ok = all(each["ok"] for each in figures)
    if options.json:
        print(json.dumps({"ok": ok, "areas": figures}))
    raise SystemExit(not ok)


def run_area(area: str, records: dict[str, Record], options: Any, tell: Callable[[str], None]) -> dict[str, Any]:
    """Try a sample of one area's mutants. Survivors are printed as they are found."""
    tell(f"{area}: choosing {options.mutants} mutants by seed {options.seed} ...")
    mutants = sample(area, size=options.mutants, seed=options.seed)
    known = {entry[:4] for entry in read_equivalents()}
    results: list[Result] = []
    waiting: list[tuple[Mutant, Runs]] = []
    for mutant in mutants:
        runs = choose(mutant, area, records)
        if (mutant.path, mutant.function, mutant.before, mutant.after) in known:
            results.append(Result(mutant, "equivalent", sum(map(len, runs)), 0, ""))
        elif options.show:
            print(f"{change(mutant)}\n  {sum(map(len, runs))} tests\n")
        else:
            waiting.append((mutant, runs))
    began = time.monotonic()

    def done(result: Result) -> None:
        results.append(result)
        if options.verbose or result.outcome == "survived":
            print(describe(result), flush=True)
        tell(f"  {area}: {len(results)} of {len(mutants)}, {time.monotonic() - began:.0f} s: {result.outcome}")

    for mutant, runs in [each for each in waiting if each[1]][:1]:
        check_control(mutant, runs[:1], seconds=options.seconds)
    try_all(waiting, workers=options.workers, seconds=options.seconds, done=done)
    return counted(area, options.seed, [result.outcome for result in results])


def check_control(mutant: Mutant, runs: Runs, *, seconds: float) -> None:
    """Run tests of a mutant on the sources as they are: what fails here would be taken for a mutant that was noticed.

    Raises `SystemExit` where one fails.
    """
    results: list[Result] = []
    unchanged = mutant._replace(mutated=mutant.source)
    try_all([(unchanged, runs)], workers=1, seconds=seconds, done=results.append)
    if results[0].outcome != "survived":
        raise SystemExit(
            f"{results[0].by} ends as {results[0].outcome!r} in a copy of the sources that nobody changed, so nothing "
            f"can be said of mutants; mend that first\n{results[0].output}"
        )


def counted(area: str, seed: int, outcomes: list[str]) -> dict[str, Any]:
    """The figures of an area. The share leaves out the equivalent ones."""
    counts = {name: outcomes.count(name) for name in ("killed", "timeout", "survived", "equivalent")}
    tried = len(outcomes) - counts["equivalent"]
    share = (counts["killed"] + counts["timeout"]) / tried if tried else 1.0
    limit = LIMIT_OF_MINDS if area in MINDS else LIMIT
    return {
        "area": area,
        "seed": seed,
        "mutants": len(outcomes),
        **counts,
        "share": share,
        "limit": limit,
        "ok": share >= limit,
    }


def table(figures: list[dict[str, Any]]) -> str:
    """The figures for a reader."""
    columns = f"{'area':10} {'seed':>5} {'mutants':>8} {'killed':>7} {'timeouts':>9} {'equivalent':>11}"
    lines = [f"{columns} {'share':>7} {'limit':>6}"]
    for each in figures:
        lines.append(
            f"{each['area']:10} {each['seed']:5} {each['mutants']:8} {each['killed']:7} {each['timeout']:9}"
            f" {each['equivalent']:11} {each['share']:7.1%} {each['limit']:6.0%}{'' if each['ok'] else '  too few'}"
        )
    return "\n".join(lines)


def change(mutant: Mutant) -> str:
    """A mutant as a diff."""
    where = f"{mutant.path}:{mutant.line} {mutant.function}".rstrip()
    return f"{where} ({mutant.operator})\n- {mutant.before}\n+ {mutant.after}"


def describe(result: Result) -> str:
    tests = f"{result.tests} tests may notice" if result.tests else "no test may notice"
    if result.left_out:
        tests += f"; {result.left_out} of them were not tried: the seconds of CPU for a mutant were used up"
    by = f" by {result.by}" if result.by else ""
    return f"{result.outcome}{by}: {change(result.mutant)}\n  {tests}\n"


def try_all(
    mutants: list[tuple[Mutant, Runs]], *, workers: int, seconds: float, done: Callable[[Result], None]
) -> None:
    """Try mutants side by side, each worker in its own copy of the sources. Nothing is left behind."""
    temporary = Path(tempfile.mkdtemp(prefix="whimbrel-mutants-"))
    trials: dict[int, _Trial] = {}
    waiting = list(mutants)
    try:
        for slot in range(min(workers, len(mutants))):
            copy = temporary / f"{slot}" / "src"
            shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
            compileall.compile_dir(copy, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        while waiting or trials:
            for slot in range(workers):
                if slot not in trials and waiting:
                    mutant, runs = waiting.pop(0)
                    trials[slot] = _Trial(mutant, runs, seconds, temporary / f"{slot}")
            time.sleep(0.02)
            for slot, trial in list(trials.items()):
                if result := trial.look():
                    del trials[slot]
                    done(result)
    finally:
        for trial in trials.values():
            trial.end()
        shutil.rmtree(temporary, ignore_errors=True)


class _Trial:
    """One mutant in one copy of the sources: its runs of tests, one after the other."""

    def __init__(self, mutant: Mutant, runs: Runs, seconds: float, folder: Path) -> None:
        self.mutant = mutant
        self.folder = folder
        self.runs = list(runs)
        self.tests = sum(map(len, runs))
        self.begun = 0
        self.spent_s = 0.0
        self.most_s = seconds
        self.path = folder / mutant.path
        self.path.write_text(mutant.mutated, encoding="utf-8")
        for compiled in (self.path.parent / "__pycache__").glob(f"{self.path.stem}.*.pyc"):
            compiled.unlink()
        self.fork: Fork | None = None
        self.test = ""
        self.failed = ""
        self.since = (0.0, 0.0)

    def look(self) -> Result | None:
        """Go on; the result when there is one."""
        if self.fork is None:
            if not self.runs:
                return self._ended("survived")
            run = functools.partial(_run_tests, list(self.runs[0]), self.folder / "work")
            self.fork = Fork(run, source=self.folder / "src", folder=self.folder / "work")
            self.test, self.since = "", (time.monotonic(), 0.0)
            return None
        for line in self.fork.lines():
            kind, _, test = line.partition(" ")
            if kind == "test":
                self.begun += 1
                self.test, self.since = test, (time.monotonic(), self.fork.cpu_s())
            else:
                self.failed = test
        if self.fork.exit_code is None:
            if self._is_late(self.fork):
                return self._ended("timeout")
            if self.begun > 1 and self.spent_s + self.fork.cpu_s() > self.most_s and not self.failed:
                return self._ended("survived", left_out=self.tests - self.begun)
            return None
        if self.fork.exit_code != 0 or self.failed:
            return self._ended("killed")
        self.spent_s += self.fork.cpu_s()
        self.fork.end()
        self.fork = None
        self.runs.pop(0)
        return None

    def end(self) -> None:
        """End what runs, and put the file back."""
        if self.fork is not None:
            self.fork.end()
            self.fork = None
        self.path.write_text(self.mutant.source, encoding="utf-8")
        py_compile.compile(str(self.path), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)

    def _is_late(self, fork: Fork) -> bool:
        wall, cpu = time.monotonic() - self.since[0], fork.cpu_s() - self.since[1]
        if not self.test:
            return wall > START_S
        slack = 10 * self.runs[0].get(self.test, 0.0)
        return cpu > TEST_CPU_S + slack or wall > TEST_WALL_S + slack

    def _ended(self, outcome: str, left_out: int = 0) -> Result:
        by = "" if outcome == "survived" else self.failed or self.test or "an import"
        output = self.fork.output.read_text(encoding="utf-8", errors="replace")[-2000:] if self.fork else ""
        self.end()
        return Result(self.mutant, outcome, self.tests, left_out, by, output)


def _run_tests(tests: list[str], folder: Path, tell: Callable[[str], None]) -> int:
    """Run tests in the given order, until one fails. Runs in a fork."""
    sys.dont_write_bytecode = True
    files = list(dict.fromkeys(file_of(test) for test in tests))
    return run_pytest(files, folder=folder, plugin=_Chosen(tests, tell), stop_at_first=True)


class _Chosen:
    """A plugin of pytest that keeps the chosen tests, in their order, and says which one runs."""

    def __init__(self, tests: list[str], tell: Callable[[str], None]) -> None:
        self._order = {test: place for place, test in enumerate(tests)}
        self._tell = tell

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._order), key=lambda item: self._order[item.nodeid]
        )

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self._tell(f"test {nodeid}")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._tell(f"failed {report.nodeid}")


if __name__ == "__main__":
    main()
