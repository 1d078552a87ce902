"""Drift is seen, few devices are not taken for it, and what is proven is proven."""

import math
import random

import numpy as np
import pytest

from support.values import cell, gate_input, plan, stage
from whimbrel.gate.drift import DriftFold
from whimbrel.gate.evidence import mean_log_e, one_sided_rho
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import drift_limits, guard_weights
from whimbrel.gate.hypotheses import sharpest_at
from whimbrel.gate.ledger import Ledger, References
from whimbrel.gate.verdict import Verdict
from whimbrel.health.drift import BinSums, expected_shares, stability_index
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.criteria import Guardrail
from whimbrel.plan.plan import Plan

EVEN = (0.25, 0.25, 0.25, 0.25)
SHIFTED = (0.1, 0.2, 0.3, 0.4)
FAR = (0.02, 0.08, 0.2, 0.7)
RHO = one_sided_rho(v_opt=2 * math.log(1 / 0.08) / 0.01, alpha=0.08)


def drawn(chance: random.Random, mixes: list[tuple[float, ...]], *, predictions: int = 10) -> dict[int, Moments]:
    """One window of so many devices, each with a mix of its own."""
    found: dict[int, Moments] = {}
    for mix in mixes:
        counts = [0] * len(mix)
        for each in chance.choices(range(len(mix)), mix, k=predictions):
            counts[each] += 1
        for index, count in enumerate(counts):
            if count:
                seen = Moments.of(count / predictions)
                found[index] = found[index].plus(seen) if index in found else seen
    return found


def own_mixes(chance: random.Random, mean: tuple[float, ...], devices: int) -> list[tuple[float, ...]]:
    """Devices that keep to a few of the classes each, and show `mean` together (a Dirichlet of weight 2)."""
    made = []
    for _ in range(devices):
        parts = [chance.gammavariate(2 * share, 1) + 1e-9 for share in mean]
        made.append(tuple(part / sum(parts) for part in parts))
    return made


def test_the_index_of_a_shift_by_hand() -> None:
    by_hand = sum((p - 0.25) * math.log(p / 0.25) for p in SHIFTED)
    assert stability_index(SHIFTED, EVEN) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.228, abs=0.001)
    assert stability_index(EVEN, EVEN) == 0


def test_a_bin_that_was_never_seen_is_expected_a_little() -> None:
    shares = expected_shares((0.5, 0.5, 0.0))
    assert sum(shares) == pytest.approx(1)
    assert shares[2] == pytest.approx(0.001, rel=0.01)


def test_few_devices_with_ways_of_their_own_are_not_taken_for_drift() -> None:
    """30 devices that predict as the reference on average, each in its own way: raw, the index is twice too large."""
    chance, raw, corrected = random.Random(5), [], []
    for _ in range(40):
        sums, mixes = BinSums(4), own_mixes(chance, EVEN, 30)
        for _ in range(5):
            sums.add(30, drawn(chance, mixes))
        raw.append(stability_index(sums.shares(EVEN), EVEN))
        index = sums.index(EVEN)
        assert index is not None
        corrected.append(index)
    assert sum(raw) / 40 > 0.025
    assert sum(corrected) / 40 < 0.015


def test_the_same_devices_again_are_no_new_devices() -> None:
    """The correction must not fade while the same few devices report window after window."""
    chance = random.Random(6)
    few, mixes = BinSums(4), own_mixes(chance, EVEN, 10)
    for _ in range(50):
        few.add(10, drawn(chance, mixes))
    many = BinSums(4)
    many.add(500, drawn(chance, own_mixes(chance, EVEN, 500)))
    assert few.bias(EVEN) > 5 * many.bias(EVEN)


def fold(chance: random.Random, mean: tuple[float, ...], *, devices: int, windows: int = 20, own: bool) -> float:
    """The greatest ln E over all looks."""
    test, best = DriftFold(expected_shares(EVEN), limit=0.25), -math.inf
    mixes = own_mixes(chance, mean, devices) if own else [mean] * devices
    for _ in range(windows):
        test.add(devices, drawn(chance, mixes))
        best = max(best, test.log_e(RHO))
    return best


@pytest.mark.parametrize("own", [False, True])
def test_predictions_at_the_very_limit_are_seldom_proven_beyond_it(own: bool) -> None:
    at_limit = (0.0927, 0.2, 0.2973, 0.41)
    assert stability_index(at_limit, EVEN) == pytest.approx(0.25, abs=0.005)
    chance = random.Random(7)
    best = [fold(chance, at_limit, devices=60, windows=12, own=own) for _ in range(40)]
    assert sum(log_e >= math.log(1 / 0.08) for log_e in best) <= 3


def test_a_strong_shift_is_proven_with_enough_devices_and_never_with_few() -> None:
    chance = random.Random(8)
    assert fold(chance, FAR, devices=100, own=True) > math.log(100)
    assert fold(chance, FAR, devices=29, own=True) == 0


