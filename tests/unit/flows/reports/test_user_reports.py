"""Tickets count once, in the arm of the device that they name, in the window that is open then."""

from typing import Any

import pytest

from support.values import (
    HOUR,
    T0,
    Town,
    announce,
    cell,
    devices_in,
    gate_input,
    plan,
    reports,
    rollout,
    stage,
    town,
    window,
)
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.user_reports import FilingResult, count_reports, file_batch, file_reports
from whimbrel.flows.rollouts.advance import advance
from whimbrel.gate.gate import judge
from whimbrel.health.tally import Cell
from whimbrel.health.user_report import UserReport, UserReports
from whimbrel.model.documents import parse
from whimbrel.plan.criteria import Guardrail
from whimbrel.stores.tickets import Tickets

(CANARY,) = devices_in(0, 50_000, 1)
(OTHER,) = devices_in(50_000, 1_000_000, 1)
LATER = T0 + 400


def ticket(number: int | str, **changes: Any) -> UserReport:
    return UserReport(**{"ticket": f"Z-{number}", "model": "wake", "at": LATER} | changes)


def rows(here: Town) -> Tickets:
    return here.stores.tickets


def filed(here: Town, *tickets: UserReport, now: float = LATER) -> FilingResult:
    return file_reports(here.registry, here.fleet, rows(here), tickets, now=now)


def counted(here: Town, *, now: float = LATER + 1) -> int:
    return count_reports(here.registry, here.fleet, rows(here), now=now)


def running(here: Town) -> None:
    here.enrol(CANARY, OTHER)
    said = [announce(CANARY, "activating"), announce(OTHER, "placebo", role="control")]
    ingest(here.registry, here.fleet, said, now=T0 + 20)


def asked(**changes: Any) -> RolloutRecord:
    return rollout(plan=plan(stage(user_reports_ratio_max=2.0, hours=1), stage("all", 100)), **changes)


def fates(here: Town) -> dict[str, str]:
    return {each.ticket: each.fate for each in rows(here).newest(model="wake", limit=100)}


def test_a_ticket_counts_in_the_arm_of_its_device() -> None:
    with town(running=asked()) as here:
        running(here)
        filed(here, ticket(1, device_id=CANARY), ticket(2, device_id=OTHER))
        assert counted(here) == 2
        assert {(c.role, c.user_reports, c.window) for c in here.cells()} == {("treated", 1, 1), ("control", 1, 1)}
        assert counted(here) == 0


def test_a_ticket_that_is_handed_on_again_counts_once_as_it_was_first() -> None:
    with town(running=asked()) as here:
        running(here)
        assert filed(here, ticket(1, device_id=CANARY), ticket(1, device_id=OTHER)).known == 1
        counted(here)
        assert filed(here, ticket(1, device_id=OTHER)).known == 1
        counted(here, now=LATER + HOUR)
        assert [(c.role, c.user_reports) for c in here.cells()] == [("treated", 1)]


def test_a_user_who_writes_three_times_in_a_window_has_one_trouble() -> None:
    with town(running=asked()) as here:
        running(here)
        filed(here, *(ticket(n, device_id=CANARY) for n in range(3)))
        counted(here)
        filed(here, ticket(3, device_id=CANARY))
        counted(here)
        assert sum(c.user_reports for c in here.cells()) == 1
        assert sorted(fates(here).values()) == ["again", "again", "again", "counted"]
        filed(here, ticket(4, device_id=CANARY), now=LATER + 300)
        counted(here, now=LATER + 301)
        assert sum(c.user_reports for c in here.cells()) == 2


def test_trouble_from_before_the_activation_counts_nowhere() -> None:
    with town(running=asked()) as here:
        running(here)
        filed(here, ticket(1, device_id=CANARY, at=T0 + 5))
        counted(here)
        assert fates(here) == {"Z-1": "nowhere"}
        assert here.cells() == []


def test_a_ticket_of_tomorrow_is_of_now() -> None:
    with town(running=asked()) as here:
        running(here)
        filed(here, ticket(1, device_id=CANARY, at=T0 + 10**6))
        assert rows(here).newest(model="wake", limit=1)[0].at == LATER


def test_a_ticket_that_cannot_be_understood_refuses_itself_alone() -> None:
    with town(running=asked()) as here:
        running(here)
        done = filed(here, ticket(1, device_id="nobody"), ticket(2, version="9.9.9"), ticket(3, version="2.0.0"))
        assert done.new == 1
        assert "no device 'nobody' is enrolled" in done.refused["Z-1"]
        assert "no version '9.9.9'" in done.refused["Z-2"]


def test_a_ticket_names_a_device_or_a_version() -> None:
    for names in ({}, {"device_id": "a", "version": "1.0.0"}):
        with pytest.raises(ValueError, match="either a device or a version"):
            ticket(1, **names)


