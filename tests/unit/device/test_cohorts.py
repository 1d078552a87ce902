"""Which cohorts a device is counted in: told once, counted from its activation or placebo, then forgotten."""

from whimbrel.device.cohorts import assigned, cohorts, permitted, stand_in
from whimbrel.device.journal import Journal
from whimbrel.policy.decide import Assignment

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
