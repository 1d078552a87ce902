"""A placebo takes as long as an update: every reason to wait, and the time from which a control counts."""

from typing import Any

import msgspec
import pytest

from support.values import policy
from whimbrel import limits
from whimbrel.device.cohorts import placebo_wait
from whimbrel.device.conditions import Situation, Wait, start_jitter
from whimbrel.device.journal import Journal, Membership
from whimbrel.device.placebo import Turn, due, turn
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.device.states import RESTING, State
from whimbrel.policy.decide import Assignment, Decision
from whimbrel.policy.policy import Conditions

NOW = 1_000_000.0
CONTROL = Membership(rollout="r1", stage=0, role="control", assigned_at=NOW - 10)
PERMITTED = msgspec.structs.replace(CONTROL, permitted_at=NOW - 10)
TREATED = Membership(rollout="r1", stage=0, role="treated", assigned_at=NOW - 10)
CHARGER = Conditions(charging=True)
NO_CHARGER = Wait("the policy asks for a charger", limits.WAIT_FOR_CONDITIONS_S)
TABLE = (40.0, 80.0)


def taken(member: Membership, conditions: Conditions = Conditions(), **changes: Any) -> Turn:
    values: dict[str, Any] = {
        "delays_s": (),
        "model": "wake",
        "device_id": "dev-1",
        "now": NOW,
        "offline": False,
        "held_back_at": 0.0,
    }
    situation = changes.pop("situation", Situation(charging=False))
    return turn(member, conditions, situation, **values | changes)


# --- whose turn it is ---


def journal(state: State, *members: Membership) -> Journal:
    return Journal(model="wake", state=state, memberships=members)


def pointer(serial: int) -> Pointer:
    contents = (Content(name="x", sha256="a" * 64),)
    return Pointer(model="wake", active=Held(slot="a", serial=serial, version="1", entry="x", contents=contents))


CONTROLS = Decision(1, "run", "", (Assignment("r1", 0, "control", "control"),))
TREATS = Decision(2, "run", "", (Assignment("r1", 0, "canary", "treated"),))


@pytest.mark.parametrize("state", sorted(RESTING | {State.ON_TRIAL}))
def test_a_control_that_runs_what_is_decided_has_its_turn(state: State) -> None:
    assert due(journal(state, CONTROL), pointer(1), CONTROLS, policy()) == (CONTROL,)


@pytest.mark.parametrize("state", sorted(set(State) - RESTING - {State.ON_TRIAL}))
def test_nobody_has_a_turn_while_something_is_under_way(state: State) -> None:
    assert due(journal(state, CONTROL), pointer(1), CONTROLS, policy()) == ()


def test_nobody_has_a_turn_before_the_device_runs_what_is_decided() -> None:
    assert due(journal(State.COMMITTED, CONTROL), pointer(3), CONTROLS, policy()) == ()


def test_who_counts_already_has_no_turn() -> None:
    counts = msgspec.structs.replace(CONTROL, since=NOW)
    assert due(journal(State.COMMITTED, counts, CONTROL), pointer(1), CONTROLS, policy()) == (CONTROL,)


def test_a_treated_device_has_a_turn_only_when_it_runs_its_arms_version() -> None:
    assert due(journal(State.COMMITTED, TREATED), pointer(2), TREATS, policy()) == (TREATED,)
    fell_back = Decision(1, "run", "", TREATS.assignments)
    assert due(journal(State.COMMITTED, TREATED, CONTROL), pointer(1), fell_back, policy()) == (CONTROL,)


# --- a turn ---


def test_a_treated_device_that_runs_its_version_counts_at_once_whatever_the_conditions() -> None:
    assert taken(TREATED, CHARGER, delays_s=TABLE) == Turn(at=NOW)


