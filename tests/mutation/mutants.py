"""Which mutants an area has, and a seeded sample of them.

A mutant is one small change of one source file: an operator of cosmic-ray (or of `operators.py`) at its n-th place.
What cannot change behaviour by its kind is left out: `LEFT_OUT` lists the kinds with their reasons. Of cosmic-ray's 170
operators those are taken that make a plausible fault: `<` becomes `<=` or `>`, but not `is`; `+` becomes `-`, but not
`^`. The others mostly end in a TypeError, which any test notices, and would flatter the figures.
"""

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

from mutation.forks import ROOT
from mutation.operators import OURS

PACKAGE = "src/whimbrel"
SINGLE_FILES = "packing"  # the area of the package's own files, and of no folder

LIBRARY = (
    *(f"ReplaceBinaryOperator_{pair}" for pair in (
        "Add_Sub", "Sub_Add", "Mul_Div", "Mul_Add", "Div_Mul", "FloorDiv_Mul", "FloorDiv_Div", "Mod_FloorDiv",
        "Pow_Mul", "RShift_LShift", "LShift_RShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd",
    )),
    *(f"ReplaceComparisonOperator_{pair}" for pair in (
        "Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_Gt", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt",
        "Is_IsNot", "IsNot_Is",
    )),
    "ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "AddNot", "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop",
)  # fmt: skip

LEFT_OUT = {
    "annotation": "a type is checked by mypy and not run; limits within `Annotated[...]` are calls, and stay",
    "type alias": "it is for mypy, like an annotation",
    "names for readers": "`__slots__` and `__all__` are for the interpreter's memory and for imports of a star",
    "never run": "what stands under `if TYPE_CHECKING:` or `if __name__ == '__main__':` is not run by a test",
    "log": "no promise is made about a line of the log; what users read is a document, a sentence or an answer",
    "repr": "`__repr__` is for whoever debugs",
    "immutable": "`frozen`, `kw_only`, `slots`, `gc`, `repr`, `strict` of `zip` refuse code of ours alone",
    "signature": "a `*` that makes arguments keyword-only binds callers of ours, whom mypy checks",
    "decorator": "`cache`, `override`, `overload`, `final`, `runtime_checkable`, ... change speed or types alone",
}
SILENT_KEYWORDS = {"frozen", "kw_only", "slots", "gc", "repr", "weakref", "eq"}
SILENT_DECORATORS = re.compile(
    r"@\s*(functools\.|typing\.)?(cache|lru_cache|override|overload|final|runtime_checkable|wraps)\b"
)
KEYWORD_ONLY = re.compile(r"\*\s*(,|$)")  # of a signature; cosmic-ray takes it for a product
LOGS = {"log", "logger", "_log", "_logger", "logging"}


class Mutant(NamedTuple):
    """One change of one file."""

    path: str  # relative to the checkout
    operator: str
    occurrence: int
    line: int
    function: str  # its qualified name; "" at the top of a file
    lines: tuple[int, ...]  # which a test must run to notice
    names: tuple[str, ...]  # what the statement defines when the file is imported; () for code that is called
    source: str
    mutated: str

    @property
    def before(self) -> str:
        """The lines that the mutant changes, on one line."""
        return _flat(self._changed()[0])

    @property
    def after(self) -> str:
        """What stands there instead."""
        return _flat(self._changed()[1])

    def _changed(self) -> tuple[list[str], list[str]]:
        old, new = self.source.splitlines(), self.mutated.splitlines()
        start = 0
        while start < min(len(old), len(new)) and old[start] == new[start]:
            start += 1
        end = 0
        while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
            end += 1
        return old[start : len(old) - end], new[start : len(new) - end]


