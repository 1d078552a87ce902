"""A version that nobody uses any more: windows without a session, where a plan asks for them."""

import pytest

from support.values import cell, gate_input, plan
from whimbrel.gate.gate import judge
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.tally import Cell, cell_of
from whimbrel.model.documents import encode, parse
from whimbrel.plan.criteria import Guardrail
from whimbrel.plan.plan import Plan


def used(*, treated: int, control: int, windows: int = 20) -> list[Cell]:
    """How many of 100 treated and of 1,900 control devices had no session in each window."""
    return [
        each
        for w in range(windows)
        for each in (cell("treated", w, n=100, unused=treated), cell("control", w, n=1900, unused=control))
    ]


def watched(**changes: object) -> Plan:
    return plan(guardrails=(Guardrail(metric="disuse", **changes),))  # type: ignore[arg-type]


def told(*, sessions: int) -> Cell:
    return cell_of(DeviceWindow(window=0, role="treated", sessions=sessions), stage=0)


def test_a_device_window_without_a_session_counts_as_unused() -> None:
    assert [told(sessions=sessions).unused for sessions in (0, 1, 5)] == [1, 0, 0]


def test_a_version_that_nobody_uses_goes_back_and_the_sentence_says_so() -> None:
    verdict = judge(watched(), gate_input(*used(treated=95, control=950), soaked_s=60))
    assert verdict.move == "roll_back"
    assert "device-windows without a session: 95.00% against 50.00% in the control" in verdict.because
    assert verdict.evidence["estimates"]["treated"]["disuse"] == 0.95


def test_a_version_that_is_used_as_before_advances() -> None:
    assert judge(watched(), gate_input(*used(treated=50, control=950))).move == "advance"
    assert judge(watched(), gate_input(*used(treated=5, control=950))).move == "advance"  # used more


@pytest.mark.parametrize(("severity", "move"), [("hold", "hold"), ("warn", "advance")])
def test_its_severity_and_margin_are_those_of_the_plan(severity: str, move: str) -> None:
    cells = used(treated=95, control=950)
    assert judge(watched(severity=severity), gate_input(*cells)).move == move
    assert judge(watched(margin=2.0), gate_input(*cells)).move == "advance"


def test_where_no_guardrail_names_it_nothing_is_said_of_it() -> None:
    cells = used(treated=95, control=950)
    without = [cell(each.role, each.window, n=each.at_risk) for each in cells]
    assert judge(plan(), gate_input(*cells)) == judge(plan(), gate_input(*without))


def test_proof_is_asked_for_it_too_where_the_plan_wants_proof() -> None:
    proof = plan(promote="when_proven", guardrails=(Guardrail(metric="disuse"),))
    verdict = judge(proof, gate_input(*used(treated=95, control=1805)))
    assert "disuse" in verdict.evidence["proofs"]


def test_cells_that_were_kept_before_it_was_counted_are_read() -> None:
    kept = b'{"at_risk":3,"role":"control","sessions":4,"stage":0,"window":1}'
    assert parse(Cell, kept, what="a cell").unused == 0
    assert encode(parse(Cell, kept, what="a cell")) == kept
