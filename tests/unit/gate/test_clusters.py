"""Windows of one device are one device, in rates and in latency; and like is compared with like class."""

import itertools

import numpy as np
import pytest

from support.values import cell, gate_input, plan, stage
from whimbrel.gate.design_effect import Alikeness, ArmValues, design_effect
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.strata import ClassSizes
from whimbrel.health.pairs import NO_PAIRS, Pairs
from whimbrel.health.tally import Cell

ROLES = ("treated", "control")


def fleet(devices: int, *, seed: int, shape: float, windows: int, pairs: bool) -> tuple[np.ndarray, list[Cell]]:
    """`devices` that report every window, half of them treated; their own crash rates are gamma, 3% on average."""
    chance = np.random.default_rng(seed)
    own = np.minimum(chance.gamma(shape, 0.03 / shape, devices), 1.0)
    crashed = chance.random((windows, devices)) < own
    before = np.cumsum(crashed, axis=0) - crashed
    cells = []
    for w, (role, first) in itertools.product(range(windows), (("treated", 0), ("control", 1))):
        now, then = crashed[w, first::2], before[w, first::2]
        told = [Pairs.of(float(y), before=w, total=float(t)) for y, t in zip(now, then, strict=True)]
        common = {"crash": _sum(told)} if pairs and w else {}
        cells.append(cell(role, w, n=len(now), crashed=int(now.sum()), pairs=common))
    return own, cells


def _sum(pairs: list[Pairs]) -> Pairs:
    total = NO_PAIRS
    for each in pairs:
        total = total.plus(each)
    return total


def alarms(runs: int, *, pairs: bool) -> int:
    """How many of so many small fleets without a change are taken back in a day."""
    found = 0
    for seed in range(runs):
        _, cells = fleet(40, seed=seed, shape=0.1, windows=144, pairs=pairs)
        found += judge(plan(stage()), gate_input(*cells, soaked_s=60)).move == "roll_back"
    return found


def test_few_devices_that_differ_much_are_no_proof_of_harm() -> None:
    """With each window taken for a device of its own, a quarter of such fleets was taken back."""
    assert alarms(30, pairs=False) >= 5
    assert alarms(30, pairs=True) == 0


def test_harm_on_devices_that_are_alike_is_found_as_fast_with_their_pairs() -> None:
    def stopped(pairs: bool) -> int:
        chance, ledger = np.random.default_rng(5), Ledger(plan(stage()))
        own = np.where(np.arange(1000) % 2, 0.01, 0.03)  # treated: every other one
        counts = np.zeros(1000)
        for w in range(200):
            crashed = chance.random(1000) < own
            cells = []
            for role, first in (("treated", 0), ("control", 1)):
                y, t = crashed[first::2], counts[first::2]
                common = Pairs(
                    pairs=w * len(y), squares=w * w * len(y), now=w * y.sum(), then=t.sum(), both=float((t * y).sum())
                )
                told = {"crash": common} if pairs and w else {}
                cells.append(cell(role, w, n=len(y), crashed=int(y.sum()), pairs=told))
            counts += crashed
            if judge(plan(stage()), gate_input(*cells, soaked_s=60), ledger).move == "roll_back":
                return w
        return 200

    assert stopped(True) <= stopped(False) + 2


def test_devices_that_always_say_the_same_count_once_however_long_they_report() -> None:
    """Forty windows of ten constant devices: the design effect is the number of windows."""
    arm = ArmValues()
    for w in range(40):
        told = _sum([Pairs.of(float(d < 3), before=w, total=w * float(d < 3)) for d in range(10)])
        arm.add(10, 3, 3, told)
    assert design_effect(arm) == pytest.approx(40, rel=0.1)
    assert design_effect(arm, n=100) == pytest.approx(10, rel=0.1), "the last ten windows of ten devices"
    assert design_effect(arm, n=10) == pytest.approx(1, abs=0.1), "the last window"


def test_strangers_have_no_design_effect() -> None:
    assert design_effect(ArmValues()) == 1.0
    assert Alikeness().divisor(100, 1000) == 1.0


