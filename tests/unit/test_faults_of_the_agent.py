"""The list of faults in docs/explain/agent.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explain" / "agent.md"
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?` \|$", PAGE.read_text(), re.M)


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_named_test_exists(file: str, test: str) -> None:
    found = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)}
    assert not test or test in found


def test_every_fault_has_its_test() -> None:
    rows = PAGE.read_text().partition("## Faults")[2].partition("\n## ")[0].splitlines()
    faults = [row for row in rows if row.startswith("| ") and row != "| fault | test |"]
    assert len(faults) == len(NAMED) >= 20
