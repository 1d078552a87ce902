"""The arrays that simulate thousands of rollouts say what the gate says."""

import random

import msgspec
import numpy as np
import pytest

from support.values import cell, plan, stage
from whimbrel.gate.batch_gate import Arm, BatchLedger
from whimbrel.gate.combined_evidence import combine
from whimbrel.gate.gate import judge
from whimbrel.gate.guardrails import TOLERATED_SLOWER
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Counts, GateInput
from whimbrel.health.tally import Cell, Moments
from whimbrel.plan.criteria import Guardrail
from whimbrel.plan.plan import Rollback

RUNS, AGES, CLASSES, KEYS = 2, 2, 3, 40
UNSIMULATED = ("battery", "memory_mb", "temperature_c")  # that every plan watches
SCALE = {"treated": 40, "control": 400}


def drawn(chance: np.random.Generator, scale: int, *, rate: float) -> Arm:
    shape = (RUNS, AGES, CLASSES)
    at_risk = chance.poisson(scale, shape)
    labelled = chance.binomial(at_risk, 0.5)
    right = chance.binomial(labelled, 0.8)
    due = chance.poisson(scale / 10, shape)
    spread = np.exp(-(((np.arange(KEYS) - 20) / 6.0) ** 2))
    latency = chance.multinomial(at_risk.sum(axis=2), spread / spread.sum())
    return Arm(
        at_risk=at_risk,
        crashed=chance.binomial(at_risk, rate),
        error_share=chance.binomial(at_risk, 0.02),
        due=due,
        overdue=chance.binomial(due, 0.05),
        accuracy_n=labelled,
        accuracy_sum=right,
        accuracy_sumsq=right,
        latency=latency,
    )


