"""`make mutate`: what it tries, which tests it runs, and what it says of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mutation import choice, equivalent, line_map, mutants, run
from mutation.equivalent import Equivalent
from mutation.line_map import Kept, Record

SOURCE = '''
"""A tiny package with 1 + 1 promises."""
from typing import Annotated, Final

MOST = 3
Name = str | None


def bounded(number: int, most: "int | None" = 5) -> int:
    """At most 5 < 6."""
    log.info("asked %s", number + 1)
    return min(number, most)
'''


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(SOURCE)
    return path


def changes(path: Path, *, size: int = 100, seed: int = 1) -> set[tuple[str, str]]:
    return {(mutant.before, mutant.after) for mutant in mutants.sample_of_files([path], size=size, seed=seed)}


def test_constants_defaults_and_code_are_changed_and_types_words_and_logs_are_not(tiny: Path) -> None:
    header = 'def bounded(number: int, most: "int | None" = {}) -> int:'
    assert changes(tiny) == {
        ("MOST = 3", "MOST = 4"),
        ("MOST = 3", "MOST = 2"),
        (header.format(5), header.format(6)),
        (header.format(5), header.format(4)),
        ("return min(number, most)", "return max(number, most)"),
    }


def test_a_seed_gives_one_sample_and_another_seed_another(tmp_path: Path) -> None:
    path = tmp_path / "numbers.py"
    path.write_text("".join(f"N{number} = {number * 10}\n" for number in range(50)))
    first = changes(path, size=10)
    assert first == changes(path, size=10)
    assert len(first) == 10
    assert first != changes(path, size=10, seed=2)


def test_a_sample_is_spread_over_files_by_their_number_of_mutants(tmp_path: Path) -> None:
    large, small = tmp_path / "large.py", tmp_path / "small.py"
    large.write_text("\n".join("x = 1" for _ in range(30)))
    small.write_text("\n".join("x = 1" for _ in range(10)))
    sample = mutants.sample_of_files([large, small], size=8, seed=1)
    assert [Path(mutant.path).name for mutant in sample] == ["large.py"] * 6 + ["small.py"] * 2


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("if a in b:\n    pass", {"if a not in b:", "if not a in b:"}),
        ("if a not in b:\n    pass", {"if a in b:", "if not a not in b:"}),
        ("x = all(each for each in y)", {"x = any(each for each in y)"}),
        ("self.check(x)", {"pass"}),
        ("x += y", {"pass"}),
        ("x = self.min(y)", set()),
        ("class A(Struct, frozen=True, omit_defaults=True): ...", {
            "class A(Struct, frozen=True, omit_defaults=False): ..."
        }),
        ("for a, b in zip(x, y, strict=True): ...", {"for a, b in []: ..."}),
        ("Share = Annotated[int, Meta(le=9)] | None", {
            "Share = Annotated[int, Meta(le= 10)] | None", "Share = Annotated[int, Meta(le= 8)] | None"
        }),
        ("class A:\n    '''→ a'''\n    x: 'dict[int, Literal[1]]' = {}; y = 1", {
            "x: 'dict[int, Literal[1]]' = {}; y = 2", "x: 'dict[int, Literal[1]]' = {}; y = 0"
        }),
        ("@cache\ndef f(): ...", set()),
        ("@property\ndef f(): ...", {""}),
        ("if TYPE_CHECKING:\n    x = 1", set()),
    ],
)  # fmt: skip
def test_a_piece_of_code_has_these_mutants(tmp_path: Path, code: str, changed: set[str]) -> None:
    path = tmp_path / "piece.py"
    path.write_text(code + "\n")
    assert {" ".join(after.split()) for _, after in changes(path)} == {" ".join(each.split()) for each in changed}


def test_each_kind_that_is_left_out_has_its_reason() -> None:
    assert all(len(reason) > 20 for reason in mutants.LEFT_OUT.values())


def test_every_area_has_sources() -> None:
    assert {"gate", "server", "packing"} <= set(mutants.areas())
    assert all(mutants.sources(area) for area in mutants.areas())
    assert "src/whimbrel/limits.py" in mutants.sources("packing")


def test_the_reviewed_list_speaks_of_code_that_is_there() -> None:
    assert equivalent.faults(equivalent.read_equivalents()) == []


def entry(**fields: str) -> Equivalent:
    fields = {"function": "bounded", "before": "return min(number, most)", "after": "return max(number, most)"} | fields
    return Equivalent(**{"file": "tiny.py", "reason": "the least is never the most"} | fields)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"before": "return number"}, "tiny.py: bounded: 'return number': there is no such line any more"),
        ({"function": "unbounded"}, "there is no such line any more"),
        ({"function": "", "before": "MOST = 4"}, "tiny.py: top: 'MOST = 4': there is no such line any more"),
        ({"file": "gone.py"}, "gone.py: bounded: 'return min(number, most)': there is no such line any more"),
        ({"reason": "equivalent"}, "an entry says what changes, and why"),
        ({"after": "return min(number, most)"}, "an entry says what changes, and why"),
    ],
)
def test_an_entry_of_the_reviewed_list_that_is_wrong_is_told(tiny: Path, wrong: dict[str, str], sentence: str) -> None:
    (told,) = equivalent.faults([entry(**wrong)], root=tiny.parent)
    assert sentence in told


def test_an_entry_matches_by_its_text(tiny: Path) -> None:
    assert equivalent.faults([entry(), entry(function="", before="MOST = 3", after="MOST = 4")], root=tiny.parent) == []
    assert "is there twice" in equivalent.faults([entry(), entry()], root=tiny.parent)[0]


@pytest.mark.parametrize(
    ("area", "killed", "ok"), [("gate", 19, True), ("gate", 18, False), ("server", 18, True), ("server", 17, False)]
)
def test_a_mind_needs_95_percent_and_another_area_90(area: str, killed: int, ok: bool) -> None:
    outcomes = ["killed"] * (killed - 1) + ["timeout"] + ["survived"] * (20 - killed) + ["equivalent"] * 5
    figures = run.counted(area, 1, outcomes)
    assert figures["ok"] is ok
    assert (figures["mutants"], figures["share"]) == (25, killed / 20)


def kept_record(root: Path, ran: dict[str, list[int]]) -> Kept:
    """A record of test_tiny.py, whose tests ran lines of tiny.py."""
    (root / "test_tiny.py").write_text("")
    kept = Kept(root / "map", root=root)
    made_of = kept.made_of("test_tiny.py", ["tiny.py"])
    seconds = dict.fromkeys((f"test_tiny.py::{test}" for test in ran if test != line_map.SHARED), 0.1)
    lines = {test if test == line_map.SHARED else f"test_tiny.py::{test}": rows for test, rows in ran.items()}
    kept.write(
        "test_tiny.py", Record({"made_of": made_of, "seconds": seconds, "failed": [], "lines": {"tiny.py": lines}})
    )
    return Kept(root / "map", root=root)


def rewritten(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().split("\n"))))


def test_a_record_follows_its_lines_when_others_change(tiny: Path) -> None:
    kept_record(tiny.parent, {"test_a": [12]})
    rewritten(tiny, lambda rows: ["# a", "# b", *rows[:4], "MOST = 4", *rows[5:]])
    record = Kept(tiny.parent / "map", root=tiny.parent).current("test_tiny.py")
    assert record is not None
    assert record.lines["tiny.py"] == {"test_tiny.py::test_a": [14]}
    again = Kept(tiny.parent / "map", root=tiny.parent).current("test_tiny.py")
    assert again is not None
    assert vars(again) == vars(record)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows[:11], "    return max(number, most)", *rows[12:]],
        lambda rows: [*rows[:11], "    number += 1", *rows[11:]],
        lambda rows: [*rows[:12], "    number += 1", *rows[12:]],
        lambda rows: rows[:11],
    ],
    ids=["changed", "above", "below", "removed"],
)
def test_a_record_is_made_anew_when_a_line_changes_that_its_tests_ran(
    tiny: Path, change: Callable[[list[str]], list[str]]
) -> None:
    kept_record(tiny.parent, {"test_a": [12]})
    rewritten(tiny, change)
    assert Kept(tiny.parent / "map", root=tiny.parent).current("test_tiny.py") is None


def test_a_lax_record_forgets_the_lines_that_changed(tiny: Path) -> None:
    kept_record(tiny.parent, {"test_a": [11, 12]})
    rewritten(tiny, lambda rows: [*rows[:11], "    return max(number, most)", *rows[12:]])
    record = Kept(tiny.parent / "map", root=tiny.parent).current("test_tiny.py", is_lax=True)
    assert record is not None
    assert record.lines["tiny.py"] == {"test_tiny.py::test_a": [11]}
    assert Kept(tiny.parent / "map", root=tiny.parent).current("test_tiny.py") is None


def test_a_record_is_made_anew_when_its_tests_change(tiny: Path) -> None:
    kept = kept_record(tiny.parent, {"test_a": [12]})
    assert kept.current("test_tiny.py") is not None
    (tiny.parent / "test_tiny.py").write_text("# another")
    assert Kept(tiny.parent / "map", root=tiny.parent).current("test_tiny.py") is None


def test_lines_of_a_shared_fixture_are_run_by_every_test(tiny: Path) -> None:
    record = kept_record(tiny.parent, {"test_a": [12], "test_b": [11], line_map.SHARED: [9]}).current("test_tiny.py")
    assert record is not None
    assert sorted(record.tests_of("tiny.py", [9])) == ["test_tiny.py::test_a", "test_tiny.py::test_b"]
    assert list(record.tests_of("tiny.py", [11])) == ["test_tiny.py::test_b"]
    assert list(record.tests_of("tiny.py", [5])) == []


def test_tests_of_the_area_go_first_and_then_the_quickest() -> None:
    def record(name: str, seconds: dict[str, float]) -> Record:
        tests = {f"{name}::{test}": spent for test, spent in seconds.items()}
        lines = {"src/whimbrel/gate/verdict.py": {test: [40] for test in tests}}
        return Record({"made_of": {}, "seconds": tests, "failed": [], "lines": lines})

    gate = next(name for name in line_map.test_files() if name.startswith("tests/unit/gate/"))
    other = "tests/unit/test_plain_text.py"
    records = {
        other: record(other, {"test_quick": 0.01}),
        gate: record(gate, {"test_slow": 0.9, "test_quick": 0.5}),
    }
    mutant = mutants.Mutant("src/whimbrel/gate/verdict.py", "AddNot", 0, 40, "judge", (40,), (), "", "")
    assert [list(group) for group in choice.choose(mutant, "gate", records)] == [
        [f"{gate}::test_quick", f"{gate}::test_slow", f"{other}::test_quick"]
    ]
    elsewhere = mutant._replace(line=50, lines=(50,))
    assert choice.choose(elsewhere, "gate", records) == [{f"{gate}::test_quick": 0.5, f"{gate}::test_slow": 0.9}]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the program and a package of a few lines."""
    here = Path(__file__).parents[1] / "mutation"
    shutil.copytree(here, tmp_path / "tests/mutation", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests/mutation/equivalent.toml").write_text("")
    (tmp_path / "tests/conftest.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\nmarkers = ["long", "postgresql", "nats"]\n'
    )
    package = tmp_path / "src/whimbrel/tiny"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text(
        "def tried(a):\n    return -a\n\n\ndef untried(a):\n    return -a\n\n\n"
        "def endless(a):\n    while a > 5:\n        a -= a\n"
    )
    (tmp_path / "tests/unit/tiny").mkdir(parents=True)
    return tmp_path


def mutated(checkout: Path, test: str) -> subprocess.CompletedProcess[str]:
    """The program, run with this one test."""
    (checkout / "tests/unit/tiny/test_tiny.py").write_text(test)
    command = [sys.executable, checkout / "tests/mutation/run.py", "tiny", "--json", "--workers", "1", "--verbose"]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=checkout)


