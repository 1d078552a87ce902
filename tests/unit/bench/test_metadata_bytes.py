"""What a device moves to stay up to date is within its promises, in a repository of a thousand models."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[3] / "bench" / "metadata_bytes.py"


def test_a_look_and_a_change_cost_what_is_promised() -> None:
    run = subprocess.run(
        [sys.executable, BENCH, "--quick", "--json"], check=False, capture_output=True, text=True, timeout=120
    )
    figures = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, figures["ok"]) == (0, True), run.stdout + run.stderr
    assert 0 < figures["unchanged_bytes"] <= 1024
    assert figures["one_change_10k_bytes"] <= 16_384 < figures["one_change_100k_bytes"] <= 49_152