def test_a_control_waits_for_its_jitter_first_and_is_not_permitted_before() -> None:
    spread = Conditions(start_jitter_s=1e6)
    jitter_s = start_jitter(spread, device_id="dev-1", occasion="wake/r1/0")
    wait = Wait("its turn: starts are spread over 1e+06 s", NOW - 10 + jitter_s - NOW)
    assert jitter_s > 10
    assert taken(CONTROL, spread) == Turn(wait=wait)
    assert taken(CONTROL, spread, offline=True) == Turn(at=NOW, permitted=True)  # somebody is here with a bundle
    assert taken(CONTROL, spread, now=NOW + 2e6) == Turn(at=NOW + 2e6, permitted=True)
    assert taken(CONTROL, spread, now=NOW - 11) == Turn(at=NOW - 11, permitted=True)  # the clock was set back


def test_a_control_waits_for_the_conditions_and_is_not_permitted_before() -> None:
    assert taken(CONTROL, CHARGER) == Turn(wait=NO_CHARGER)


def test_a_control_that_could_begin_and_knows_no_delay_takes_its_placebo_at_once() -> None:
    assert taken(CONTROL) == Turn(at=NOW, permitted=True)
    assert taken(CONTROL, CHARGER, situation=Situation(charging=True)) == Turn(at=NOW, permitted=True)


def test_a_control_waits_as_long_as_an_update_takes() -> None:
    delay_s = placebo_wait(CONTROL, TABLE, model="wake", device_id="dev-1")
    because = f"its placebo: an update would take this device {delay_s:.0f} s"
    assert 40 <= delay_s <= 80
    assert taken(CONTROL, delays_s=TABLE) == Turn(wait=Wait(because, delay_s), permitted=True)
    assert taken(PERMITTED, delays_s=TABLE) == Turn(wait=Wait(because, NOW - 10 + delay_s - NOW))
    assert taken(PERMITTED, delays_s=TABLE, now=NOW - 10 + delay_s) == Turn(at=NOW - 10 + delay_s)


def test_a_control_that_was_permitted_before_does_not_wait_for_its_jitter_again() -> None:
    assert taken(PERMITTED, Conditions(start_jitter_s=1e6)) == Turn(at=NOW - 10)


def test_conditions_that_hold_an_update_back_hold_the_placebo_back_as_well() -> None:
    assert taken(PERMITTED, CHARGER, delays_s=TABLE) == Turn(wait=NO_CHARGER, held_back=True)


def test_a_placebo_whose_delay_the_policy_tells_late_is_dated_back_to_when_it_was_due() -> None:
    delay_s = placebo_wait(CONTROL, TABLE, model="wake", device_id="dev-1")
    assert taken(PERMITTED, delays_s=TABLE, now=NOW + 5000) == Turn(at=NOW - 10 + delay_s)


def test_a_placebo_is_dated_back_to_no_time_at_which_the_conditions_held_it_back() -> None:
    assert taken(PERMITTED, delays_s=TABLE, now=NOW + 5000, held_back_at=NOW + 4000) == Turn(at=NOW + 4000)


def test_a_placebo_is_never_dated_ahead() -> None:
    assert taken(PERMITTED, held_back_at=NOW + 500) == Turn(at=NOW)


def test_a_clock_that_was_set_back_begins_the_wait_anew() -> None:
    delay_s = placebo_wait(CONTROL, TABLE, model="wake", device_id="dev-1")
    because = f"its placebo: an update would take this device {delay_s:.0f} s"
    for back_s in (1.0, 1000.0, 1e8):  # neither at once, nor after years
        earlier = NOW - 10 - back_s
        assert taken(PERMITTED, delays_s=TABLE, now=earlier) == Turn(wait=Wait(because, delay_s), permitted=True)
        again = msgspec.structs.replace(PERMITTED, permitted_at=earlier)
        assert taken(again, delays_s=TABLE, now=earlier + delay_s) == Turn(at=earlier + delay_s)


def test_with_a_bundle_nobody_waits_for_the_delay_of_a_network() -> None:
    assert taken(CONTROL, delays_s=TABLE, offline=True) == Turn(at=NOW, permitted=True)
    metered = Conditions(unmetered=True)
    assert taken(CONTROL, metered, offline=True) == Turn(at=NOW, permitted=True)