def test_a_planted_fault_is_killed_and_one_that_no_test_runs_survives(checkout: Path) -> None:
    ended = mutated(checkout, "from whimbrel.tiny import tried\n\n\ndef test_tried():\n    assert tried(2) == -2\n")
    assert ended.returncode == 1, ended.stderr
    figures = json.loads(ended.stdout.splitlines()[-1])
    assert figures["ok"] is False
    assert (figures["areas"][0]["killed"], figures["areas"][0]["survived"]) == (1, 7)
    assert "killed by tests/unit/tiny/test_tiny.py::test_tried: src/whimbrel/tiny/__init__.py:2 tried" in ended.stdout
    assert "survived: src/whimbrel/tiny/__init__.py:6 untried" in ended.stdout
    assert "1 tests may notice" in ended.stdout
    assert (checkout / "src/whimbrel/tiny/__init__.py").read_text().startswith("def tried(a):\n    return -a\n")


def test_a_test_that_fails_without_a_mutant_kills_none(checkout: Path) -> None:
    """It passes where it is recorded, and fails in every copy of the sources: all mutants would count as killed."""
    ended = mutated(
        checkout,
        "from whimbrel import tiny\n\n\ndef test_tried():\n    assert tiny.tried(2) == -2\n"
        f"    assert tiny.__file__.startswith({str(checkout)!r})\n",
    )
    assert ended.returncode == 1
    assert "in a copy of the sources that nobody changed, so nothing can be said of mutants" in ended.stderr
    assert "share" not in ended.stdout
