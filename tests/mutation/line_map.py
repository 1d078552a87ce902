"""Which tests run a line: recorded once by coverage, kept in `.mutation/`, and recorded anew where it is out of date.

1. A record is one test file: its tests with their seconds, and for each source file the lines that each test ran. Lines
   that are run by a fixture of a module or a session belong to all tests of the file.
2. A record says what it was made of: the contents (SHA-256) of the test file, of the files of `tests/` that it imports,
   and of the source files that its tests ran. Paths are relative, so that a copy serves another checkout.
3. A record is out of date when one of these contents is another one; then that test file is run again, and no other.
4. Tests that fail without any mutant are left out, and said.
"""

import ast
import functools
import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mutation.forks import ROOT, Fork, run_pytest

SUITES = ("unit", "vectors", "conformance", "property", "attack")  # the quickest first
FILES_A_FORK = 6
BATCH_LIMIT_S = 1800
SHARED = "shared"  # the context of fixtures that several tests use


class Record:
    """What the tests of one file ran."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.made_of: dict[str, str] = content["made_of"]
        self.seconds: dict[str, float] = content["seconds"]  # of each test that passed
        self.failed: list[str] = content["failed"]
        self.lines: dict[str, dict[str, list[int]]] = content["lines"]  # source -> test or SHARED -> lines

    def tests_of(self, source: str, lines: Iterable[int]) -> Iterator[str]:
        """The tests of this file that ran one of the lines of a source file."""
        wanted = set(lines)
        ran = self.lines.get(source, {})
        if not wanted.isdisjoint(ran.get(SHARED, ())):
            yield from self.seconds
            return
        for test, its_lines in ran.items():
            if test in self.seconds and not wanted.isdisjoint(its_lines):
                yield test


def test_files() -> list[str]:
    """The files of the fast suites, relative to the checkout."""
    folders = (ROOT / "tests" / suite for suite in SUITES)
    return [path.relative_to(ROOT).as_posix() for folder in folders for path in sorted(folder.rglob("test_*.py"))]


def current_map(folder: Path, files: list[str], *, workers: int, tell: Callable[[str], None]) -> dict[str, Record]:
    """The record of each of these test files, after those out of date were made anew."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {name: record for name in files if (record := _read(folder, name)) is not None}
    stale = [name for name in files if name not in records or not _is_current(name, records[name])]
    if stale:
        tell(f"recording which lines the tests of {len(stale)} of {len(files)} files run ...")
        _record_all(stale, folder, workers=workers, tell=tell)
        records |= {name: record for name in stale if (record := _read(folder, name)) is not None}
    failed = [test for record in records.values() for test in record.failed]
    if failed:
        tell(f"{len(failed)} tests fail without a mutant and are left out: {', '.join(failed[:5])}")
    return records


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name.replace('/', '+')}.json.gz"


def _read(folder: Path, name: str) -> Record | None:
    try:
        return Record(json.loads(gzip.decompress(_path(folder, name).read_bytes())))
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _is_current(name: str, record: Record) -> bool:
    sources = {path: content for path, content in record.made_of.items() if path.startswith("src/")}
    return record.made_of == sources | _contents(_imports(name)) and sources == _contents(sources)


def _contents(paths: Iterable[str]) -> dict[str, str]:
    return {path: _content(path) for path in sorted(paths)}


@functools.cache
def _content(path: str) -> str:
    try:
        return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()
    except OSError:
        return "absent"


@functools.cache
def _imports(name: str) -> frozenset[str]:
    """The files of `tests/` that a test file is made of: itself, conftest, and what they import of `tests/`."""
    reached: set[str] = set()
    waiting = [name, "tests/conftest.py"]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += _imported_files(path)
    return frozenset(reached)


@functools.cache
def _imported_files(path: str) -> tuple[str, ...]:
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (f"tests/{name.replace('.', '/')}" for name in names)
    return tuple(file for each in files for file in (f"{each}.py", f"{each}/__init__.py") if (ROOT / file).is_file())


def _record_all(files: list[str], folder: Path, *, workers: int, tell: Callable[[str], None]) -> None:
    batches = [files[start : start + FILES_A_FORK] for start in range(0, len(files), FILES_A_FORK)]
    began = time.monotonic()
    done = 0
    running: dict[int, tuple[Fork, list[str]]] = {}
    temporary = Path(tempfile.mkdtemp(prefix="whimbrel-lines-"))
    try:
        while batches or running:
            for slot in range(workers):
                if slot not in running and batches:
                    batch = batches.pop(0)
                    run = functools.partial(_record_batch, batch, folder, temporary / str(slot))
                    running[slot] = (Fork(run, source=ROOT / "src", folder=temporary / str(slot)), batch)
            time.sleep(0.1)
            for slot, (fork, batch) in list(running.items()):
                fork.lines()
                if fork.exit_code is None and time.monotonic() - fork.began < BATCH_LIMIT_S:
                    continue
                if fork.exit_code != 0:
                    text = fork.output.read_text(encoding="utf-8", errors="replace")
                    tell(f"recording of {', '.join(batch)} ended with {fork.exit_code}:\n{text[-3000:]}")
                del running[slot]
                fork.end()
                done += len(batch)
                tell(f"  {done} of {len(files)} test files recorded, {time.monotonic() - began:.0f} s")
    finally:
        for fork, _ in running.values():
            fork.end()
        shutil.rmtree(temporary, ignore_errors=True)


def _record_batch(files: list[str], folder: Path, work: Path, tell: Callable[[str], None]) -> int:
    """Run test files under coverage, and write the record of each. Runs in a fork."""
    import coverage

    sys.dont_write_bytecode = False  # pytest keeps the rewritten tests: every later fork has them
    package = ROOT / "src" / "whimbrel"
    measured = coverage.Coverage(data_file=None, config_file=False, source=[str(package)], messages=False)
    watcher = _Watcher(measured.switch_context)
    measured.start()
    run_pytest(files, folder=work, plugin=watcher, stop_at_first=False)
    measured.stop()
    data = measured.get_data()
    lines: dict[str, dict[str, dict[str, list[int]]]] = {name: defaultdict(dict) for name in files}
    for path in data.measured_files():
        source = Path(path).relative_to(ROOT).as_posix()
        by_context = defaultdict(list)
        for line, contexts in data.contexts_by_lineno(path).items():
            for context in contexts:
                by_context[context].append(line)
        for context, its_lines in by_context.items():
            name, _, test = context.partition("::")
            if name in lines:
                lines[name][source][SHARED if test == SHARED else context] = sorted(its_lines)
    for name in files:
        made_of = _contents({*_imports(name), *lines[name]})
        content = {
            "made_of": made_of,
            "seconds": {t: round(s, 4) for t, s in watcher.seconds.items() if t.startswith(f"{name}::")},
            "failed": sorted(test for test in watcher.failed if test.startswith(f"{name}::")),
            "lines": lines[name],
        }
        content["seconds"] = {t: s for t, s in content["seconds"].items() if t not in watcher.failed}
        temporary = _path(folder, name).with_suffix(f".{os.getpid()}")
        temporary.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), 3))
        temporary.replace(_path(folder, name))
    return 0


class _Watcher:
    """A plugin of pytest that names the context for coverage, and times each test."""

    def __init__(self, switch: Callable[[str], None]) -> None:
        self._switch = switch
        self._current = ""
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        self._current = nodeid
        self._switch(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str, location: object) -> None:
        self._switch("")

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        if fixturedef.scope == "function":
            return (yield)
        self._switch(f"{self._current.partition('::')[0]}::{SHARED}")
        try:
            return (yield)
        finally:
            self._switch(self._current)