def told(shares: tuple[float, ...], units: int, *, spread: float = 0.01) -> dict[int, Moments]:
    """One window of so many devices whose shares of each bin vary by `spread` (a variance)."""
    return {i: Moments(n=units, sum=p * units, sumsq=units * (p * p + spread)) for i, p in enumerate(shares)}


def test_shares_hold_one_unit_of_the_reference_and_vary_between_units() -> None:
    sums = BinSums(4)
    sums.add(9, told(SHIFTED, 9))
    sums.add(6, told(EVEN, 6) | {4: Moments(n=6, sum=6.0, sumsq=6.0)})
    totals = [9 * p + 6 * 0.25 for p in SHIFTED]
    assert (sums.units, sums.devices) == (15, 9)
    assert sums.shares(EVEN) == pytest.approx([(total + 0.25) / 16 for total in totals])
    squares = [9 * (p * p + 0.01) + 6 * (0.25**2 + 0.01) for p in SHIFTED]
    variances = [sq / 15 - (total / 15) ** 2 for sq, total in zip(squares, totals, strict=True)]
    assert sums.variances() == pytest.approx(variances)
    p = np.array(sums.shares(EVEN))
    assert sums.bias(EVEN) == pytest.approx(sum(0.5 * (1 / p + 0.25 / p**2) * variances) / 9)
    q = np.array(SHIFTED)
    assert sums.bias(EVEN, near=SHIFTED) == pytest.approx(sum(0.5 * (1 / q + 0.25 / q**2) * variances) / 9)
    assert sums.index(EVEN) == pytest.approx(sum((p - 0.25) * np.log(p / 0.25)) - sums.bias(EVEN))


@pytest.mark.parametrize(("units", "known"), [(0, False), (1, False), (2, True)])
def test_two_units_have_an_index_and_one_has_none(units: int, known: bool) -> None:
    sums = BinSums(4)
    sums.add(units, told(FAR, units, spread=0.0))
    assert (sums.index(EVEN) is not None) == known
    assert sums.bias(EVEN) == pytest.approx(0.0)


def test_an_index_is_never_below_zero() -> None:
    sums = BinSums(4)
    sums.add(5, told(EVEN, 5, spread=0.2))
    assert sums.bias(EVEN) > 0
    assert sums.index(EVEN) == 0.0


def test_drift_is_a_mean_of_heights_over_the_plane_at_earlier_shares() -> None:
    """By hand: three windows, of which the first weighs nothing; 40 devices count once, however often they report."""
    fold = DriftFold(EVEN, limit=0.25)
    fold.add(40, told(SHIFTED, 40))
    assert (fold.weighed, fold.log_e(RHO)) == (0, 0.0)
    before, precision, total = BinSums(4), 0.0, 0.0
    before.add(40, told(SHIFTED, 40))
    q = np.array(EVEN)
    for shares in (FAR, SHIFTED):
        fold.add(40, told(shares, 40, spread=0.15))
        p = np.array(before.shares(EVEN))
        near = 0.9 * p + 0.1 * q
        slopes = np.log(near / q) + 1 - q / near
        height = sum((near - q) * np.log(near / q)) + sum(slopes * (np.array(shares) - near))
        height -= before.bias(EVEN, near=list(near))
        drawn = sum(slopes**2 * p) - sum(slopes * p) ** 2
        as_one = sum(abs(slopes) * np.sqrt(before.variances())) ** 2
        assert (drawn < as_one) == (shares == SHIFTED)
        weight = 40 / min(drawn, as_one)
        precision, total = precision + weight, total + weight * (height - 0.25)
        before.add(40, told(shares, 40, spread=0.15))
    assert (fold.weighed, fold.before.devices) == (80, 40)
    assert (fold.precision, fold.total) == pytest.approx((precision, total))
    assert total > 0
    assert fold.log_e(RHO) == pytest.approx(mean_log_e(precision=precision / 2, total=total / 2, rho=RHO))


def test_thirty_devices_are_the_fewest_that_prove_drift() -> None:
    for devices in (29, 30):
        fold = DriftFold(EVEN, limit=0.25)
        fold.add(devices, told(FAR, devices))
        fold.add(1, told(FAR, 1))
        fold.add(0, {})
        assert fold.weighed == (devices == 30)


def test_predictions_that_never_vary_divide_by_nothing() -> None:
    fold = DriftFold((0.5, 0.5), limit=0.25)
    for _ in range(2):
        fold.add(40, told((0.5, 0.5), 40, spread=0.0))
    assert fold.precision == pytest.approx(40 / 1e-6)
    assert fold.log_e(RHO) == 0.0


# --- what the gate makes of it ---


