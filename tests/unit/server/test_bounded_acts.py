"""Acts that anybody may repeat: some have an entry of their own, the others are counted, and a flood fills no table."""

import asyncio
import logging

import pytest

from support.rollouts_in_memory import audited
from support.server_in_memory import ServerInMemory
from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.server import bounded_acts
from whimbrel.server.bounded_acts import (
    ENROL_DEVICE,
    FAIL_DEVICE_SIGN_IN,
    FAIL_SIGN_IN,
    HAND_OUT_RELEASE_KEY,
    BoundedActs,
)

MINUTE_S, OWN = limits.AUDIT_BOUNDED_S, limits.AUDIT_BOUNDED_OWN


def count(server: ServerInMemory, *by: str, action: str = FAIL_SIGN_IN, namespace: str = "default") -> None:
    for each in by:
        server.acts.count(namespace, action, by=each)


def told(server: ServerInMemory, action: str = FAIL_SIGN_IN) -> list[str]:
    return [entry.because for entry in audited(server, action)]


def owns(server: ServerInMemory, times: int, *, action: str = ENROL_DEVICE, namespace: str = "default") -> int:
    """How many of so many acts have an entry of their own."""
    return sum(server.acts.own_entry(namespace, action) for _ in range(times))


def test_so_many_acts_a_minute_have_an_entry_of_their_own(server: ServerInMemory) -> None:
    assert owns(server, OWN + 5) == OWN
    server.clock.now += MINUTE_S - 0.5
    assert owns(server, 1) == 0
    server.clock.now += 0.5
    assert owns(server, OWN + 5) == OWN
    server.clock.now -= 1  # the clock went back: nobody is kept waiting for it
    assert owns(server, 1) == 1


def test_each_kind_and_each_namespace_has_its_own_entries(server: ServerInMemory) -> None:
    owns(server, OWN + 1)
    assert owns(server, 1, action=HAND_OUT_RELEASE_KEY) == 1
    assert owns(server, 1, namespace="other") == 1


@pytest.mark.parametrize(
    ("action", "by", "because"),
    [
        (FAIL_SIGN_IN, ["10.0.0.1"], "1 request of people was not let in, from 10.0.0.1"),
        (FAIL_SIGN_IN, ["a", "b", "b"], "3 requests of people were not let in, most from b"),
        (FAIL_DEVICE_SIGN_IN, [""], "1 enrolment or sign-in of a device failed, from an unknown address"),
        (FAIL_DEVICE_SIGN_IN, ["a", "a"], "2 enrolments or sign-ins of devices failed, from a"),
        (ENROL_DEVICE, ["first"], "1 further device enrolled, with the token first"),
        (ENROL_DEVICE, ["x"] * 1200, "1,200 further devices enrolled, with the token x"),
        (HAND_OUT_RELEASE_KEY, ["wake"], "1 further release key was handed out, of wake"),
        (HAND_OUT_RELEASE_KEY, ["wake", "eat", "eat"], "3 further release keys were handed out, most of eat"),
    ],
)
def test_what_was_counted_is_one_entry_in_words(
    server: ServerInMemory, action: str, by: list[str], because: str
) -> None:
    began = server.clock.now
    count(server, by[0], action=action)
    server.clock.now += 5
    count(server, *by[1:], action=action)
    server.acts.write()
    (entry,) = audited(server, action)
    assert (entry.because, entry.actor) == (because, "anybody")
    evidence = dict(entry.evidence)
    assert sum(evidence.pop("most_by").values()) == len(by)
    assert evidence == {"count": len(by), "since": began, "until": began + 5}
    server.acts.write()
    assert len(audited(server, action)) == 1


def test_the_first_of_a_burst_is_told_at_once_and_the_others_once_a_minute(server: ServerInMemory) -> None:
    count(server, "a")
    server.acts.write()
    count(server, "a", "a")
    server.acts.write()
    assert len(told(server)) == 1
    server.clock.now += MINUTE_S - 0.5
    server.acts.write()
    assert len(told(server)) == 1
    server.clock.now += 0.5
    server.acts.write()
    assert told(server) == [
        "1 request of people was not let in, from a",
        "2 requests of people were not let in, from a",
    ]


def test_where_the_clock_went_back_nobody_waits_for_it(server: ServerInMemory) -> None:
    count(server, "a")
    server.acts.write()
    count(server, "a")
    server.clock.now -= 0.5
    server.acts.write()
    assert len(told(server)) == 2


def test_a_process_that_ends_writes_all_that_it_counted(server: ServerInMemory) -> None:
    count(server, "a")
    server.acts.write()
    count(server, "a")
    server.acts.write(all_of_it=True)
    assert len(told(server)) == 2


def test_an_entry_names_some_of_whom_they_came_from_and_counts_the_rest(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_BOUNDED_NAMES", 3)
    monkeypatch.setattr(limits, "AUDIT_BOUNDED_TOLD", 2)
    count(server, "a", "b", "b", "b", "c", "d", "e", "a", "d")
    server.acts.write()
    (entry,) = audited(server, FAIL_SIGN_IN)
    assert (entry.evidence["count"], entry.evidence["most_by"]) == (9, {"b": 3, "others": 3})


def test_namespaces_that_somebody_invents_fill_neither_memory_nor_table(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_BOUNDED_KINDS", 2)
    count(server, "a")
    for number in range(50):
        count(server, "a", namespace=f"invented-{number}")
    assert len(server.acts._acts) <= 3
    server.acts.write()
    assert len(told(server)) == 1
    count(server, "a", namespace="another")
    server.acts.write()
    assert len(server.acts._acts) <= 2


def test_a_database_that_does_not_answer_costs_no_count(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=bounded_acts.__name__)
    monkeypatch.setattr(bounded_acts, "_PERIOD_S", 0.0)
    count(server, "a", "a")
    write, tries = server.acts.write, 0

    def sick(*, all_of_it: bool = False) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("the database is locked")
        if tries == 4:
            raise ZeroDivisionError
        write(all_of_it=all_of_it)

    monkeypatch.setattr(server.acts, "write", sick)

    async def play() -> None:
        task = asyncio.create_task(server.acts.run())
        while tries < 5:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    server.run(play())
    assert [each.getMessage() for each in caplog.records] == [
        "acts that were counted could not be written into the audit log: the database is locked",
        "acts that were counted could not be written into the audit log",
    ]
    assert told(server) == ["2 requests of people were not let in, from a"]


def test_what_comes_while_an_entry_is_written_is_in_the_next_one(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: BoundedActs = server.acts
    namespaces = bounded_acts.all_namespaces

    def meanwhile(database: object) -> list[str]:
        count(server, "a", "b")
        return namespaces(database)

    count(server, "a")
    with monkeypatch.context() as patched:
        patched.setattr(bounded_acts, "all_namespaces", meanwhile)
        acts.write()
    acts.write(all_of_it=True)
    assert [entry.evidence["most_by"] for entry in audited(server, FAIL_SIGN_IN)] == [{"a": 1}, {"a": 1, "b": 1}]


def test_nothing_is_asked_of_the_database_where_nothing_is_due(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: object) -> list[str]:
        raise AssertionError("it was asked")

    monkeypatch.setattr(bounded_acts, "all_namespaces", never)
    server.acts.write()
    server.acts.write(all_of_it=True)
