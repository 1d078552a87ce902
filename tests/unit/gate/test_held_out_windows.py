"""Bad versions that were once promoted never leave their canary; their healthy twins complete.

Each of them was found on windows that nobody had tuned the gate on: a crash rate that doubled in the twentieth hour was
diluted by nineteen healthy ones; devices that died after their first report were never looked for again; and a version
that nobody used had a clean record.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from support.held_out_windows import FOLDER, HELD_OUT, HeldOut, cells_of, healthy_twin, lines_of, plan_of
from whimbrel.flows.replay_windows import replay_windows

each = pytest.mark.parametrize("case", HELD_OUT, ids=lambda case: case.name)


@each
def test_a_bad_version_never_leaves_its_canary(case: HeldOut) -> None:
    verdicts = [judged.verdict for judged in replay_windows(plan_of(case), cells_of(case))]
    moved = [verdict.because for verdict in verdicts if verdict.move in {"advance", "finish"}]
    assert not moved
    assert verdicts[-1].move in {"hold", "roll_back"}


@each
def test_its_healthy_twin_completes(case: HeldOut) -> None:
    verdicts = list(replay_windows(plan_of(case), healthy_twin(case, seed=20261130)))
    moves = {(judged.stage, judged.verdict.move) for judged in verdicts}
    assert moves >= {(0, "advance"), (1, "finish")}, verdicts[-1].verdict.because
    assert not moves & {(stage, move) for stage in (0, 1) for move in ("roll_back", "slice_back")}


def test_the_command_says_why_a_version_that_nobody_uses_stays(tmp_path: Path) -> None:
    case = next(each for each in HELD_OUT if each.name == "nobody-uses-it")
    windows = tmp_path / "windows.jsonl"
    windows.write_bytes(lines_of(case))
    command = [sys.executable, "-m", "whimbrel.cli", "gate", "replay", windows, "--plan", FOLDER / f"{case.plan}.yaml"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    last = done.stdout.splitlines()[-1]
    assert "goes on" not in last
    assert "session" in last
