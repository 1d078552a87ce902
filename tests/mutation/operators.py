"""Three operators beside cosmic-ray's own: faults that were seen in this project and that its operators do not make."""

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Operator
from parso.python.tree import ExprStmt, Name

Position = tuple[tuple[int, int], tuple[int, int]]


class SwapFunction(Operator):
    """`min` for `max`, `any` for `all`, and back."""

    PAIRS = {"min": "max", "max": "min", "any": "all", "all": "any"}

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if isinstance(node, Name) and node.value in self.PAIRS and node.parent.type in {"atom_expr", "power"}:
            called = node.parent.children
            if called[0] is node and called[1].type == "trailer" and called[1].children[0].value == "(":
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = self.PAIRS[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class SwapMembership(Operator):
    """`not in` for `in`, and back."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "comparison":
            for operator in node.children[1::2]:
                if " ".join(operator.get_code().split()) in {"in", "not in"}:
                    yield operator.start_pos, operator.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        places = [
            place
            for place in range(1, len(node.children), 2)
            if " ".join(node.children[place].get_code().split()) in {"in", "not in"}
        ]
        place = places[index]
        swapped = " in" if "not" in node.children[place].get_code() else " not in"
        node.children[place] = parso.parse(swapped)
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class LeaveOut(Operator):
    """A statement that is a call for its effect, or changes a value in place (`x += ...`), is left out."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        called = statement.type in {"atom_expr", "power"}
        in_place = isinstance(statement, ExprStmt) and str(getattr(statement.children[1], "value", "=")) != "="
        if called or in_place:
            yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        prefix = node.get_first_leaf().prefix
        node.children[0] = parso.parse(f"{prefix}pass")
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


OURS = {"SwapFunction": SwapFunction, "SwapMembership": SwapMembership, "LeaveOut": LeaveOut}
