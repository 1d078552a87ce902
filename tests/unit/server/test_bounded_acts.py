"""Acts that anybody may repeat: how many have an entry of their own, and how the others are told, by whom most."""

import asyncio
import logging
from typing import Any

import pytest

from support.server_in_memory import NAMESPACE, ServerInMemory
from support.values import T0
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
from whimbrel.stores.database import Database

MINUTE = limits.AUDIT_BOUNDED_S


def entries(server: ServerInMemory, action: str) -> list[tuple[str, dict[str, Any]]]:
    """What was written of an action, oldest first."""
    with server.stores() as stores:
        records = stores.audit.newest(action=action, limit=1000)
    assert {each.actor for each in records} <= {"anybody"}
    return [(each.because, each.evidence) for each in reversed(records)]


def test_so_many_acts_of_a_minute_have_an_entry_of_their_own(server: ServerInMemory) -> None:
    acts, most = server.acts, limits.AUDIT_BOUNDED_OWN
    own = [acts.own_entry(NAMESPACE, ENROL_DEVICE) for _ in range(most + 2)]
    assert own == [True] * most + [False] * 2
    assert acts.own_entry(NAMESPACE, HAND_OUT_RELEASE_KEY)  # each kind has its own
    assert acts.own_entry("other", ENROL_DEVICE)
    server.clock.now = T0 + MINUTE - 0.1
    assert not acts.own_entry(NAMESPACE, ENROL_DEVICE)
    server.clock.now = T0 + MINUTE
    assert [acts.own_entry(NAMESPACE, ENROL_DEVICE) for _ in range(most + 1)] == [True] * most + [False]
    server.clock.now = T0 - 5  # a clock that was set back begins anew
    assert acts.own_entry(NAMESPACE, ENROL_DEVICE)


@pytest.mark.parametrize(
    ("action", "one", "many"),
    [
        (FAIL_SIGN_IN, "1 request of people was not let in, from a", "3 requests of people were not let in, from a"),
        (
            FAIL_DEVICE_SIGN_IN,
            "1 enrolment or sign-in of a device failed, from a",
            "3 enrolments or sign-ins of devices failed, from a",
        ),
        (
            HAND_OUT_RELEASE_KEY,
            "1 further release key was handed out, of a",
            "3 further release keys were handed out, of a",
        ),
        (ENROL_DEVICE, "1 further device enrolled, with the token a", "3 further devices enrolled, with the token a"),
    ],
)
def test_acts_that_were_counted_are_one_sentence(server: ServerInMemory, action: str, one: str, many: str) -> None:
    server.acts.count(NAMESPACE, action, by="a")
    server.acts.write()
    server.clock.now += MINUTE
    for _ in range(3):
        server.acts.count(NAMESPACE, action, by="a")
    server.acts.write()
    assert [because for because, _ in entries(server, action)] == [one, many]


def test_an_entry_names_who_did_most_and_from_when_to_when(server: ServerInMemory) -> None:
    server.clock.now = T0 + 1
    for name in ("", *("b" * 3)):
        server.acts.count(NAMESPACE, FAIL_SIGN_IN, by=name)
    server.clock.now = T0 + 5
    for number in range(1200):
        server.acts.count(NAMESPACE, FAIL_SIGN_IN, by=f"address-{number % 20}")
    server.clock.now = T0 + 8
    server.acts.write()
    ((because, evidence),) = entries(server, FAIL_SIGN_IN)
    assert because == "1,204 requests of people were not let in, most from address-0"
    assert (evidence["count"], evidence["since"], evidence["until"]) == (1204, T0 + 1, T0 + 8)
    assert evidence["most_by"] == {f"address-{number}": 60 for number in range(limits.AUDIT_BOUNDED_TOLD)}


def test_nobody_has_a_name_of_his_own_in_words(server: ServerInMemory) -> None:
    server.acts.count(NAMESPACE, FAIL_SIGN_IN, by="")
    server.acts.write()
    assert entries(server, FAIL_SIGN_IN)[0][0] == "1 request of people was not let in, from an unknown address"


def test_one_entry_a_minute_and_the_rest_when_the_process_ends(server: ServerInMemory) -> None:
    acts = server.acts
    counts = []
    for at in (0, MINUTE - 1, MINUTE, MINUTE + 1):
        server.clock.now = T0 + at
        acts.count(NAMESPACE, FAIL_SIGN_IN, by="a")
        acts.write()
        counts.append([evidence["count"] for _, evidence in entries(server, FAIL_SIGN_IN)])
    assert counts == [[1], [1], [1, 2], [1, 2]]
    assert entries(server, FAIL_SIGN_IN)[1][1]["since"] == T0 + MINUTE - 1
    acts.write(all_of_it=True)
    acts.write(all_of_it=True)
    assert [evidence["count"] for _, evidence in entries(server, FAIL_SIGN_IN)] == [1, 2, 1]


def test_names_have_a_limit_and_further_ones_are_others(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_BOUNDED_NAMES", 2)
    for name in ("a", "b", "c", "d", "a"):
        server.acts.count(NAMESPACE, FAIL_SIGN_IN, by=name)
    server.acts.write()
    assert entries(server, FAIL_SIGN_IN)[0][1]["most_by"] == {"a": 2, "b": 1, "others": 2}


def test_namespaces_that_somebody_invents_are_bounded_and_written_nowhere(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AUDIT_BOUNDED_KINDS", 2)
    acts = server.acts
    acts.count(NAMESPACE, FAIL_SIGN_IN, by="a")
    for number in range(10):
        acts.count(f"invented-{number}", FAIL_SIGN_IN, by="b")
    assert len(acts._acts) == 3  # these two, and one for all the others
    acts.write()
    assert list(acts._acts) == [(NAMESPACE, FAIL_SIGN_IN)]
    assert [evidence["most_by"] for _, evidence in entries(server, FAIL_SIGN_IN)] == [{"a": 1}]


def test_counts_are_kept_where_the_database_does_not_answer(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Database) -> Any:
        raise Unavailable("the database is locked")

    server.acts.count(NAMESPACE, FAIL_SIGN_IN, by="a")
    with monkeypatch.context() as patched:
        patched.setattr(bounded_acts, "all_namespaces", fails)
        with pytest.raises(Unavailable):
            server.acts.write()
    server.acts.write()
    assert len(entries(server, FAIL_SIGN_IN)) == 1


def test_nothing_is_asked_of_the_database_where_nothing_is_due(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Database) -> Any:
        raise AssertionError("it was asked")

    monkeypatch.setattr(bounded_acts, "all_namespaces", never)
    server.acts.write()
    server.acts.write(all_of_it=True)


def test_trouble_of_the_writer_is_logged_once_and_ends_nothing(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[Exception | None] = [
        Unavailable("locked"),
        Unavailable("locked"),
        None,
        Unavailable("again"),
        KeyError(),
    ]

    def write() -> None:
        if not steps:
            raise asyncio.CancelledError
        if error := steps.pop(0):
            raise error

    acts = BoundedActs(server.database, clock=server.clock)
    monkeypatch.setattr(acts, "write", write)
    monkeypatch.setattr(bounded_acts, "_PERIOD_S", 0)
    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        asyncio.run(acts.run())
    words = "acts that were counted could not be written into the audit log"
    assert caplog.messages == [f"{words}: locked", f"{words}: again", words]