def cells(window: int, cohorts: dict[int, tuple[Arm, Arm]], run: int, *, entered: int = 9) -> list[Cell]:
    made = []
    for number, arms in cohorts.items():
        if number > entered:
            continue
        for role, arm in zip(SCALE, arms, strict=True):
            for age in range(AGES):
                timed = {TOLERATED_SLOWER * k: int(n) for k, n in enumerate(arm.latency[run, age]) if n}
                for index in range(CLASSES):
                    at = (run, age, index)
                    right, n = float(arm.accuracy_sum[at]), int(arm.accuracy_n[at])
                    made.append(
                        cell(
                            role,
                            window,
                            n=int(arm.at_risk[at]),
                            crashed=int(arm.crashed[at]),
                            errors=float(arm.error_share[at]),
                            stage=number,
                            age_bucket=age,
                            hardware_class=f"c{index}",
                            due=int(arm.due[at]),
                            overdue=int(arm.overdue[at]),
                            latency=timed if index == 0 else {},
                            metrics={"accuracy": Moments(n=n, sum=right, sumsq=right)} if n else {},
                        )
                    )
    return made


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("stages", [1, 3])
def test_arrays_and_gate_agree_in_every_window(seed: int, stages: int) -> None:
    chance = np.random.default_rng(seed)
    wanted = plan(*(stage(f"s{n}", 5 * 3**n) for n in range(stages)))
    batch = BatchLedger(wanted, runs=RUNS, classes=CLASSES)
    ledgers = [Ledger(wanted) for _ in range(RUNS)]
    for window in range(12):
        entered = min(stages - 1, window // 4)
        cohorts = {
            number: (drawn(chance, SCALE["treated"], rate=0.03), drawn(chance, SCALE["control"], rate=0.02))
            for number in range(entered + 1)
        }
        batch.fold(cohorts)
        for run, ledger in enumerate(ledgers):
            now = GateInput(stage=entered, soaked_s=0, counts={}, cells=cells(window, cohorts, run))
            verdict = judge(wanted, now, ledger)
            assert verdict.evidence["log_e"] == pytest.approx(float(batch.log_e()[run]), abs=1e-5)


@pytest.mark.parametrize("seed", [3, 4])
def test_arrays_and_gate_agree_where_runs_move_at_different_times_and_limits_change(seed: int) -> None:
    """A run that holds for longer starts its copies later, and is judged by the limits of its own stage."""
    chance = np.random.default_rng(seed)
    wanted = plan(
        stage("s0", 5, error_rate_max=0.015, latency_p99_max_ms=12.0),
        stage("s1", 20, latency_p99_max_ms=14.0),
        stage("s2", 60, error_rate_max=0.02),
    )
    batch = BatchLedger(wanted, runs=RUNS, classes=CLASSES, keys=TOLERATED_SLOWER * np.arange(KEYS))
    assert batch.unwatched == UNSIMULATED
    ledgers = [Ledger(wanted) for _ in range(RUNS)]
    seen = []
    for window in range(15):
        entered = np.array([min(2, window // 4), min(2, window // 7)])
        cohorts = {
            number: (drawn(chance, SCALE["treated"], rate=0.03), drawn(chance, SCALE["control"], rate=0.02))
            for number in range(int(entered.max()) + 1)
        }
        for number, arms in cohorts.items():
            for arm in arms:
                for name in Arm.__struct_fields__[:-1]:
                    getattr(arm, name)[entered < number] = 0
        batch.fold(cohorts, entered=entered)
        failed, active = np.array([window, 2 * window]), np.array([30 * window, 25 * window])
        logs = batch.log_e(failures=failed, attempts=active + failed)
        for run, ledger in enumerate(ledgers):
            counts = {0: Counts(failed_t=int(failed[run]), activated_t=int(active[run]))}
            now = GateInput(
                stage=int(entered[run]),
                soaked_s=0,
                counts=counts,
                cells=cells(window, cohorts, run, entered=int(entered[run])),
            )
            table = judge(wanted, now, ledger).evidence
            assert table["log_e"] == pytest.approx(float(logs[run]), abs=1e-5)
            lead = combine(wanted, now, ledger, counts[0]).lead().guardrail
            assert batch.leads(failures=failed, attempts=active + failed)[run] == lead
            seen.append({name for name, log in table["guardrails"].items() if log})
    assert {"error_limit", "latency_limit", "latency_over", "failure"} <= set().union(*seen)


@pytest.mark.parametrize("seed", [5, 6])
def test_arrays_and_gate_agree_on_a_plans_own_margins_weights_and_severities(seed: int) -> None:
    chance = np.random.default_rng(seed)
    said = (
        Guardrail(metric="crash", margin=1.4, weight=3),
        Guardrail(metric="error", severity="warn"),
        Guardrail(metric="accuracy", margin=0.02, severity="hold"),
        Guardrail(metric="latency_p95", margin=1.3),
        Guardrail(metric="failure", margin=0.1),
    )
    wanted = plan(stage(), guardrails=said)
    keys = np.arange(KEYS)  # steps of one bucket: 1.3 is 13 of them, and 1.1 four
    batch, ledger = BatchLedger(wanted, runs=1, classes=CLASSES, keys=keys), Ledger(wanted)
    assert batch.unwatched == UNSIMULATED
    for window in range(10):
        cohorts = {0: (drawn(chance, 40, rate=0.08), drawn(chance, 400, rate=0.02))}
        for arm in cohorts[0]:
            for name in Arm.__struct_fields__[:-1]:
                setattr(arm, name, getattr(arm, name)[:1])
        batch.fold(cohorts)
        made = [
            msgspec.structs.replace(each, latency={key // TOLERATED_SLOWER: n for key, n in each.latency.items()})
            for each in cells(window, cohorts, 0)
        ]
        counts = {0: Counts(failed_t=3, activated_t=20 * window)}
        found = judge(wanted, GateInput(stage=0, soaked_s=0, counts=counts, cells=made), ledger)
        both = {"failures": 3, "attempts": 20 * window + 3}
        assert found.evidence["log_e"] == pytest.approx(float(batch.log_e(**both)[0]), abs=1e-5)
        stops = batch.log_e("rollback", "hold", **both)[0] >= np.log(1 / wanted.alpha)
        assert (found.move != "wait") == stops
        if window == 0:
            assert batch.log_e("rollback")[0] < batch.log_e("rollback", "hold")[0] < batch.log_e()[0]


@pytest.mark.parametrize("seed", [8, 9])
def test_arrays_and_gate_agree_on_copies_that_begin_anew_and_on_small_classes(seed: int) -> None:
    """Two windows an hour, runs that enter the second stage at different hours, one class in few devices."""
    chance = np.random.default_rng(seed)
    wanted = plan(stage("s0", 5), stage("s1", 20), rollback=Rollback(health_check_interval_sec=1800))
    batch, ledgers = BatchLedger(wanted, runs=RUNS, classes=CLASSES), [Ledger(wanted) for _ in range(RUNS)]
    for window in range(36):
        entered = np.array([int(window >= 7), int(window >= 12)])
        cohorts = {
            number: (drawn(chance, SCALE["treated"], rate=0.02), drawn(chance, SCALE["control"], rate=0.02))
            for number in range(int(entered.max()) + 1)
        }
        for number, arms in cohorts.items():
            for arm in arms:
                for name in Arm.__struct_fields__[:-1]:
                    getattr(arm, name)[entered < number] = 0
                    if name != "latency":
                        getattr(arm, name)[..., -1] //= 20
        batch.fold(cohorts, entered=entered)
        logs = batch.log_e()
        for run, ledger in enumerate(ledgers):
            made = cells(window, cohorts, run, entered=int(entered[run]))
            verdict = judge(wanted, GateInput(stage=int(entered[run]), soaked_s=0, counts={}, cells=made), ledger)
            assert verdict.evidence["log_e"] == pytest.approx(float(logs[run]), abs=1e-5)


def test_what_arrays_do_not_watch_is_named() -> None:
    wanted = plan(stage("s0", 5, latency_p99_max_ms=4.0, battery_increase_max=0.1))
    batch = BatchLedger(wanted, runs=3, classes=2)
    assert batch.unwatched == tuple(sorted(("latency_limit", "latency_over", *UNSIMULATED)))
    assert batch.log_e() == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_the_order_in_which_windows_come_at_once_does_not_matter() -> None:
    chance = random.Random(7)
    made = [
        cell(role, w, n=50, crashed=chance.randrange(3), errors=chance.random(), hardware_class=f"c{w % 3}")
        for w in range(9)
        for role in SCALE
    ]
    shuffled = made[:]
    chance.shuffle(shuffled)
    one = judge(plan(), GateInput(stage=0, soaked_s=0, counts={}, cells=made))
    assert one == judge(plan(), GateInput(stage=0, soaked_s=0, counts={}, cells=shuffled))
