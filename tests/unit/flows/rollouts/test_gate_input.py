"""What a gate looks at beside the windows: soaks, users, what devices do by themselves, and places in small fleets."""

from typing import Any

import pytest

from support.values import HOUR, SALT, T0, Town, devices_in, plan, release, rollout, selector, stage, town, version
from whimbrel.flows.device_records import Participation
from whimbrel.flows.rollouts.judge import gate_input, references_of
from whimbrel.gate.kill_switch import natural_rate
from whimbrel.gate.ledger import References
from whimbrel.model.documents import encode
from whimbrel.model.release import Reference
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS


def place(here: Town, device_id: str, **changes: Any) -> None:
    fields = {"rollout": "r1", "stage": 0, "device_id": device_id, "role": "treated", "assigned_at": T0}
    here.fleet.save_participation(Participation(**fields | changes))


def looked(here: Town, *, soaked_h: float = 24.0) -> Any:
    return gate_input(here.registry, here.fleet, here.registry.rollout("r1"), now=T0 + soaked_h * HOUR)


def test_what_is_looked_at_follows_from_the_row() -> None:
    with town(running=rollout(without=("pi3",), hour_s=3600.0)) as here:
        place(here, "a", proven=False)
        told = looked(here, soaked_h=1.5)
    assert (told.stage, told.cohort, told.soaked_s, told.shares, told.without, told.hour_s) == (
        0,
        0,
        1.5 * HOUR,
        (50_000,),
        ("pi3",),
        3600.0,
    )
    assert (told.unproven.window, told.unproven.counts[0].assigned_t) == (18, 1)
    assert (told.devices, told.past, told.natural_go_back) == (None, None, None)


@pytest.mark.parametrize(("soaked_h", "asked"), [(23.99, False), (24.0, True)])
def test_places_are_counted_when_a_stage_has_soaked(soaked_h: float, asked: bool) -> None:
    with town(running=rollout()) as here:
        here.enrol(*devices_in(0, 50_000, 2), models=("wake",))
        told = looked(here, soaked_h=soaked_h)
        assert told.devices == (2 if asked else None)
        assert (told.past is not None) is asked  # nobody can be its control


def test_devices_that_were_assigned_and_controls_that_there_are_need_no_count_and_no_past() -> None:
    with town(running=rollout()) as here:
        here.enrol(*devices_in(0, 50_000, 2), *devices_in(50_000, BUCKETS, 1), models=("wake",))
        assert (looked(here).devices, looked(here).past) == (2, None)
        place(here, "a")
        assert looked(here).devices is None
    with town(running=rollout()) as here:
        here.enrol(*devices_in(0, 50_000, 1), models=("wake",))
        place(here, "c", role="control")
        assert looked(here).past is None


def test_nobody_is_counted_by_labels_that_stay_on_devices() -> None:
    private = plan(stage("a", 5, only=selector(ring="x")), stage("b", 100))
    with town(running=rollout(plan=private)) as here:
        here.enrol(*devices_in(0, 50_000, 2), models=("wake",))
        assert looked(here).devices is None
        assert looked(here).past is not None
        here.enrol(*devices_in(50_000, BUCKETS, 1), models=("wake",))
        assert looked(here).past is None  # a doubt is for a control


def test_a_stage_that_nobody_falls_in_is_judged_by_the_one_before() -> None:
    three = plan(stage("a", 5), stage("b", 25), stage("c", 100))
    row = rollout(plan=three, stage=2, shares=(50_000, 250_000, 900_000))
    with town(running=row) as here:
        place(here, "a")
        assert looked(here).cohort == 0
        here.enrol(*devices_in(50_000, 250_000, 1), models=("wake",))
        assert looked(here).cohort == 1  # somebody will report there
        place(here, "c", stage=2)
        assert looked(here).cohort == 2


def test_users_are_heard_from_the_beginning_of_the_rollout_on() -> None:
    for at, heard in ((T0 - 0.1, False), (T0, True)):
        with town(running=rollout()) as here:
            here.stores.tickets.heard("wake", at=at)
            assert looked(here).users_heard is heard
    with town(running=rollout()) as here:
        assert looked(here).users_heard is False


def test_how_often_devices_leave_the_baseline_by_themselves_is_what_earlier_rollouts_of_it_told() -> None:
    with town(versions=3, running=rollout(baseline=2, target=3)) as here:
        for identifier, target in (("of-baseline", 2), ("again", 2), ("of-another", 1)):
            ended = rollout(id=identifier, target=target, state=State.COMPLETED, ended_at=T0, created_at=T0 - 9)
            here.registry.add_rollout(ended, plan_text="")
            for number in range(10):
                outcome = "went_back" if number < 2 else ""
                place(here, f"d{number}", rollout=identifier, activated_at=T0, outcome=outcome)
        assert looked(here).natural_go_back is None  # nobody left the new one
        place(here, "x", outcome="went_back")
        assert looked(here).natural_go_back == natural_rate(4, 20)
    with town(versions=3, running=rollout(baseline=2, target=3)) as here:
        place(here, "x", outcome="went_back")
        assert looked(here).natural_go_back is None  # nothing is known of it


def test_references_are_read_where_the_plan_watches_drift() -> None:
    drift = plan(stage(drift_psi_max=0.25), stage("all", 100))
    with town(versions=0) as here:
        for serial, shares in ((1, (0.5, 0.5)), (2, (0.25, 0.75))):
            document = release(serial, reference=reference(shares))
            here.registry.add_version(version(serial), release=encode(document), digests=document.digests)
        both = references_of(here.registry, rollout(plan=drift))
        assert both == References(treated=reference((0.25, 0.75)).bin_shares, control=reference((0.5, 0.5)).bin_shares)
        assert both.treated != both.control
        assert references_of(here.registry, rollout(plan=drift, baseline=None)).control is None
        assert references_of(here.registry, rollout()) == References()


def reference(shares: tuple[float, ...]) -> Reference:
    return Reference(kind="classes", bins=("yes", "no"), shares=shares)


def test_buckets_of_a_carried_rollout_are_by_its_leads_salt() -> None:
    salt = SALT + 1
    with town(running=rollout(salt=salt)) as here:
        here.enrol(*devices_in(0, 50_000, 3, salt=salt), models=("wake",))
        assert looked(here).devices == 3
