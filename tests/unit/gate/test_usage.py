"""A report is not exposure: device-windows with a session, in every plan."""

import pytest

from support.values import cell, gate_input, plan
from whimbrel.gate.gate import judge
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.report import Window
from whimbrel.health.tally import Cell, cell_of
from whimbrel.model.documents import encode, parse
from whimbrel.plan.criteria import Guardrail
from whimbrel.plan.plan import Plan


def used(*, treated: int, control: int, windows: int = 20) -> list[Cell]:
    """How many of 100 treated and of 1,900 control devices had a session in each window."""
    return [
        each
        for w in range(windows)
        for each in (
            cell("treated", w, n=100, unused=100 - treated, sessions=treated, error_units=treated),
            cell("control", w, n=1900, unused=1900 - control, sessions=control, error_units=control),
        )
    ]


def watched(**changes: object) -> Plan:
    return plan(guardrails=(Guardrail(metric="usage", **changes),))


def told(**sums: int) -> Cell:
    report = Window(model="wake", serial=2, first=1, last=1, **sums)
    return cell_of(DeviceWindow(window=0, role="treated").plus(report, chance=0), stage=0)


def test_a_device_window_without_a_session_is_not_in_use() -> None:
    assert [told(sessions=sessions).used for sessions in (0, 1, 5)] == [0, 1, 1]


def test_a_window_whose_session_ended_in_a_crash_was_in_use() -> None:
    assert told(crashed=1).used == told(inferences=4).used == 1


def test_a_version_that_is_used_less_goes_back_in_every_plan_and_the_sentence_says_so() -> None:
    verdict = judge(plan(), gate_input(*used(treated=5, control=950), soaked_s=60))
    assert verdict.move == "roll_back"
    assert "device-windows with a session: 5.00% against 50.00% in the control" in verdict.because
    assert verdict.evidence["estimates"]["treated"]["usage"] == 0.05


def test_a_version_that_is_used_as_before_or_more_advances() -> None:
    assert judge(plan(), gate_input(*used(treated=50, control=950))).move == "advance"
    assert judge(plan(), gate_input(*used(treated=95, control=950))).move == "advance"


@pytest.mark.parametrize(("severity", "move"), [("hold", "hold"), ("warn", "advance")])
def test_its_severity_and_margin_are_those_of_the_plan(severity: str, move: str) -> None:
    cells = used(treated=30, control=950)
    assert judge(watched(severity=severity), gate_input(*cells)).move == move
    assert judge(watched(margin=2.0), gate_input(*cells)).move == "advance"


def test_crashes_are_counted_by_the_device_windows_in_use() -> None:
    """Used a tenth as often, it crashes a third as often in all, and three times as often in use."""
    cells = [
        each
        for w in range(60)
        for each in (
            cell("treated", w, n=1000, unused=970, sessions=30, error_units=30, crashed=3),
            cell("control", w, n=10_000, unused=7000, sessions=3000, error_units=3000, crashed=90),
        )
    ]
    verdict = judge(watched(margin=20.0), gate_input(*cells))
    assert verdict.move == "roll_back"
    assert "crash rate 10.00% against 3.00% in the control" in verdict.because


def test_proof_is_asked_for_where_the_plan_wants_proof() -> None:
    verdict = judge(plan(promote="when_proven"), gate_input(*used(treated=95, control=1805)))
    assert verdict.evidence["proofs"]["usage"] > 3


def test_a_plan_that_was_stored_with_its_old_name_is_read() -> None:
    stored = parse(Guardrail, b'{"metric":"disuse","margin":1.5}', what="a guardrail")
    assert (stored.metric, stored.margin, stored.own) == ("usage", 1.5, False)


def test_cells_that_were_kept_before_it_was_counted_are_read_and_bounded_by_their_sessions() -> None:
    kept = b'{"at_risk":9,"role":"control","sessions":4,"stage":0,"window":1}'
    assert parse(Cell, kept, what="a cell").used == 4
    assert encode(parse(Cell, kept, what="a cell")) == kept
    silent = b'{"at_risk":3,"role":"control","stage":0,"window":1}'
    assert parse(Cell, silent, what="a cell").used == 3