@pytest.mark.parametrize("windows", [0, 1])
def test_the_tests_of_drift_begin_without_evidence_in_every_stage(windows: int) -> None:
    """ln E of a test that has seen nothing is 0: its share of the budget stays where it was laid."""
    asked = plan(stage(drift_psi_max=0.25), stage("b", 25), stage("c", 100))
    ledger = Ledger(asked, references=References(treated=EVEN, control=EVEN))
    ledger.fold([each for each in cells(random.Random(1), FAR, EVEN) if each.window < windows])
    lanes = ledger.drift_lanes(0)
    share = guard_weights(asked)["drift"]
    assert [(lane.guardrail, lane.weight, lane.log_e) for lane in lanes] == [
        ("drift", pytest.approx(share * part), 0.0) for part in (0.8, 0.1, 0.1)
    ]
    assert Ledger(plan()).drift_lanes(0) == []


def test_two_limits_of_drift_have_a_test_each_and_the_stages_own_is_in_force() -> None:
    asked = plan(stage(drift_psi_max=5.0), stage("b", 25, drift_psi_max=0.25), stage("c", 100))
    ledger = Ledger(asked, references=References(treated=EVEN, control=EVEN))
    ledger.fold(cells(random.Random(1), FAR, EVEN))
    assert drift_limits(asked) == [0.25, 5.0]
    assert [lane.log_e for lane in ledger.drift_lanes(0)] == [0.0, 0.0, 0.0]
    first, *rest = [lane.log_e for lane in ledger.drift_lanes(1)]
    assert first == ledger.cohorts[0].drifts[0.25].log_e(sharpest_at(0.1, alpha=asked.alpha)) > 10
    assert rest == [0.0, 0.0]


def test_a_control_that_drifts_past_the_limit_leaves_no_evidence_of_drift() -> None:
    def lane(control: tuple[float, ...]) -> float:
        ledger = Ledger(WATCHED, references=References(treated=EVEN, control=EVEN))
        ledger.fold(cells(random.Random(1), FAR, control))
        return ledger.drift_lanes(0)[0].log_e

    assert lane(FAR) == 0.0
    assert lane(SHIFTED) == lane(EVEN) > 10


def test_without_a_reference_of_the_control_the_new_versions_drift_counts() -> None:
    ledger = Ledger(WATCHED, references=References(treated=EVEN))
    ledger.fold(cells(random.Random(1), FAR, FAR))
    assert ledger.drift(0, "control") is None
    assert ledger.drift_lanes(0)[0].log_e > 10
    assert Ledger(WATCHED, references=References(treated=EVEN)).drift(0, "treated") is None


def cells(chance: random.Random, treated: tuple[float, ...], control: tuple[float, ...], *, n: int = 100) -> list[Cell]:
    return [
        cell(role, w, n=n, prediction_units=n, predictions=drawn(chance, [mean] * n))
        for w in range(12)
        for role, mean in (("treated", treated), ("control", control))
    ]


def judged(wanted: Plan, seen: list[Cell], **changes: object) -> Verdict:
    ledger = Ledger(wanted, references=References(treated=EVEN, control=EVEN))
    return judge(wanted, gate_input(*seen, **changes), ledger)


WATCHED = plan(stage("all", 100, drift_psi_max=0.25))


def test_drift_of_the_new_version_goes_back() -> None:
    verdict = judged(WATCHED, cells(random.Random(1), FAR, EVEN))
    assert verdict.move == "roll_back"
    assert "harm is proven: drift" in verdict.because
    assert "stability index of the predictions" in verdict.because


def test_drift_within_the_limit_promotes() -> None:
    verdict = judged(WATCHED, cells(random.Random(2), (0.2, 0.25, 0.25, 0.3), EVEN))
    assert verdict.move == "finish"
    assert verdict.evidence["estimates"]["treated"]["drift_psi"] < 0.1


def test_drift_of_the_control_too_holds_and_says_so() -> None:
    verdict = judged(WATCHED, cells(random.Random(3), FAR, FAR))
    assert verdict.move == "hold"
    assert "at most 0.25 may be (drift_psi_max" in verdict.because
    assert "the control breaks it too" in verdict.because


def test_few_devices_that_drift_hold() -> None:
    verdict = judged(WATCHED, cells(random.Random(4), FAR, EVEN, n=10))
    assert verdict.move == "hold"
    assert "at most 0.25 may be (drift_psi_max" in verdict.because


def test_predictions_that_nobody_reported_hold() -> None:
    silent = [cell("treated", 0, n=100), cell("control", 0, n=1900)]
    assert (
        "drift_psi_max asks for the stability index of the predictions, and nothing" in judged(WATCHED, silent).because
    )


def test_a_guardrail_of_drift_watches_at_a_quarter() -> None:
    held = plan(stage("all", 100), guardrails=(Guardrail(metric="drift", severity="hold"),))
    assert judged(held, cells(random.Random(1), FAR, EVEN)).move == "hold"
    assert judged(held, cells(random.Random(2), SHIFTED, EVEN)).move == "finish"
    assert judged(plan(stage("all", 100)), cells(random.Random(1), FAR, EVEN)).move == "finish"
