"""Which cohorts a device is counted in: told once, counted from its activation or placebo, then forgotten."""

from typing import Any

import msgspec
import pytest

from support.values import file
from whimbrel import limits
from whimbrel.device.cohorts import assigned, cohorts, entered, joined, permitted, placebo_wait, stand_in, tried_serial
from whimbrel.device.journal import Candidate, Journal, Membership
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.health.report import Announcement, Cohort, Role
from whimbrel.policy.decide import Assignment, Beside, Decision
from whimbrel.policy.shadow import Shadow

CONTROL = Assignment("r", 0, "control", "control")
LATER = Assignment("r", 1, "control", "control")


def test_an_assignment_is_told_once() -> None:
    journal = assigned(Journal(model="m"), (CONTROL,), serial=1, at=5.0)
    assert [each.step for each in journal.outbox] == ["assigned"]
    assert assigned(journal, (CONTROL,), serial=1, at=9.0) is journal


def test_a_control_is_counted_from_its_placebo_on() -> None:
    journal = assigned(Journal(model="m"), (CONTROL, LATER), serial=1, at=5.0)
    assert cohorts(journal, now=50.0) == ()
    journal = stand_in(journal, journal.memberships[0], serial=1, at=10.0)
    assert [(each.stage, each.role, each.age_s) for each in cohorts(journal, now=50.0)] == [(0, "control", 40.0)]
    assert journal.outbox[-1].step == "placebo"


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    journal = assigned(Journal(model="m"), (CONTROL,), serial=1, at=5.0)
    journal = stand_in(journal, journal.memberships[0], serial=1, at=1e9)
    assert cohorts(journal, now=0.0)[0].age_s == 0.0


def test_a_permission_is_kept_but_for_a_clock_that_was_set_back() -> None:
    journal = assigned(Journal(model="m"), (CONTROL,), serial=1, at=5.0)
    for now, noted in ((10.0, 10.0), (20.0, 10.0), (7.0, 7.0)):
        journal = permitted(journal, journal.memberships[0], at=now)
        assert journal.memberships[0].permitted_at == noted


def test_a_cohort_that_the_decision_does_not_name_is_forgotten() -> None:
    journal = assigned(Journal(model="m"), (CONTROL,), serial=1, at=5.0)
    journal = stand_in(journal, journal.memberships[0], serial=1, at=10.0)
    journal = assigned(journal, (LATER,), serial=1, at=20.0)
    assert cohorts(journal, now=50.0) == ()
    assert [each.stage for each in journal.memberships] == [1]


ASKED = Assignment("x", 0, "big", "treated", ("watch_time", "unheard"))


def test_what_a_device_was_like_before_is_noted_at_its_assignment_and_never_again() -> None:
    """A mean that goes on after the assignment would carry what the arm did."""
    journal = assigned(Journal(model="m"), (ASKED,), serial=2, at=5.0, before={"watch_time": 3.0, "accuracy": 0.9})
    assert journal.memberships[0].before == {"watch_time": 3.0}
    later = assigned(journal, (ASKED, LATER), serial=2, at=6.0, before={"watch_time": 9.0})
    assert later.memberships[0].before == {"watch_time": 3.0}
    told = cohorts(stand_in(later, later.memberships[0], serial=2, at=7.0), now=8.0)
    assert told[0].before == {"watch_time": 3.0}


def test_nobody_is_told_of_before_unless_the_policy_asks() -> None:
    journal = assigned(Journal(model="m"), (CONTROL,), serial=1, at=5.0, before={"watch_time": 3.0})
    assert journal.memberships[0].before == {}


def test_what_is_told_of_an_assignment_names_the_serial_and_the_cohort() -> None:
    both = (Assignment("r", 3, "canary", "treated"), Assignment("x", 1, "control", "control"))
    told = assigned(Journal(model="m"), both, serial=2, at=5.0).outbox
    assert told == (
        Announcement(model="m", step="assigned", serial=2, rollout="r", stage=3, role="treated"),
        Announcement(model="m", step="assigned", serial=2, rollout="x", stage=1, role="control"),
    )


