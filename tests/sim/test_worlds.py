"""Two hundred worlds of thirty devices, by the command: all that `docs/explain/simulation.md` promises."""

import json
import subprocess
import sys

import pytest

WORLDS, DEVICES = 200, 30


@pytest.mark.long
@pytest.mark.timeout(1800)  # under 15 minutes on two cores that have nothing else to do; CI's may have
def test_worlds_of_thirty_devices_keep_every_promise() -> None:
    asked = ["--seeds", str(WORLDS), "--devices", str(DEVICES), "--json"]
    command = [sys.executable, "-m", "whimbrel.cli", "simulate", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *worlds, last = map(json.loads, done.stdout.splitlines())
    broken = [(world["replay"], world["violations"]) for world in worlds if world["violations"]]
    assert broken == [], done.stderr
    told = done.returncode, last["ok"], last["seeds"], last["devices"], last["violations"]
    assert told == (0, True, WORLDS, DEVICES, 0)
