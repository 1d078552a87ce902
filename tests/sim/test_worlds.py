"""Two hundred worlds of fifty devices, through the command: the whole of what `docs/explain/simulation.md` promises."""

import json
import subprocess
import sys

import pytest

WORLDS = 200


@pytest.mark.long
@pytest.mark.timeout(1800)  # under 5 minutes on two cores that have nothing else to do; CI's may have
def test_worlds_of_fifty_devices_keep_every_promise() -> None:
    command = [sys.executable, "-m", "whimbrel.cli", "simulate", "--seeds", str(WORLDS), "--devices", "50", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *worlds, last = map(json.loads, done.stdout.splitlines())
    broken = [(world["replay"], world["violations"]) for world in worlds if world["violations"]]
    assert broken == [], done.stderr
    assert (done.returncode, last["ok"], last["seeds"], last["devices"], last["violations"]) == (0, True, WORLDS, 50, 0)