def test_what_devices_have_in_common_stands_with_the_arm_that_its_rate_takes_for_the_treated_one() -> None:
    """Of use, fewer are worse: the control's windows are tested against the treated ones', and so are their pairs."""
    ledger = Ledger(plan(stage()))
    for w in range(2):
        ours, theirs = Pairs(10, 10, 5.0, 5.0, 4.0), Pairs(70, 70, 5.0, 5.0, 4.0)
        told = [dict.fromkeys(("usage", "crash", "error"), each) if w else {} for each in (ours, theirs)]
        ledger.fold(
            [
                cell(
                    "treated",
                    w,
                    n=100,
                    unused=40,
                    crashed=3,
                    error_units=30,
                    errors=1.5,
                    error_squares=1.0,
                    pairs=told[0],
                ),
                cell(
                    "control",
                    w,
                    n=1900,
                    unused=900,
                    crashed=7,
                    error_units=80,
                    errors=2.5,
                    error_squares=2.0,
                    pairs=told[1],
                ),
            ]
        )
    tests = ledger.cohorts[0].tests
    assert tests is not None

    def of(name: str) -> list[tuple[float, ...]]:
        alike = tests.alike[name]
        return [(arm.n, arm.sum, arm.sumsq, arm.pairs) for arm in (alike.treated, alike.control)]

    assert of("usage") == [(1900, 1000, 1000, 70), (100, 60, 60, 10)]
    assert of("crash") == [(60, 3, 3, 10), (1000, 7, 7, 70)]
    assert of("error") == [(30, 1.5, 1.0, 10), (80, 2.5, 2.0, 70)]
    assert of("silence") == of("latency") == [(0, 0, 0, 0)] * 2, "of what no pairs were told nothing is kept"


def slow_sessions(w: int, *, pairs: bool) -> list[Cell]:
    """One slow device of the twenty treated ones; all controls are fast. Every device tells one session a window."""
    cells = []
    for role, buckets in (("treated", [300, *[100] * 19]), ("control", [100] * 196 + [200] * 4)):
        told = _sum([Pairs.of(float(bucket), before=w, total=float(w * bucket)) for bucket in buckets])
        timed = {bucket: buckets.count(bucket) for bucket in set(buckets)}
        cells.append(cell(role, w, n=len(buckets), latency=timed, pairs={"latency": told} if pairs and w else {}))
    return cells


def test_one_slow_device_is_no_slow_version() -> None:
    def move(pairs: bool) -> str:
        cells = [each for w in range(100) for each in slow_sessions(w, pairs=pairs)]
        return judge(plan(stage()), gate_input(*cells, soaked_s=60)).move

    assert move(False) == "roll_back"
    assert move(True) == "wait"


# --- classes ---


def uneven(w: int) -> list[Cell]:
    """Fast boards crash at 3% and slow ones at .5%; the treated are fast ones mostly, the controls slow ones."""
    return [
        cell("treated", w, n=800, crashed=24, hardware_class="fast"),
        cell("treated", w, n=200, crashed=1, hardware_class="slow"),
        cell("control", w, n=4000, crashed=120, hardware_class="fast"),
        cell("control", w, n=16000, crashed=80, hardware_class="slow"),
    ]


def test_a_class_that_installs_late_and_crashes_less_is_no_proof() -> None:
    """Ages alone compared young fast boards with young slow ones: every such rollout went back."""
    cells = [each for w in range(48) for each in uneven(w)]
    log_e = judge(plan(stage()), gate_input(*cells, soaked_s=60)).evidence["log_e"]
    first = judge(plan(stage()), gate_input(*uneven(0), soaked_s=60)).evidence["log_e"]
    assert log_e <= max(first, 0.0)


def test_a_class_has_a_stratum_of_its_own_once_both_arms_have_enough_of_it() -> None:
    sizes = ClassSizes()
    assert sizes.large(0) == frozenset()
    sizes.add(
        [*uneven(0), cell("treated", 0, n=4, hardware_class="rare"), cell("control", 0, n=76, hardware_class="rare")]
    )
    assert sizes.large(1) == {"fast", "slow"}
    assert sizes.large(100) == {"fast"}


def test_hundreds_of_small_classes_cost_no_power() -> None:
    def stopped(classes: int) -> int:
        chance, ledger = np.random.default_rng(3), Ledger(plan(stage()))
        for w in range(60):
            cells = []
            for role, n, rate in (("treated", 300, 0.03), ("control", 5700, 0.01)):
                of_class = chance.multinomial(n, np.full(classes, 1 / classes))
                cells += [
                    cell(role, w, n=int(k), crashed=int(chance.binomial(k, rate)), hardware_class=f"c{index}")
                    for index, k in enumerate(of_class)
                    if k
                ]
            if judge(plan(stage()), gate_input(*cells, soaked_s=60), ledger).move != "wait":
                return w
        return 60

    assert stopped(300) <= stopped(1) + 3
