"""Which tests run a line: recorded once by coverage, kept in `.mutation/`, and recorded anew where it is out of date.

1. A record is one test file: its tests with their seconds, and for each source file the lines that each test ran. Lines
   that are run by a fixture of a module or a session belong to all tests of the file.
2. A record says what it was made of: the contents (SHA-256) of the test file and of the files of `src` and `tests` that
   its tests ran. Paths are relative, so that a copy serves another checkout.
3. A record is out of date when the test file changed, or a line that one of its tests ran; then that test file is run
   again, and no other. Where other lines of a file changed, the record follows the lines to their new places.
4. Tests that fail without any mutant are left out, and said.
"""

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
from difflib import SequenceMatcher
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


def current_map(
    folder: Path, files: list[str], *, workers: int, tell: Callable[[str], None], is_lax: bool = False
) -> dict[str, Record]:
    """The record of each of these test files, after those out of date were made anew.

    `is_lax`: only where the test file itself changed, or is new. A line that changed since may then miss a test.
    """
    kept = Kept(folder)
    records = {name: record for name in files if (record := kept.current(name, is_lax=is_lax)) is not None}
    stale = [name for name in files if name not in records]
    if stale:
        tell(f"recording which lines the tests of {len(stale)} of {len(files)} files run ...")
        _record_all(stale, kept, workers=workers, tell=tell)
        records |= {name: record for name in stale if (record := kept.read(name)) is not None}
    failed = [test for record in records.values() for test in record.failed]
    if failed:
        tell(f"{len(failed)} tests fail without a mutant and are left out: {', '.join(failed[:5])}")
    return records


class Kept:
    """The folder of records, with the texts of the files that they were made of."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self._folder = folder
        self._root = root
        self._texts = folder / "texts"
        self._texts.mkdir(parents=True, exist_ok=True)
        self._content = functools.cache(self._content_of)
        self._moved = functools.cache(self._moved_lines)

    def read(self, name: str) -> Record | None:
        """The record of a test file as it was made, if there is one."""
        try:
            return Record(json.loads(gzip.decompress(self._path(name).read_bytes())))
        except (OSError, ValueError, KeyError, EOFError):
            return None

    def write(self, name: str, record: Record) -> None:
        """Keep a record, and the texts that it speaks of."""
        for path, content in record.made_of.items():
            self._replace(self._texts / content[:32], gzip.compress((self._root / path).read_bytes(), 3))
        octets = json.dumps(vars(record), separators=(",", ":")).encode()
        self._replace(self._path(name), gzip.compress(octets, 3))

    def made_of(self, name: str, paths: Iterable[str]) -> dict[str, str]:
        """The contents of a test file and of what its tests ran."""
        return {path: self._content(path) for path in sorted({name, *paths})}

    def current(self, name: str, *, is_lax: bool = False) -> Record | None:
        """The record of a test file, with its lines where they stand now; None where it must be made anew.

        `is_lax`: lines that changed are left out of it, and it is not kept so.
        """
        record = self.read(name)
        if record is None or record.made_of.get(name) != self._content(name):
            return None
        changed = [path for path, content in record.made_of.items() if content != self._content(path)]
        for path in changed:
            moved = self._moved(path, record.made_of[path])
            ran = record.lines.get(path, {})
            if not is_lax and (moved is None or any(line not in moved for lines in ran.values() for line in lines)):
                return None
            moved = moved or {}
            record.lines[path] = {test: [moved[line] for line in lines if line in moved] for test, lines in ran.items()}
            record.made_of[path] = self._content(path)
        if changed and not is_lax:
            self.write(name, record)
        return record

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.replace('/', '+')}.json.gz"

    def _content_of(self, path: str) -> str:
        try:
            return hashlib.sha256((self._root / path).read_bytes()).hexdigest()
        except OSError:
            return "absent"

    def _moved_lines(self, path: str, content: str) -> dict[int, int] | None:
        """Where each line of an earlier text stands now, without the lines at a change; None where a text is lost."""
        try:
            before = gzip.decompress((self._texts / content[:32]).read_bytes()).decode().splitlines()
            after = (self._root / path).read_text(encoding="utf-8").splitlines()
        except (OSError, EOFError):
            return None
        moved: dict[int, int] = {}
        beside: set[int] = set()  # who ran the line above or below may run what was put in between
        for tag, start, end, start_now, _ in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag == "equal":
                moved |= {line + 1: line - start + start_now + 1 for line in range(start, end)}
            elif tag == "insert":
                beside |= {line for line in (start, start + 1) if _is_indented(before[line - 1 : line])}
        return {line: now for line, now in moved.items() if line not in beside}

    @staticmethod
    def _replace(path: Path, octets: bytes) -> None:
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_bytes(octets)
        temporary.replace(path)


def _is_indented(rows: list[str]) -> bool:
    return any(row.startswith(" ") for row in rows)


def _record_all(files: list[str], kept: Kept, *, workers: int, tell: Callable[[str], None]) -> None:
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
                    run = functools.partial(_record_batch, batch, kept, temporary / str(slot))
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


def _record_batch(files: list[str], kept: Kept, work: Path, tell: Callable[[str], None]) -> int:
    """Run test files under coverage, and write the record of each. Runs in a fork."""
    import coverage

    sys.dont_write_bytecode = False  # pytest keeps the rewritten tests: every later fork has them
    measured = coverage.Coverage(
        data_file=None,
        config_file=False,
        include=[str(ROOT / "src" / "*"), str(ROOT / "tests" / "support" / "*"), str(ROOT / "tests" / "conftest.py")],
        messages=False,
    )
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
        seconds = {test: round(spent, 4) for test, spent in watcher.seconds.items() if test.startswith(f"{name}::")}
        content = {
            "made_of": kept.made_of(name, lines[name]),
            "seconds": {test: spent for test, spent in seconds.items() if test not in watcher.failed},
            "failed": sorted(watcher.failed & seconds.keys()),
            "lines": lines[name],
        }
        kept.write(name, Record(content))
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
