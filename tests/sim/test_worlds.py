"""Worlds of fifty devices, through the command. `whimbrel simulate --seeds 200` is the long form of the same."""

import json
import subprocess
import sys

import pytest

WORLDS = 12


@pytest.mark.timeout(1200)  # about 4 s of CPU a world, on a machine that may be busy
def test_worlds_of_fifty_devices_keep_every_promise() -> None:
    command = [sys.executable, "-m", "whimbrel.cli", "simulate", "--seeds", str(WORLDS), "--devices", "50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["ok"], last["seeds"], last["violations"]) == (0, True, WORLDS, 0), done.stderr
