"""When a version may be left for the one before, and what apps open then."""

import pytest

from whimbrel.device import events
from whimbrel.device.departure import Departure, Orders, believed, objection
from whimbrel.device.journal import Candidate, Journal, Membership
from whimbrel.device.slots import Content, Held, Pointer, SlotName
from whimbrel.device.states import State
from whimbrel.device.step import step
from whimbrel.model.release import File

FILE = File(name="model.onnx", size_bytes=4, sha256="a" * 64, format="onnx")


def held(serial: int, slot: SlotName) -> Held:
    contents = (Content(name="model.onnx", sha256="a" * 64),)
    return Held(slot=slot, serial=serial, version=f"v{serial}", entry="model.onnx", contents=contents)


ONE, TWO = held(1, "a"), held(2, "b")
POINTER = Pointer(model="m", active=TWO, fallback=ONE)
LEFT = Departure(serial=2, slot="b", reason="it crashes")


def test_apps_open_the_version_before_while_the_record_names_the_active_one() -> None:
    assert believed(POINTER, LEFT).active == ONE
    assert believed(POINTER, None) == POINTER


@pytest.mark.parametrize(
    "record", [Departure(serial=3, slot="b", reason="x"), Departure(serial=2, slot="a", reason="x")]
)
def test_a_record_of_another_version_or_slot_says_nothing(record: Departure) -> None:
    assert believed(POINTER, record) == POINTER


def test_without_a_version_before_the_record_takes_no_model_away() -> None:
    alone = Pointer(model="m", active=TWO)
    assert believed(alone, LEFT) == alone


NOTHING_BEFORE = "the other slot of m holds no version that ran before serial 2: there is nothing to go back to"


@pytest.mark.parametrize(
    ("pointer", "barred", "departure", "because"),
    [
        (POINTER, (), None, ""),
        (POINTER, (2, 3), None, ""),
        (POINTER, (), Departure(serial=3, slot="b", reason="x"), ""),
        (POINTER, (), LEFT, ""),
        (POINTER, (1,), None, "serial 1, which ran before, may not run here any more"),
        (Pointer(model="m", active=TWO), (), None, NOTHING_BEFORE),
        (Pointer(model="m", active=TWO), (), LEFT, NOTHING_BEFORE),
        (Pointer(model="m"), (), None, "m has no version on this device"),
        (Pointer(model="m", fallback=ONE), (), None, "m has no version on this device"),
        (
            believed(POINTER, LEFT),
            (),
            LEFT,
            "serial 2 was left already; sessions that begin now get serial 1",
        ),
        (believed(POINTER, LEFT), (2,), None, "serial 2, which ran before, may not run here any more"),
    ],
)
def test_a_version_can_be_left_for_one_that_may_run_or_it_is_said_why_not(
    pointer: Pointer, barred: tuple[int, ...], departure: Departure | None, because: str
) -> None:
    assert objection(pointer, Orders(barred=barred), departure) == because


def left(journal: Journal) -> Journal:
    event = events.LeftByItself(leaves=2, to=1, reason="it crashes", policy_sequence=7)
    return step(step(journal, event)[0], events.WentBack(to=1))[0]


@pytest.mark.parametrize("state", [State.IDLE, State.COMMITTED, State.QUARANTINED])
def test_a_version_that_was_left_at_rest_is_refused_until_a_newer_policy_and_told(state: State) -> None:
    journal = left(Journal(model="m", state=state))
    assert journal.state is State.QUARANTINED
    assert [(each.serial, each.policy_sequence) for each in journal.refused] == [(2, 7)]
    told = [(each.step, each.serial, each.reason) for each in journal.outbox]
    assert told == [("went_back", 2, "it crashes"), ("activated", 1, "")]


def test_a_version_that_was_left_after_its_commit_is_told_in_the_cohort_that_it_is_counted_in() -> None:
    members = (
        Membership(rollout="old", stage=0, role="treated", assigned_at=0, since=1, serial=1),
        Membership(rollout="r", stage=1, role="treated", assigned_at=0, since=1, serial=2),
    )
    told = left(Journal(model="m", state=State.COMMITTED, memberships=members)).outbox[0]
    assert (told.rollout, told.stage, told.role) == ("r", 1, "treated")


def test_a_control_that_leaves_its_version_is_told_as_a_control() -> None:
    members = (Membership(rollout="r", stage=1, role="control", assigned_at=0, since=1, serial=2),)
    told = left(Journal(model="m", state=State.COMMITTED, memberships=members)).outbox[0]
    assert (told.rollout, told.stage, told.role) == ("r", 1, "control")


def test_a_trial_that_was_left_is_told_in_its_own_cohort() -> None:
    candidate = Candidate(
        serial=2,
        version="v2",
        slot="b",
        files=(FILE,),
        policy_sequence=5,
        offered_at=1.0,
        held=TWO,
        rollout="r",
        stage=2,
    )
    journal = left(Journal(model="m", state=State.ON_TRIAL, candidate=candidate))
    assert (journal.outbox[0].rollout, journal.outbox[0].stage) == ("r", 2)
    assert journal.candidate is None
