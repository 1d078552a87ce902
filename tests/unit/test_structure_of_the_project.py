"""A reader finds the room of each line: no circle between files, no arrow back up, no file or function too long."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"
LINES_A_FILE = 500
LINES_A_FUNCTION = 80


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    named = {}
    for path in sorted((SOURCES / "whimbrel").rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports_of(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a file imports, anywhere in it: at its top, in a function, or for types alone."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                target = submodule if submodule in known else node.module
                if target in known:
                    imported.add(target)
    return imported - {name}


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Groups of modules each of which reaches all others of its group (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                yield from visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                yield sorted(group)

    for node in graph:
        if node not in index:
            yield from visit(node)


def test_no_two_files_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {name: imports_of(name, path, known) for name, path in known.items()}
    assert list(circles(graph)) == []


def test_a_circle_would_be_found() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [["a", "b", "c"]]


def test_nothing_below_imports_the_package_itself() -> None:
    """The package opens the agent for apps; a file below that asks it for anything would close a circle."""
    known = modules()
    assert [name for name, path in known.items() if "whimbrel" in imports_of(name, path, known)] == []


def test_no_file_has_more_than_500_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    assert {str(path): lines for path, lines in lengths.items() if lines > LINES_A_FILE} == {}


def test_no_function_has_more_than_80_lines() -> None:
    """A migration is a list of tables, written once and never changed: it may be as long as it is."""
    long = {}
    for name, path in modules().items():
        if ".migrations." in name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_A_FUNCTION:
                    long[f"{name}.{node.name}"] = lines
    assert long == {}
