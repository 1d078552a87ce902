"""Messages of devices become tallies: each counts once, in order, also where a process ends between two steps."""

import logging
from collections.abc import Sequence

import pytest

from support.rollouts_in_memory import cells, enrolled, running, send
from support.server_in_memory import ServerInMemory
from support.values import announce, cohort, devices_in, reports, window
from whimbrel.errors import Unavailable
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Taken
from whimbrel.server.controllers import tallying

TREATED = devices_in(0, 50_000, 7)


def waiting(server: ServerInMemory) -> int:
    return len(server.run(server.inbox.take(1000)).records)


def told(server: ServerInMemory, rollout: str, devices: Sequence[str], *, first: int = 1) -> list[DeviceMessage]:
    """A report of each of these treated devices."""
    counted = (cohort(rollout=rollout),)
    return [reports(each, window(first, cohorts=counted), at=server.clock.now) for each in devices]


def empty(server: ServerInMemory) -> int:
    """Count all that waits. Returns how many devices failed or went back."""
    setbacks: int = server.run(server.controllers.tallying.empty_inbox())
    return setbacks


def at_risk(server: ServerInMemory, rollout: str) -> int:
    return sum(cell.at_risk for cell in cells(server, rollout))


@pytest.mark.parametrize("messages", [0, 1, 2, 3, 6, 7])
def test_all_that_waits_is_counted_whatever_comes_at_once(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    monkeypatch.setattr(tallying, "_RECORDS_AT_ONCE", 3)
    enrolled(server, *TREATED)
    rollout = running(server)
    send(server, told(server, rollout, TREATED[:messages]))
    assert empty(server) == 0
    assert (at_risk(server, rollout), waiting(server)) == (messages, 0)


def test_devices_that_failed_or_went_back_are_told_over_all_that_was_taken(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallying, "_RECORDS_AT_ONCE", 2)
    enrolled(server, *TREATED)
    rollout = running(server)
    steps = ["activated", "failed", "went_back", "committed", "failed"]
    now = server.clock.now
    send(server, [announce(each, step, rollout=rollout, at=now) for each, step in zip(TREATED, steps, strict=False)])
    assert empty(server) == 3


def test_a_process_that_ends_before_the_inbox_forgot_counts_nothing_twice(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrolled(server, *TREATED)
    rollout = running(server)
    send(server, told(server, rollout, TREATED))

    async def killed(_: Taken) -> None:
        raise Unavailable("killed")

    with monkeypatch.context() as patched:
        patched.setattr(server.inbox, "done", killed)
        with pytest.raises(Unavailable, match="killed"):
            empty(server)
    assert (at_risk(server, rollout), waiting(server)) == (7, 7)
    empty(server)
    assert (at_risk(server, rollout), waiting(server)) == (7, 0)


def test_a_server_that_does_not_lead_counts_nothing_and_the_inbox_keeps_all(server: ServerInMemory) -> None:
    enrolled(server, *TREATED)
    rollout = running(server)
    send(server, told(server, rollout, TREATED))
    server.controllers.leader.resign()
    assert server.new_controllers().leader.take()
    with pytest.raises(Unavailable, match="another server leads now"):
        empty(server)
    assert (at_risk(server, rollout), waiting(server)) == (0, 7)


def test_an_empty_inbox_asks_for_no_lead(server: ServerInMemory) -> None:
    server.controllers.leader.resign()
    assert server.new_controllers().leader.take()
    assert empty(server) == 0


def test_what_cannot_be_read_or_contradicts_is_dropped_logged_and_stops_no_other(
    server: ServerInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled(server, *TREATED)
    rollout = running(server)
    lies = reports(TREATED[1], window(1, cohorts=(cohort("control", rollout=rollout),)), at=server.clock.now)
    broken = DeviceMessage(namespace="default", device_id=TREATED[2], kind="reports", body=b"{", at=server.clock.now)
    good = told(server, rollout, [TREATED[0], TREATED[3]])
    send(server, [good[0], lies, broken, broken, good[1]])
    with caplog.at_level(logging.WARNING, logger=tallying.__name__):
        empty(server)
    assert [record.getMessage() for record in caplog.records] == [
        "default: 1 contradictory and 2 unreadable reports were not counted"
    ]
    assert (at_risk(server, rollout), waiting(server)) == (2, 0)


def test_what_is_in_order_is_not_logged(server: ServerInMemory, caplog: pytest.LogCaptureFixture) -> None:
    enrolled(server, *TREATED)
    send(server, told(server, running(server), TREATED))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger=tallying.__name__):
        empty(server)
    assert caplog.records == []


def test_messages_of_another_namespace_are_counted_there_alone(server: ServerInMemory) -> None:
    enrolled(server, *TREATED)
    rollout = running(server)
    (mine,) = told(server, rollout, TREATED[:1])
    (theirs,) = told(server, rollout, TREATED[1:2])
    elsewhere = DeviceMessage(
        namespace="other", device_id=theirs.device_id, kind="reports", body=theirs.body, at=theirs.at
    )
    send(server, [elsewhere, mine, elsewhere])
    empty(server)
    assert (at_risk(server, rollout), waiting(server)) == (1, 0)


def test_devices_that_came_by_a_shared_token_after_the_beginning_are_tallied_apart(server: ServerInMemory) -> None:
    enrolled(server, *TREATED[:2])
    rollout = running(server)
    server.clock.now += 60
    enrolled(server, *TREATED[2:], at=server.clock.now)
    send(server, told(server, rollout, TREATED))
    empty(server)
    assert (at_risk(server, rollout), at_risk(server, f"unproven/{rollout}")) == (2, 5)