def test_a_batch_has_a_limit_and_a_strange_field_refuses_it() -> None:
    good = b'{"ticket": "1", "model": "w", "device_id": "d"}'
    for listed in (good[:-1] + b', "severity": 1}', b",".join([good] * 1001)):
        body = b'{"reports": [' + listed + b"]}"
        with pytest.raises(UntrustedInput):
            parse(UserReports, body, what="tickets")


# --- what the gate makes of it ---


def spike(*, treated: int, control: int, windows: int = 12, field: str = "user_reports") -> list[Cell]:
    return [
        c
        for w in range(windows)
        for c in (cell("treated", w, n=100, **{field: treated}), cell("control", w, n=1900, **{field: control}))
    ]


LIMITED = plan(stage(user_reports_ratio_max=2.0))


def test_a_spike_of_tickets_goes_back() -> None:
    verdict = judge(LIMITED, gate_input(*spike(treated=4, control=4), users_heard=True))
    assert verdict.move == "roll_back"
    assert "devices that users wrote of, a window: 4.00% against 0.21% in the control" in verdict.because
    assert "past the limit of user_reports_ratio_max" in verdict.because


def test_as_many_tickets_in_both_arms_promote() -> None:
    assert judge(LIMITED, gate_input(*spike(treated=1, control=19), users_heard=True)).move == "finish"


def test_tickets_are_not_judged_where_no_plan_asks() -> None:
    verdict = judge(plan(stage("all", 100)), gate_input(*spike(treated=50, control=0)))
    assert verdict.move == "finish"
    assert "user_reports" not in verdict.evidence["estimates"]["treated"]


def test_a_help_desk_that_was_never_heard_of_is_no_good_news() -> None:
    quiet = gate_input(*spike(treated=0, control=0))
    assert (
        "user_reports_ratio_max asks for the share of devices that users wrote of, and nothing"
        in judge(LIMITED, quiet).because
    )
    assert judge(LIMITED, gate_input(*spike(treated=0, control=0), users_heard=True)).move == "finish"


def test_a_message_without_tickets_is_heard() -> None:
    with town(running=asked()) as here:
        running(here)
        ingest(here.registry, here.fleet, [reports(CANARY, window())], now=T0 + 400)
        assert "nothing about it" in judged(here).because
        rows(here).heard("wake", at=T0 - 1)  # before the rollout began: says nothing of it
        assert "nothing about it" in judged(here).because
        rows(here).heard("wake", at=T0 + 500)
        assert judged(here).move != "roll_back"
        assert "with the control's, and the control reported nothing about it" in judged(here).because


def test_a_batch_that_names_a_model_is_heard_also_without_tickets() -> None:
    with town(running=asked()) as here:
        result = file_batch(here.registry, here.fleet, rows(here), UserReports(model="wake"), actor="ana", now=T0 + 500)
        assert result == FilingResult(new=0, known=0, refused={})
        assert here.fleet.user_reports_heard_at("wake") == T0 + 500
        with pytest.raises(NotFound):
            file_batch(here.registry, here.fleet, rows(here), UserReports(model="other"), actor="ana", now=T0 + 500)


def test_a_batch_that_names_no_model_is_heard_of_those_of_its_tickets() -> None:
    with town(running=asked()) as here:
        running(here)
        batch = UserReports(reports=(ticket(1, device_id=CANARY),))
        assert file_batch(here.registry, here.fleet, rows(here), batch, actor="ana", now=LATER).new == 1
        assert here.fleet.user_reports_heard_at("wake") == LATER


def judged(here: Town) -> Any:
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + 2 * HOUR)


def test_tickets_that_name_a_version_alone_hold_and_never_go_back() -> None:
    verdict = judge(LIMITED, gate_input(*spike(treated=6, control=2, field="version_reports"), users_heard=True))
    assert verdict.move == "hold"
    assert "harm is proven: version_reports" in verdict.because
    assert "so a person decides" in verdict.because


def test_tickets_that_name_a_version_only_warn_where_tickets_only_warn() -> None:
    warned = plan(stage(user_reports_ratio_max=2.0), guardrails=(Guardrail(metric="user_reports", severity="warn"),))
    verdict = judge(warned, gate_input(*spike(treated=6, control=2, field="version_reports"), users_heard=True))
    assert verdict.move == "finish"
    assert verdict.evidence["warnings"]


def test_tickets_of_a_version_count_in_its_arm() -> None:
    with town(running=asked()) as here:
        filed(here, ticket(1, version="2.0.0"), ticket(2, version="1.0.0"), ticket(3, version="2026.01.01.2"))
        counted(here)
        assert {(c.role, c.version_reports) for c in here.cells()} == {("treated", 2), ("control", 1)}
