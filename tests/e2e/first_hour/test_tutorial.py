"""The tutorial is followed literally: its blocks are run as they are written, in a fresh folder.

1. A block `sh` is run; a block `text` after it is what it prints, where `...` stands for anything within a line, or for
   any lines where it is alone in one. A block without a `text` prints nothing. Runs of spaces count as one.
2. The first block installs the package. It is the only one that is not run: this environment has the package, and
   test_extras.py installs each extra.
3. Only the two ports are others, so that it can run beside a server; and the boards are three in the second run, as the
   tutorial says how.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from whimbrel.server.addresses import bind

PROJECT = Path(__file__).parents[3]
TUTORIAL = (PROJECT / "docs" / "tutorial" / "first-rollout.md").read_text()
STEP = re.compile(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
MARK = "--- step {} is over ---"
BOARDS = "for board in board-1; do"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def steps() -> list[tuple[str, str]]:
    """Each step's commands, and what it prints."""
    return [(step[1], step[2] or "") for step in STEP.finditer(TUTORIAL)]


def free_ports() -> tuple[int, int]:
    with bind("127.0.0.1:0") as devices, bind("127.0.0.1:0") as admin:
        return devices.getsockname()[1], admin.getsockname()[1]


def lines_of(text: str) -> str:
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip("\n").splitlines())


def pattern_of(expected: str) -> re.Pattern[str]:
    """Where a line is `...` alone, any lines may be there, or none."""
    lines = [".*" if line == "..." else re.escape(line).replace(r"\.\.\.", "[^\n]*") for line in expected.splitlines()]
    return re.compile("".join(rf"(?:{line}\n)?" if line == ".*" else rf"{line}\n" for line in lines), re.DOTALL)


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
    script = ["set -eu", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    followed = steps()[1:]
    for number, (commands, _) in enumerate(followed):
        there = commands.replace("8470", str(ports[0])).replace("8471", str(ports[1]))
        script += [there.replace(BOARDS, f"for board in {boards}; do"), f"echo '{MARK.format(number)}'"]
    (tmp_path / "script.sh").write_text("\n".join(script))
    folder = tmp_path / "fresh"
    folder.mkdir()
    done = subprocess.run(
        ["bash", str(tmp_path / "script.sh")],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=840,
    )
    logs = "".join(f"\n--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(folder.glob("*.log")))
    rest = done.stdout
    for number, (commands, expected) in enumerate(followed):
        printed, mark, rest = rest.partition(f"{MARK.format(number)}\n")
        assert mark, f"this step did not end:\n{commands}\nit printed:\n{printed}\n{logs}"
        printed = "".join(f"{line}\n" for line in lines_of(printed).splitlines())
        assert pattern_of(lines_of(expected)).fullmatch(printed), f"{commands}\nprinted:\n{printed}\nnot:\n{expected}"
    assert done.returncode == 0, rest


def environment() -> dict[str, str]:
    """The command of this environment first, and nothing of a repository, a server or a terminal."""
    left_out = {"COLUMNS", "LINES", "TERM"}
    kept = {
        name: value for name, value in os.environ.items() if name not in left_out and not name.startswith("WHIMBREL_")
    }
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
