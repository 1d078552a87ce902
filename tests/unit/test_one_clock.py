"""Nothing in the server wing asks the machine what time it is: what starts a process gives one clock to all of it.

The simulator runs the real server in another year. What asked the machine there mixed two calendars: versions were
published in one and judged in the other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import whimbrel

SOURCE = Path(whimbrel.__file__).parent
GIVES_THE_CLOCK = {"server/app.py", "server/device_process.py"}  # where the parts of a server, or of its process, meet
# Reads of the calendar. `time.monotonic` stays: how long something took is no date.
READS = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
WITH_AN_ARGUMENT = {"localtime": 1, "gmtime": 1, "ctime": 1, "strftime": 2}  # these convert a time that is given


def reads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where the machine's calendar is read, called or only named (as a default argument is)."""
    converts = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and len(node.args) >= WITH_AN_ARGUMENT.get(node.func.attr, 10)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            for name in node.names:
                if name.name in READS["time"]:
                    yield node.lineno, f"from time import {name.name}"
        if not isinstance(node, ast.Attribute) or id(node) in converts:
            continue
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if node.attr in READS.get(owner, ()):
            yield node.lineno, f"{owner}.{node.attr}"


def test_where_the_parts_meet_the_clock_is_only_a_default() -> None:
    for name in GIVES_THE_CLOCK:
        tree = ast.parse((SOURCE / name).read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        defaults = [default for node in functions for default in node.args.kw_defaults if default is not None]
        assert {line for line, _ in reads(tree)} == {line for each in defaults for line, _ in reads(each)}


@pytest.mark.parametrize("package", ["flows", "stores", "server"])
def test_the_server_wing_has_one_clock(package: str) -> None:
    files = sorted((SOURCE / package).rglob("*.py"))
    assert len(files) > 10
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {what}"
        for path in files
        if path.relative_to(SOURCE).as_posix() not in GIVES_THE_CLOCK
        for line, what in reads(ast.parse(path.read_text()))
    ]
    assert found == [], "take `now`, or a clock, as an argument"


@pytest.mark.parametrize(
    "line",
    [
        "now = time.time()",
        "def f(clock=time.time): ...",
        "from time import time",
        "datetime.now(UTC)",
        "datetime.datetime.now()",
        "datetime.date.today()",
        "time.strftime('%Y')",
    ],
)
def test_a_read_of_the_clock_is_found(line: str) -> None:
    assert list(reads(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["time.monotonic()", "datetime.fromtimestamp(now, UTC)", "time.strftime('%Y', time.gmtime(at))"]
)
def test_a_conversion_is_no_read(line: str) -> None:
    assert not list(reads(ast.parse(line)))
