"""What rollouts and experiments share when a gate looks at their windows."""

import hashlib

import msgspec
import pytest

from support.values import T0, cell, rollout, town
from whimbrel.errors import Unavailable
from whimbrel.flows.judging import judge_windows
from whimbrel.flows.records import VerdictRecord
from whimbrel.flows.rollouts.judge import RolloutGate, RolloutLedgers, gate_input, replay_rollout
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.verdict import Verdict
from whimbrel.model.documents import encode


class Interrupted(RolloutGate):
    """It ends in the middle of its work, with the windows folded."""

    def judge(self, gate_input, ledger, cells) -> Verdict:
        super().judge(gate_input, ledger, cells)
        raise Unavailable("the process was stopped")


def test_a_ledger_whose_folding_was_interrupted_is_forgotten() -> None:
    """Else the windows of the interrupted look would count twice, or not at all."""
    with town(running=rollout()) as here:
        here.fleet.tally("r1", [cell(role, w, n=100) for w in range(3) for role in ("treated", "control")])
        record = here.registry.rollout("r1")
        looked_at = gate_input(here.registry, here.fleet, record, now=T0 + 900)
        ledgers: RolloutLedgers = {"r1": Ledger(record.plan)}
        with pytest.raises(Unavailable):
            judge_windows(
                here.fleet, Interrupted(here.registry, record, here.fleet), looked_at, window=3, ledgers=ledgers
            )
        assert ledgers == {}


def test_a_kept_ledger_gives_the_verdict_of_a_new_one() -> None:
    with town(running=rollout()) as here:
        gate = RolloutGate(here.registry, here.registry.rollout("r1"), here.fleet)
        kept = RolloutLedgers()
        for w in range(6):
            here.fleet.tally("r1", [cell("treated", w, n=50, crashed=w), cell("control", w, n=900, crashed=9)])
            looked_at = gate_input(here.registry, here.fleet, gate.comparison, now=T0 + 300 * (w + 1))
            anew = judge_windows(here.fleet, gate, looked_at, window=w + 1, ledgers=RolloutLedgers())
            assert judge_windows(here.fleet, gate, looked_at, window=w + 1, ledgers=kept) == anew


def test_a_kept_ledger_that_is_ahead_of_the_window_is_not_used() -> None:
    with town(running=rollout()) as here:
        here.fleet.tally("r1", [cell("treated", w, n=50, crashed=5 * w) for w in range(4)])
        gate, kept = RolloutGate(here.registry, here.registry.rollout("r1"), here.fleet), RolloutLedgers()
        looked_at = gate_input(here.registry, here.fleet, gate.comparison, now=T0 + 1200)
        first = judge_windows(here.fleet, gate, looked_at, window=2, ledgers=RolloutLedgers())
        judge_windows(here.fleet, gate, looked_at, window=4, ledgers=kept)
        assert judge_windows(here.fleet, gate, looked_at, window=2, ledgers=kept) == first


def test_a_verdict_that_was_said_in_older_words_is_given_again_and_one_with_other_figures_is_not() -> None:
    """Sentences become better from version to version: a stored rollout must not look tampered with for that."""
    with town(running=rollout()) as here:
        gate = RolloutGate(here.registry, here.registry.rollout("r1"), here.fleet)
        here.fleet.tally("r1", [cell("treated", 0, n=50), cell("control", 0, n=900)])
        looked_at = gate_input(here.registry, here.fleet, gate.comparison, now=T0 + 300)
        verdict = judge_windows(here.fleet, gate, looked_at, window=1, ledgers=RolloutLedgers())
        older = msgspec.structs.replace(verdict, because="stage canary has soaked 300 of 86400 s")
        other = msgspec.structs.replace(older, evidence=older.evidence | {"log_e": 1.0})
        moved = msgspec.structs.replace(older, move="advance")
        for each in (older, other, moved):
            here.registry.write_verdict(
                VerdictRecord(
                    rollout="r1",
                    at=T0 + 300,
                    window=1,
                    situation=encode(looked_at),
                    move=each.move,
                    because=each.because,
                    sha256=hashlib.sha256(encode(each)).hexdigest(),
                )
            )
        assert [each.same for each in replay_rollout(here.registry, here.fleet, "r1")] == [True, False, False]
