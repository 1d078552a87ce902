"""Five hundred real agents in four hardware classes: the class that a version is bad on goes back, the rest goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "slice_rollback.py"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_of_five_hundred_agents_the_bad_class_goes_back_and_the_others_get_the_version() -> None:
    """The benchmark's own play; how fast it was is its business, that it came out right is this test's."""
    done = subprocess.run(
        [sys.executable, str(BENCH), "--quick", "--json"], capture_output=True, text=True, check=False
    )
    facts = json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else {}
    assert facts.get("right") is True, done.stderr[-3000:]
    assert (facts["agents"], facts["slices_found"], facts["completed"]) == (500, 1, 1)
