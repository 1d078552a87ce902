"""The whole journey, as a newcomer sees it: the demo checks every fact that it claims, and this checks the demo."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.long
@pytest.mark.timeout(900)
def test_demo_promotes_the_good_version_and_takes_the_bad_one_back() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whimbrel.cli", "demo", "--devices", "40", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    assert facts["ok"] is True
    assert facts["devices"] == 40
    assert facts["promoted"] is True
    assert facts["rolled_back"] is True
    assert 0 < facts["devices_exposed_to_bad_version"] <= 10
    assert facts["seconds_to_verdict"] <= facts["seconds_to_last_device_back"]
    assert 0 < facts["bytes_of_good_version"] < facts["bytes_of_good_version_whole"] / 5
