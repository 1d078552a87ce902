"""Which tests are run against a mutant, and in which order.

1. Code that is called: the tests that ran the line of the mutant; where no test ran that line by itself (the middle of
   an expression), those that ran its statement. Where none did, the area's own tests: a process that one of them
   starts may run it, and is not recorded.
2. Code that runs at an import (constants, defaults, decorators, fields) is run by whatever imports the file. Chosen are
   tests that use what it defines: those that ran a line of `src` which names it, and those of a test file which names
   it; then all tests of the area's own; then those of the structure.
3. An area's own tests go first: those of folders of its name, and of test files that import it. Then the quickest.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable

from mutation.forks import ROOT
from mutation.line_map import Record
from mutation.mutants import PACKAGE, SINGLE_FILES, Mutant, sources

FIRST_FILES, FILES_A_RUN = 2, 12  # most mutants are killed by the first files: the others need no import then
IMPORTED_BY_ALL = {"whimbrel", "whimbrel.errors", "whimbrel.limits"}  # to import these makes no test one of an area
STRUCTURE = (
    "tests/unit/test_structure_of_the_project.py",
    "tests/unit/test_documents_of_the_project.py",
    "tests/unit/test_limits.py",
)


def choose(mutant: Mutant, area: str, records: dict[str, Record]) -> list[dict[str, float]]:
    """The tests for a mutant of an area, with their seconds, in groups of files that one process collects."""
    own = own_files(area, frozenset(records))
    ranked: list[tuple[int, set[str]]] = []
    ran = _ran(records, mutant.path, [mutant.line]) or _ran(records, mutant.path, mutant.lines)
    owned = {test for name in own for test in records[name].seconds}
    if not mutant.names:
        ranked = [(0, ran or owned)]
    else:
        used = set(ran)
        for path, lines in _lines_that_name(mutant.names).items():
            used |= _ran(records, path, lines)
        for name, record in records.items():
            if _names_of(name) & set(mutant.names):
                used |= record.seconds.keys()
        structure = {test for name in STRUCTURE if name in records for test in records[name].seconds}
        ranked = [(0, used), (2, owned), (4, structure)]
    place: dict[str, int] = {}
    for rank, tests in ranked:
        for test in tests:
            place.setdefault(test, rank + (file_of(test) not in own))
    files: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for test, rank in place.items():
        files[rank, file_of(test)][test] = records[file_of(test)].seconds[test]
    order = sorted(files, key=lambda key: (key[0], sum(files[key].values()) / len(files[key]), key[1]))
    groups = [order[:FIRST_FILES]] * bool(order)
    groups += [order[start : start + FILES_A_RUN] for start in range(FIRST_FILES, len(order), FILES_A_RUN)]
    return [{test: seconds for key in group for test, seconds in _by_seconds(files[key])} for group in groups]


def _by_seconds(tests: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(tests.items(), key=lambda item: (item[1], item[0]))


def file_of(test: str) -> str:
    """The test file of a test's id."""
    return test.partition("::")[0]


@functools.cache
def own_files(area: str, names: frozenset[str]) -> frozenset[str]:
    """The test files of an area: those in a folder of its name, and those that import one of its modules."""
    modules = {path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__") for path in sources(area)}
    dotted = {module.replace("/", ".") for module in modules} - IMPORTED_BY_ALL
    folder = "unit" if area == SINGLE_FILES else area
    own = set()
    for name in names:
        text = _text(name)
        imported = set(re.findall(r"^\s*(?:from|import) (whimbrel[\w.]*)", text, re.MULTILINE))
        imported |= {f"whimbrel.{each}" for each in re.findall(r"^\s*from whimbrel import (\w+)", text, re.MULTILINE)}
        if name.split("/")[-2] == folder or folder in name.split("/")[2:-1] or imported & dotted:
            own.add(name)
    return frozenset(own)


def _ran(records: dict[str, Record], path: str, lines: Iterable[int]) -> set[str]:
    return {test for record in records.values() for test in record.tests_of(path, lines)}


@functools.cache
def _lines_that_name(names: tuple[str, ...]) -> dict[str, list[int]]:
    """The lines of `src` with one of these names."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    lines = defaultdict(list)
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        text = _text(name)
        if pattern.search(text):
            lines[name] = [number for number, row in enumerate(text.splitlines(), 1) if pattern.search(row)]
    return dict(lines)


@functools.cache
def _names_of(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", _text(name)))


@functools.cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
