"""What needs a person first: which things are said, in which order, from both sides of each limit."""

import pytest

from support.values import HOUR, T0, rollout
from whimbrel import limits
from whimbrel.flows.monitors.records import Episode
from whimbrel.flows.overview.concerns import (
    Concern,
    Named,
    in_order,
    of_devices,
    of_keys,
    of_monitors,
    of_rollouts,
    of_timestamp,
)
from whimbrel.flows.records import RoleExpiry
from whimbrel.plan.rollout_states import State

DAY = 24 * HOUR


def told(state: State, *, missing: int = 0, **changes: object) -> list[tuple[str, str]]:
    moved = rollout(state=state, state_since=T0 + HOUR, because="it is so", **changes)
    concerns = of_rollouts([Named(moved, "2.0.0")], missing={"r1": missing}, now=T0 + 2 * HOUR)
    return [(each.urgency, each.title) for each in concerns]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.ROLLING_BACK, [("urgent", "wake 2.0.0 goes back now")]),
        (State.HOLDING, [("waits", "wake 2.0.0 holds at stage canary")]),
        (State.PAUSED, [("waits", "wake 2.0.0 is paused at stage canary")]),
        (State.SOAKING, []),
        (State.RUNNING, []),
        (State.COMPLETED, []),
        (State.SCHEDULED, []),
    ],
)
def test_a_rollout_is_told_of_where_it_needs_somebody(state: State, said: list[tuple[str, str]]) -> None:
    assert told(state) == said


@pytest.mark.parametrize(
    ("missing", "words"),
    [(1, "waits for one more person"), (2, "waits for 2 more people"), (0, "was approved, and waits for its time")],
)
def test_who_is_missing_is_counted(missing: int, words: str) -> None:
    assert told(State.WAITING_FOR_APPROVAL, missing=missing) == [("waits", f"wake 2.0.0 {words}")]


def test_what_went_back_is_told_for_a_day() -> None:
    now = T0 + 2 * HOUR
    assert told(State.ROLLED_BACK, ended_at=now - DAY + 1) == [("note", "wake 2.0.0 was taken back")]
    assert told(State.ABORTED, ended_at=now - DAY + 1) == [("note", "wake 2.0.0 was ended")]
    assert told(State.ROLLED_BACK, ended_at=now - DAY) == []


def test_a_rollout_of_a_set_is_told_of_once() -> None:
    assert told(State.HOLDING, lead="r0") == []


def test_a_concern_says_why_and_since_when() -> None:
    (concern,) = of_rollouts(
        [Named(rollout(state=State.HOLDING, state_since=T0 + 5, because="41 of 200 reported"), "2.0.0")],
        missing={},
        now=T0,
    )
    assert (concern.sentence, concern.since, concern.subject, concern.name) == (
        "41 of 200 reported",
        T0 + 5,
        "rollout",
        "r1",
    )


def test_monitors_are_told_of_while_they_fire() -> None:
    fires = Episode(model="wake", serial=1, monitor="crash", since=T0, because="crashes are 3%")
    over = Episode(model="wake", serial=1, monitor="crash", since=T0, because="x", ended_at=T0 + 5)
    back = Episode(model="wake", serial=9, monitor="crash", since=T0, because="y", outcome="taken_back")
    concerns = of_monitors([fires, over, back], names={("wake", 1): "1.0.0"})
    assert [(each.urgency, each.title, each.sentence) for each in concerns] == [
        ("urgent", "wake 1.0.0 fails a monitor", "crashes are 3%"),
        ("note", "wake serial 9 fails a monitor", "y"),
    ]


@pytest.mark.parametrize(("silent", "urgency"), [(49, "note"), (50, "waits")])
def test_many_silent_devices_wait_for_somebody(silent: int, urgency: str) -> None:
    (concern,) = of_devices(enrolled=1000, silent=silent, silent_for_s=DAY, duplicates=0)
    assert concern.urgency == urgency
    assert concern.title == f"{silent} devices not heard of for 24 h"
    assert concern.sentence.startswith(f"that is {silent / 10:g}% of 1,000")


def test_ids_that_two_use_are_told() -> None:
    assert of_devices(enrolled=5, silent=0, silent_for_s=DAY, duplicates=0) == []
    titles = [of_devices(enrolled=5, silent=0, silent_for_s=DAY, duplicates=n)[0].title for n in (1, 2)]
    assert titles == ["1 device id is used by two installations", "2 device ids are used by two installations"]


def test_a_role_is_told_of_before_and_after_it_expires() -> None:
    def said(expires: float) -> list[tuple[str, str]]:
        roles = [RoleExpiry(role="targets", version=1, expires=expires)]
        return [(each.urgency, each.title) for each in of_keys(roles, now=T0)]

    assert said(T0 + limits.EXPIRY_WARNING_S + 1) == []
    assert said(T0 + limits.EXPIRY_WARNING_S) == [("waits", "targets expires soon")]
    assert said(T0) == [("urgent", "targets expired")]


def test_a_timestamp_is_stale_two_hours_after_it_was_signed() -> None:
    expires = T0 + DAY  # it was signed at T0
    assert of_timestamp(expires, now=T0 + 2 * HOUR) == []
    (stale,) = of_timestamp(expires, now=T0 + 2 * HOUR + 1)
    assert (stale.urgency, stale.since) == ("urgent", T0)
    assert "it is over in 22 h" in stale.sentence
    (over,) = of_timestamp(expires, now=T0 + DAY)
    assert "it is over: devices take no news" in over.sentence


def test_the_urgent_come_first_then_the_newest() -> None:
    def one(urgency: str, name: str, since: float | None = None) -> Concern:
        return Concern(urgency=urgency, subject="rollout", name=name, title="", sentence="", since=since)

    given = [one("note", "a"), one("waits", "b", 5), one("urgent", "c", 1), one("waits", "d", 9), one("urgent", "e", 2)]
    assert [each.name for each in in_order(given)] == ["e", "c", "d", "b", "a"]
