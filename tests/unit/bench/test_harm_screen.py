"""The arrays of the benchmark say what the gate says: where they err, a false alarm would be missed."""

import functools
import math

import msgspec
import pytest

from harm_fleet import Fleet, Harm, windows_of_fleet
from harm_rows import canary, judged, screened
from harm_screen import Screen
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import GateInput

# Everything is told, and devices differ: every kind of test speaks, and copies begin anew five times.
FLEET = Fleet(
    devices=80,
    treated=0.5,
    windows=60,
    crash=0.05,
    crash_shape=0.5,
    sessions=1.0,
    usage_sd=0.5,
    errors=0.1,
    timed=True,
    speed_sd=0.5,
    accuracy=0.8,
    accuracy_sd=0.1,
    battery_sd=0.3,
    online=0.9,
)
PLAN = canary(5, percent=50)


def evidence(harm: Harm, *, seed: int) -> tuple[list[float], float]:
    """ln E after every window by the gate, and the greatest by the arrays."""
    ledger, path = Ledger(PLAN), []
    for window, (cells, counts) in enumerate(windows_of_fleet(FLEET, harm, seed=seed)):
        now = GateInput(stage=0, soaked_s=300.0 * (window + 1), cells=cells, counts={0: counts})
        path.append(judge(PLAN, now, ledger).evidence["log_e"])
    ledger = Ledger(PLAN)
    screen = Screen(PLAN, ledger)
    for window, (cells, _) in enumerate(windows_of_fleet(FLEET, harm, seed=seed)):
        screen.before(window)
        ledger.fold(cells)
        screen.add()
    return path, screen.highest(GateInput(stage=0, soaked_s=0.0, counts={0: counts}))


@pytest.mark.parametrize("harm", [Harm(), Harm(crash=4, onset=30), Harm(accuracy=0.3), Harm(latency=2, usage=0.4)])
def test_the_greatest_evidence_is_the_gates(harm: Harm) -> None:
    for seed in range(3):
        path, greatest = evidence(harm, seed=seed)
        assert greatest == pytest.approx(max(path), abs=2e-6)
        assert not math.isclose(max(path), path[-1]) or harm != Harm()  # the last window alone would not show it


def test_a_rollout_that_goes_back_is_the_gates_own() -> None:
    windows = functools.partial(windows_of_fleet, FLEET, Harm(crash=12, onset=14), seed=5)
    outcome = screened(PLAN, windows)
    assert outcome.highest is not None
    assert outcome.highest > math.log(1 / PLAN.alpha)
    assert msgspec.structs.replace(outcome, highest=None) == judged(PLAN, windows())
    assert outcome.move == "roll_back"
    assert outcome.back is not None
    assert outcome.back < FLEET.windows - 1
