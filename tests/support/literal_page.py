"""Pages that are followed literally: their blocks are run as they are written, in a fresh folder.

A block `sh` is run; a block `text` after it is what it prints, where `...` stands for anything within a line, or for
any lines where it is alone in one. A block without a `text` prints nothing. Runs of spaces count as one.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

STEP = re.compile(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
MARK = "--- step {} is over ---"


def steps_of(page: str) -> list[tuple[str, str]]:
    """Each step's commands, and what it prints."""
    return [(step[1], step[2] or "") for step in STEP.finditer(page)]


def lines_of(text: str) -> str:
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.strip("\n").splitlines())


def pattern_of(expected: str) -> re.Pattern[str]:
    """Where a line is `...` alone, any lines may be there, or none."""
    lines = [".*" if line == "..." else re.escape(line).replace(r"\.\.\.", "[^\n]*") for line in expected.splitlines()]
    return re.compile("".join(rf"(?:{line}\n)?" if line == ".*" else rf"{line}\n" for line in lines), re.DOTALL)


def follow(steps: Iterable[tuple[str, str]], folder: Path, *, script: Path, timeout_s: float) -> None:
    """Run all steps in one shell in `folder`, and compare what each prints."""
    followed = list(steps)
    lines = ["set -eu", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    for number, (commands, _) in enumerate(followed):
        lines += [commands, f"echo '{MARK.format(number)}'"]
    script.write_text("\n".join(lines))
    done = subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout_s,
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
