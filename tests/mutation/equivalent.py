"""The mutants that change nothing, as people have judged: `equivalent.toml`, matched by text."""

import ast
import tomllib
from pathlib import Path
from typing import NamedTuple

from mutation.forks import ROOT

PATH = Path(__file__).with_name("equivalent.toml")


class Equivalent(NamedTuple):
    """One change that no test can notice, and why."""

    file: str  # relative to the checkout
    function: str  # its qualified name; "" at the top of a file
    before: str  # the changed lines, each without its indentation, joined by a space
    after: str
    reason: str


def read_equivalents(path: Path = PATH) -> list[Equivalent]:
    """The reviewed list. An entry with a field too many or too few raises TypeError."""
    return [Equivalent(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])]


def faults(entries: list[Equivalent], root: Path = ROOT) -> list[str]:
    """What is wrong with the list: entries whose code is there no more, without a reason, or twice."""
    sentences = []
    for entry in entries:
        name = f"{entry.file}: {entry.function or 'top'}: {entry.before!r}"
        if not (root / entry.file).is_file() or entry.before not in _code_of(root / entry.file, entry.function):
            sentences.append(
                f"{name}: there is no such line any more; take the entry out, or write what stands there now"
            )
        if entry.before == entry.after or len(entry.reason) < 20:
            sentences.append(f"{name}: an entry says what changes, and why nobody can notice")
    keys = [entry[:4] for entry in entries]
    return sentences + [
        f"{key[0]}: {key[2]!r} is there twice" for key in sorted({k for k in keys if keys.count(k) > 1})
    ]


def _code_of(path: Path, function: str) -> str:
    """The text of a function (or of the whole file), in the form of `Equivalent.before`."""
    source = path.read_text(encoding="utf-8")
    rows = source.splitlines()
    for name, node in _functions(ast.parse(source), ""):
        if name == function:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return _flat(rows[first - 1 : node.end_lineno])
    return "" if function else _flat(rows)


def _functions(tree: ast.AST, prefix: str) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    named = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            named.append((f"{prefix}{node.name}", node))
            named += _functions(node, f"{prefix}{node.name}.")
        else:
            named += _functions(node, prefix)
    return named


def _flat(rows: list[str]) -> str:
    return " ".join(" ".join(rows).split())
