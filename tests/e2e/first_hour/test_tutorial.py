"""The tutorial is followed literally: its blocks are run as they are written, in a fresh folder.

1. How a block is written and run: support/literal_page.py.
2. The first block installs the package. It is the only one that is not run: this environment has the package, and
   test_extras.py installs each extra.
3. Only the two ports are others, so that it can run beside a server; and the boards are three in the second run, as the
   tutorial says how.
"""

import re
import tomllib
from pathlib import Path

import pytest

from support.literal_page import follow, pattern_of, steps_of
from whimbrel.server.addresses import bind

PROJECT = Path(__file__).parents[3]
TUTORIAL = (PROJECT / "docs" / "tutorial" / "first-rollout.md").read_text()
BOARDS = "for board in board-1; do"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def steps() -> list[tuple[str, str]]:
    """Each step's commands, and what it prints."""
    return steps_of(TUTORIAL)


def free_ports() -> tuple[int, int]:
    with bind("127.0.0.1:0") as devices, bind("127.0.0.1:0") as admin:
        return devices.getsockname()[1], admin.getsockname()[1]


def test_the_pattern_tells_what_differs() -> None:
    pattern = pattern_of("a ... c\n...\nlast")
    assert pattern.fullmatch("a b c\nlast\n")
    assert pattern.fullmatch("a b c\nx\ny\nlast\n")
    assert not pattern.fullmatch("a b\nc\nlast\n")
    assert not pattern.fullmatch("a b c\nx\n")


def test_every_block_is_a_step_or_its_output() -> None:
    assert TUTORIAL.count("```sh\n") == len(steps()) > 10
    assert TUTORIAL.count("```text\n") == sum(1 for _, printed in steps() if printed)
    assert TUTORIAL.count("```") == 2 * (TUTORIAL.count("```sh\n") + TUTORIAL.count("```text\n"))


def test_the_install_line_names_extras_that_are_there() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"pip install '\.\[([a-z,]+)\]'", steps()[0][0])
    assert extras
    assert set(extras[0].split(",")) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("boards", ["board-1", "board-1 board-2 board-3"], ids=["one", "three"])
def test_the_tutorial_ends_where_it_says(tmp_path: Path, boards: str) -> None:
    """Its device waited for ever, since no app ran; its plan soaked for 72 hours; and its status raced the agent."""
    ports = free_ports()
    folder = tmp_path / "fresh"
    folder.mkdir()

    def there(commands: str) -> str:
        commands = commands.replace("8470", str(ports[0])).replace("8471", str(ports[1]))
        return commands.replace(BOARDS, f"for board in {boards}; do")

    followed = [(there(commands), printed) for commands, printed in steps()[1:]]
    follow(followed, folder, script=tmp_path / "script.sh", timeout_s=840)