def test_of_two_cohorts_of_a_rollout_each_keeps_its_own_past() -> None:
    """A stage, a role and a rollout are what a cohort is: another of them is another cohort."""
    journal = assigned(Journal(model="m"), (CONTROL, LATER), serial=1, at=5.0)
    journal = stand_in(journal, journal.memberships[1], serial=1, at=10.0)
    treated, other = Assignment("r", 1, "canary", "treated"), Assignment("x", 1, "control", "control")
    journal = assigned(journal, (LATER, treated, other), serial=2, at=20.0)
    assert journal.memberships == (
        Membership(rollout="r", stage=1, role="control", assigned_at=5.0, since=10.0, serial=1),
        Membership(rollout="r", stage=1, role="treated", assigned_at=20.0, serial=2),
        Membership(rollout="x", stage=1, role="control", assigned_at=20.0, serial=2),
    )


def test_a_device_is_in_as_many_cohorts_as_a_window_can_name_and_the_newest_words_wait() -> None:
    many = [Assignment("r", stage, "control", "control") for stage in range(limits.STAGES)]
    full = Journal(
        model="m", outbox=tuple(Announcement(model="m", step="begun", serial=n) for n in range(1, limits.OUTBOX + 1))
    )
    journal = assigned(full, [*many, Assignment("x", 0, "control", "control")], serial=1, at=5.0)
    assert [each.stage for each in journal.memberships] == list(range(limits.STAGES))
    assert len(journal.outbox) == limits.OUTBOX
    assert [each.stage for each in journal.outbox[-limits.STAGES :]] == list(range(limits.STAGES))
    assert journal.outbox[0].serial == limits.STAGES + 1


# --- which cohorts a device is in ---

SHADOW = Beside(serial=3, shadow=Shadow(sample_ppm=1000), rollout="r", stage=0)
TREATED = Assignment("r", 0, "canary", "treated")


def held(serial: int) -> Held:
    contents = (Content(name="x", sha256="a" * 64),)
    return Held(slot="a", serial=serial, version="1", entry="x", contents=contents)


def pointer(serial: int | None) -> Pointer:
    return Pointer(model="m", active=held(serial) if serial else None)


def tries(serial: int) -> Journal:
    return Journal(model="m", candidate=candidate(serial=serial))


def candidate(**changes: Any) -> Candidate:
    values = {"serial": 2, "version": "2", "slot": "b", "files": (file(),), "policy_sequence": 1, "offered_at": 0.0}
    return Candidate(**values | changes)


def test_a_control_is_in_its_cohort_at_once_and_a_treated_device_when_there_is_something_to_try() -> None:
    decision = Decision(2, "run", "", (TREATED, LATER))
    assert entered(Journal(model="m"), pointer(1), decision) == [LATER]
    assert entered(tries(2), pointer(1), decision) == [TREATED, LATER]
    assert entered(tries(3), pointer(1), decision) == [LATER]
    assert entered(Journal(model="m"), pointer(2), decision) == [TREATED, LATER]


def test_a_device_stays_in_the_cohort_that_it_fell_back_from() -> None:
    fell_back = Decision(1, "run", "", (TREATED, Assignment("r", 1, "canary", "treated")))
    member = Membership(rollout="r", stage=0, role="treated", assigned_at=1.0)
    assert entered(Journal(model="m", memberships=(member,)), pointer(2), fell_back) == [TREATED]
    other = msgspec.structs.replace(member, rollout="x")
    assert entered(Journal(model="m", memberships=(other,)), pointer(2), fell_back) == []


def test_what_a_cohort_is_about_is_what_is_tried_in_the_shadow_or_else_what_is_to_run() -> None:
    assert tried_serial(Decision(1, "run", "", (), SHADOW)) == 3
    assert tried_serial(Decision(1, "run", "")) == 1
    assert tried_serial(Decision(None, "stop", "")) is None
    assert entered(tries(3), pointer(1), Decision(1, "run", "", (TREATED,), SHADOW)) == [TREATED]
    assert entered(tries(2), pointer(1), Decision(1, "run", "", (TREATED,), SHADOW)) == []


# --- from when it counts ---