def _flat(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def areas() -> list[str]:
    """The packages, and the single files together."""
    folders = (path.name for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").is_file())
    return sorted([*folders, SINGLE_FILES])


def sources(area: str) -> list[str]:
    """The files of an area, relative to the checkout. Migrations are left out: they are tested by what they lead to."""
    folder = ROOT / PACKAGE
    found = folder.glob("*.py") if area == SINGLE_FILES else (folder / area).rglob("*.py")
    return sorted(path.relative_to(ROOT).as_posix() for path in found if "migrations" not in path.parts)


def sample(area: str, *, size: int, seed: int) -> list[Mutant]:
    """Mutants of an area, spread over its files by the number of mutants that each file has."""
    return sample_of_files([ROOT / path for path in sources(area)], size=size, seed=seed)


def sample_of_files(paths: list[Path], *, size: int, seed: int) -> list[Mutant]:
    """A sample of the mutants of files: the same for the same seed and the same contents."""
    files = {path: _File(path) for path in paths}
    sites = {path: file.sites() for path, file in files.items()}
    total = sum(map(len, sites.values()))
    if not total:
        return []
    exact = {path: min(size, total) * len(its_sites) / total for path, its_sites in sites.items()}
    shares = {path: int(share) for path, share in exact.items()}
    rest = sorted(exact, key=lambda path: (shares[path] - exact[path], str(path)))
    for path in rest[: min(size, total) - sum(shares.values())]:
        shares[path] += 1
    return [mutant for path, share in shares.items() for mutant in files[path].choose(sites[path], share, seed)]


class _Site(NamedTuple):
    operator: str
    occurrence: int
    line: int
    column: int


class _File:
    """One source file with the places that may be changed."""

    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        self.source = path.read_text(encoding="utf-8")
        self.rows = self.source.splitlines()
        self.tree = ast.parse(self.source)
        self.silent = list(self._silent_ranges())
        self.loud = [self._range(call) for annotation in self._types() for call in _calls(annotation)]

    def sites(self) -> list[_Site]:
        """Every place where an operator makes a mutant that may matter."""
        operators = {name: _operator(name) for name in (*LIBRARY, *OURS)}
        counts = dict.fromkeys(operators, 0)
        sites = []
        for node in ast_nodes(get_ast(self.source)):
            for name, operator in operators.items():
                for (line, column), _ in operator.mutation_positions(node):
                    if not self._is_silent(name, (line, column)):
                        sites.append(_Site(name, counts[name], line, column))
                    counts[name] += 1
        return sites

    def choose(self, sites: list[_Site], number: int, seed: int) -> list[Mutant]:
        """So many of the sites, at random. A change that is none, or no Python, gives its place to the next."""
        waiting = list(sites)
        random.Random(f"{seed} {self.name}").shuffle(waiting)
        chosen: list[Mutant] = []
        for site in waiting:
            if len(chosen) == number:
                break
            if mutated := self._mutated(site):
                place = (site.line, site.column)
                function, lines, names = self._place(place)
                chosen.append(
                    Mutant(
                        self.name,
                        site.operator,
                        site.occurrence,
                        site.line,
                        function,
                        lines,
                        names,
                        self.source,
                        mutated,
                    )
                )
        return sorted(chosen, key=lambda mutant: (mutant.path, mutant.line, mutant.operator, mutant.occurrence))

    def _mutated(self, site: _Site) -> str | None:
        if site.operator == "ReplaceBinaryOperator_Mul_Div" and KEYWORD_ONLY.match(
            self.rows[site.line - 1], site.column
        ):
            return None
        try:
            mutated: str | None = mutate_code(self.source, _operator(site.operator), site.occurrence)
        except AttributeError:  # the library replaces `except Error`, and stumbles over `except module.Error`
            return None
        try:
            same = mutated is None or ast.dump(ast.parse(mutated)) == ast.dump(self.tree)
        except SyntaxError:
            return None
        return None if same else mutated

    def _is_silent(self, operator: str, place: tuple[int, int]) -> bool:
        if any(start <= place < end for start, end in self.silent):
            return not any(start <= place < end for start, end in self.loud)
        row = self.rows[place[0] - 1]
        return operator == "RemoveDecorator" and bool(SILENT_DECORATORS.match(row[place[1] :]))

    def _silent_ranges(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for annotation in self._types():
            yield self._range(annotation)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id in {"__slots__", "__all__"} for target in targets):
                    yield self._range(node)
            elif _is_never_run(node) or (isinstance(node, ast.FunctionDef) and node.name == "__repr__"):
                yield self._range(node)
            elif isinstance(node, ast.ClassDef):
                yield from (self._range(each.value) for each in node.keywords if each.arg in SILENT_KEYWORDS)
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.split(".")[0].removeprefix("self.") in LOGS or called.startswith(("self.log.", "self._log.")):
                    yield self._range(node)
                elif called == "zip" or called.split(".")[-1] == "dataclass":
                    silent = SILENT_KEYWORDS | {"strict"}
                    yield from (self._range(each.value) for each in node.keywords if each.arg in silent)

    def _types(self) -> Iterator[ast.expr]:
        """The annotations and type aliases."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.AnnAssign):
                yield node.annotation
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.returns:
                    yield node.returns
            elif isinstance(node, ast.arg) and node.annotation:
                yield node.annotation
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and _is_type(node.value):
                yield node.value

    def _range(self, node: Any) -> tuple[tuple[int, int], tuple[int, int]]:
        return (
            (node.lineno, self._column(node.lineno, node.col_offset)),
            (node.end_lineno, self._column(node.end_lineno, node.end_col_offset)),
        )

    def _column(self, line: int, octets: int) -> int:
        return len(self.rows[line - 1].encode()[:octets].decode())

    def _place(self, place: tuple[int, int]) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
        """The function around a place, the lines that a test must run, and the names that an import defines there."""
        around = [node for node in ast.walk(self.tree) if _holds(node, place)]
        around.sort(key=lambda node: (node.lineno, node.col_offset))
        statement = around[-1]
        scopes = [node for node in around if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
        function = ".".join(node.name for node in scopes)
        functions = [node for node in scopes if not isinstance(node, ast.ClassDef)]
        called = [node for node in functions if node.body[0].lineno <= place[0]]
        if called:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement not in called:
                return function, tuple(range(statement.lineno, statement.body[-1].end_lineno or 0)), ()
            return function, tuple(range(statement.lineno, _header_end(statement) + 1)), ()
        names = [node.name for node in scopes]
        for node in ast.walk(statement) if isinstance(statement, ast.Assign | ast.AnnAssign) else ():
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.append(node.id)
        body = range(functions[-1].body[0].lineno, (functions[-1].end_lineno or 0) + 1) if functions else ()
        return function, (*range(statement.lineno, _header_end(statement) + 1), *body), tuple(names)


def _operator(name: str) -> Any:
    return OURS[name]() if name in OURS else get_operator(f"core/{name}")()


def _calls(annotation: ast.expr) -> Iterator[ast.Call]:
    return (node for node in ast.walk(annotation) if isinstance(node, ast.Call))


def _is_never_run(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and bool(re.search(r"\bTYPE_CHECKING\b|__main__", ast.unparse(node.test)))


def _is_type(value: ast.expr) -> bool:
    """Whether a value at the top of a file can only be a type: names joined by `|`, or with brackets."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        return _is_type(value.left) and _is_type(value.right)
    if isinstance(value, ast.Subscript):
        name = ast.unparse(value.value).split(".")[-1]
        return name[0].isupper() or name in {"dict", "list", "tuple", "set", "frozenset", "type"}
    if isinstance(value, ast.Name | ast.Attribute):
        return True
    return isinstance(value, ast.Constant) and value.value is None


def _holds(node: ast.AST, place: tuple[int, int]) -> bool:
    if not isinstance(node, ast.stmt):
        return False
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return first <= place[0] <= (node.end_lineno or node.lineno)


def _header_end(statement: Any) -> int:
    body = getattr(statement, "body", None)
    if isinstance(body, list) and body:
        return max(int(statement.lineno), int(body[0].lineno) - 1)
    return int(statement.end_lineno)
