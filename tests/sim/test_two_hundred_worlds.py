"""The promise of the simulator itself: two hundred worlds of fifty devices, within CI's time."""

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(1800)  # about 4 s of CPU a world, on a machine that may be busy
def test_two_hundred_worlds_of_fifty_devices_keep_every_promise() -> None:
    command = [sys.executable, "-m", "whimbrel.cli", "simulate", "--seeds", "200", "--devices", "50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["ok"], last["seeds"], last["violations"]) == (0, True, 200, 0), done.stderr