MEMBERS = tuple(
    Membership(rollout=rollout, stage=stage, role=role, assigned_at=1.0, since=since)
    for rollout, stage, role, since in (
        ("r", 0, "control", None),
        ("r", 0, "treated", None),
        ("r", 1, "control", None),
        ("x", 0, "control", None),
        ("r", 0, "control", 4.0),
    )
)


@pytest.mark.parametrize("number", range(4))
def test_a_device_counts_in_the_very_cohort_that_it_joins_and_from_the_first_time_on(number: int) -> None:
    each = MEMBERS[number]
    journal = joined(
        Journal(model="m", memberships=MEMBERS), rollout=each.rollout, stage=each.stage, role=each.role, at=9.0
    )
    assert [member.since for member in journal.memberships] == [*(9.0 if n == number else None for n in range(4)), 4.0]


def test_a_treated_device_that_runs_its_version_already_is_told_as_activated_and_a_control_as_a_placebo() -> None:
    roles: tuple[Role, ...] = ("treated", "control")
    for role, step in zip(roles, ("activated", "placebo"), strict=True):
        member = Membership(rollout="r", stage=2, role=role, assigned_at=1.0)
        full = tuple(Announcement(model="m", step="begun", serial=n) for n in range(1, limits.OUTBOX + 1))
        journal = stand_in(Journal(model="m", memberships=(member,), outbox=full), member, serial=7, at=9.0)
        assert journal.memberships[0].since == 9.0
        assert len(journal.outbox) == limits.OUTBOX
        assert journal.outbox[-1] == Announcement(model="m", step=step, serial=7, rollout="r", stage=2, role=role)


def test_a_permission_is_noted_of_the_cohort_that_was_asked_about() -> None:
    journal = permitted(Journal(model="m", memberships=MEMBERS), MEMBERS[2], at=7.0)
    assert [each.permitted_at for each in journal.memberships] == [None, None, 7.0, None, None]
    again = permitted(journal, journal.memberships[2], at=7.0)
    assert again == journal


def test_a_window_names_the_cohorts_that_the_device_counts_in_with_their_ages() -> None:
    members = (
        Membership(rollout="r", stage=1, role="control", assigned_at=1.0, since=40.0, before={"watch_time": 3.0}),
        Membership(rollout="x", stage=0, role="treated", assigned_at=1.0, since=-3e10),
        Membership(rollout="y", stage=0, role="treated", assigned_at=1.0),
    )
    assert cohorts(Journal(model="m", memberships=members), now=100.0) == (
        Cohort(rollout="r", stage=1, role="control", age_s=60.0, before={"watch_time": 3.0}),
        Cohort(rollout="x", stage=0, role="treated", age_s=1e10),
    )


# --- how long a control waits ---


def test_the_waits_of_controls_are_spread_as_the_delays_are() -> None:
    """All controls of a fleet took their placebo at the same moment, were the draw of each the same."""
    member = Membership(rollout="r", stage=0, role="control", assigned_at=1.0)
    table = tuple(float(n) for n in range(100))
    waits = sorted(placebo_wait(member, table, model="m", device_id=f"dev-{n}") for n in range(1000))
    assert waits[0] < 2
    assert waits[-1] > 97
    assert all(abs(wait - number / 10) < 6 for number, wait in enumerate(waits))


def test_a_control_draws_for_each_model_rollout_and_stage_anew_and_keeps_what_it_drew() -> None:
    table = tuple(float(n) for n in range(100))

    def wait(*, model: str = "m", device_id: str = "dev-1", **changes: Any) -> float:
        values = {"rollout": "r", "stage": 0, "role": "control", "assigned_at": 1.0}
        return placebo_wait(Membership(**values | changes), table, model=model, device_id=device_id)

    draws = {wait(), wait(model="n"), wait(device_id="dev-2"), wait(rollout="s"), wait(stage=1)}
    assert len(draws) == 5
    assert wait(assigned_at=9.0, permitted_at=5.0, serial=4) == wait()
    assert (
        placebo_wait(Membership(rollout="r", stage=0, role="control", assigned_at=1.0), (), model="m", device_id="d")
        == 0
    )
