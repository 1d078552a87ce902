"""Devices that somebody invents decide nothing: they let no bad version go on, and take no good one back.

Before, ids were searched until their buckets lay in the treated arm: 800 invented healthy devices had a version
promoted that crashed on all 20 honest ones, and five invented ones killed a good rollout within a second.
"""

import pytest

from support.values import (
    HOUR,
    SALT,
    T0,
    Town,
    announce,
    cohort,
    devices_in,
    plan,
    reports,
    rollout,
    stage,
    town,
    window,
)
from whimbrel.errors import NotFound
from whimbrel.flows.devices.admit import admit_device
from whimbrel.flows.devices.enrol import EnrolmentRequest, enrol_device
from whimbrel.flows.devices.enrolment_spike import enrolment_spike, notice_spike
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.proven import EvidenceRule, unproven_name
from whimbrel.flows.rollouts.advance import advance
from whimbrel.flows.rollouts.judge import replay_rollout, verdict_for
from whimbrel.gate.verdict import Verdict
from whimbrel.policy.bucket import bucket, device_key

BEFORE, BEGUN = T0 - 3 * HOUR, T0
HONEST = devices_in(0, 50_000, 20)
CONTROLS = devices_in(50_000, 1_000_000, 60)
LATER = T0 + 30 * HOUR
SHARED = "a-token-of-a-fleet"
PLAN = plan(stage(error_rate_max=0.05), stage("all", 100), min_reports=6)


def invented(count: int, *, start: int = 0, end: int = 50_000) -> list[str]:
    """Ids that were searched until their own bucket is in an arm."""
    names = (f"invented-{n}" for n in range(10**7))
    return [name for name, _ in zip((n for n in names if start <= place(n) < end), range(count), strict=False)]


def place(cohort_key: str) -> int:
    return bucket(device_key(cohort_key), salt=SALT)


def fleet(here: Town) -> None:
    """80 honest devices that were enrolled before the rollout began."""
    here.enrol(*HONEST, *CONTROLS, at=BEFORE)


def tell(
    here: Town,
    devices: list[str],
    *,
    role: str = "treated",
    crashed: int = 0,
    windows: int = 10,
    evidence: EvidenceRule = "proven",
) -> int:
    """All windows of some devices, in the tally windows in which they come; how many claims were contradicted."""
    contradictions = 0
    for number in range(1, windows + 1):
        at = T0 + 300 * number
        step = "activating" if role == "treated" else "placebo"
        said = [announce(each, step, role=role, at=at) for each in devices] if number == 1 else []
        told = window(number, crashed=crashed, serial=2 if role == "treated" else 1, cohorts=(cohort(role),))
        said += [reports(each, told, at=at) for each in devices]
        counts = ingest(here.registry, here.fleet, said, now=at, devices=here.stores.inventory, evidence=evidence)
        contradictions += counts.contradictions
    return contradictions


def judged(here: Town) -> Verdict:
    return advance(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)


# --- what they can do ---


def test_800_invented_healthy_devices_promote_no_version_that_crashes_on_20_honest_ones() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        liars = invented(800)
        here.enrol(*liars, at=BEGUN + 60)
        tell(here, HONEST, crashed=1, windows=6)
        tell(here, CONTROLS, role="control", windows=6)
        tell(here, liars, windows=6)
        verdict = judged(here)
        assert verdict.move == "roll_back"
        assert here.fleet.counts("r1")[0].reported_t == 20
        assert here.fleet.unproven_counts("r1")[0].reported_t == 800
        assert "800 devices are not counted" in verdict.because


def test_800_invented_devices_alone_let_no_stage_go_on() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        liars = invented(800)
        here.enrol(*liars, at=BEGUN + 60)
        tell(here, liars, windows=2)
        verdict = judged(here)
        assert verdict.move == "hold"
        assert "of stage canary has activated the version yet, and 6 must have reported" in verdict.because


@pytest.mark.parametrize("step", ["went_back", "failed"])
def test_five_invented_failing_devices_kill_no_rollout(step: str) -> None:
    """They hold it, and a person is told."""
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        liars = invented(5)
        here.enrol(*liars, at=BEGUN + 60)
        tell(here, HONEST)
        tell(here, CONTROLS, role="control")
        tell(here, liars, windows=1)
        left = [announce(each, step, at=T0 + 700) for each in liars]
        ingest(here.registry, here.fleet, left, now=T0 + 700, devices=here.stores.inventory)
        verdict = judged(here)
        assert verdict.move == "hold"
        assert "5 devices are not counted" in verdict.because
        assert "they show harm" in verdict.because
        assert "no harm in 20 devices" in verdict.because


def test_40_invented_crashing_devices_hold_and_take_nothing_back() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        liars = invented(40)
        others = invented(80, start=50_000, end=1_000_000)
        here.enrol(*liars, *others, at=BEGUN + 60)
        tell(here, HONEST)
        tell(here, CONTROLS, role="control")
        tell(here, liars, crashed=1)
        tell(here, others, role="control")
        verdict = judged(here)
        assert verdict.move == "hold"
        assert "Such devices take nothing back, so a person decides" in verdict.because
        assert all(each.same for each in replay_rollout(here.registry, here.fleet, "r1"))


def test_healthy_devices_that_came_late_change_nothing_but_the_sentence() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        here.enrol(*invented(30), at=BEGUN + 60)
        tell(here, HONEST)
        tell(here, CONTROLS, role="control")
        alone = judged_without_moving(here)
        tell(here, invented(30))
        verdict = judged(here)
        assert verdict.move == alone.move == "advance"
        assert verdict.because.startswith(alone.because)
        assert "30 devices are not counted, since a shared token let them in after this began" in verdict.because
        assert here.fleet.cells(unproven_name("r1"), before_window=10**6)


def judged_without_moving(here: Town) -> Verdict:

    return verdict_for(here.registry, here.fleet, here.registry.rollout("r1"), now=LATER)


# --- who counts ---


@pytest.mark.parametrize("admission", ["single_use", "attested", "person"])
def test_devices_that_nobody_can_invent_count_also_where_they_come_late(admission: str) -> None:
    with town(running=rollout(plan=PLAN)) as here:
        here.enrol(*CONTROLS, at=BEFORE)
        here.enrol(*HONEST, at=BEGUN + 60, admission=admission)
        tell(here, HONEST)
        tell(here, CONTROLS, role="control")
        assert judged(here).move == "advance"


def test_three_boards_on_a_desk_that_enrolled_a_minute_before_complete() -> None:
    first, *others = devices_in(0, 1_000_000, 3)
    desk = plan(stage("all", 100))
    with town(running=rollout(plan=desk, shares=(1_000_000,))) as here:
        here.enrol(first, *others, at=BEGUN - 60)
        tell(here, [first, *others])
        assert judged(here).move == "finish"


def test_boards_that_come_after_the_rollout_complete_it_where_none_was_there() -> None:
    desk = plan(stage("all", 100))
    with town(running=rollout(plan=desk, shares=(1_000_000,))) as here:
        boards = devices_in(0, 1_000_000, 3)
        here.enrol(*boards, at=BEGUN + 60)
        tell(here, boards)
        assert judged(here).move == "finish"


def test_a_namespace_that_trusts_its_token_counts_all() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        here.enrol(*CONTROLS, at=BEFORE)
        here.enrol(*HONEST, at=BEGUN + 60)
        tell(here, HONEST, evidence="all")
        tell(here, CONTROLS, role="control", evidence="all")
        assert judged(here).move == "advance"


def test_a_device_that_a_person_admits_counts_from_its_next_window_on() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        late = devices_in(0, 50_000, 21)[-1]
        here.enrol(late, at=BEGUN + 60)
        tell(here, [late], windows=2)
        assert here.fleet.counts("r1") == {}
        admit_device(here.stores.inventory, here.registry, late, because="mine", actor="ana", now=T0 + 700)
        told = [reports(late, window(3), at=T0 + 1000)]
        ingest(here.registry, here.fleet, told, now=T0 + 1000, devices=here.stores.inventory)
        assert here.fleet.counts("r1")[0].reported_t == 1
        assert here.fleet.unproven_counts("r1") == {}
        (cell,) = here.cells()
        assert (cell.window, cell.at_risk) == (3, 1)
        with pytest.raises(NotFound, match="no device 'nobody' is enrolled"):
            admit_device(here.stores.inventory, here.registry, "nobody", because="", actor="ana", now=T0)


# --- the cohort key ---


def enrolled(here: Town, device: str, *, drawn: str, takes: bool = True, **asked: str) -> str | None:
    request = EnrolmentRequest(device_id=device, secret=SHARED, takes_cohort_key=takes, **asked)
    stores = here.stores
    made = enrol_device(
        stores.enrolments,
        stores.inventory,
        stores.fleet,
        stores.registry,
        request,
        credential="c" * 20,
        cohort_key=drawn,
        now=BEFORE,
    )
    return made.cohort_key


def test_an_id_that_was_searched_into_the_treated_arm_is_where_the_server_draws_it() -> None:
    searched = invented(1)[0]
    drawn = devices_in(900_000, 1_000_000, 1)[0]  # a key in the control
    with town(running=rollout(plan=PLAN)) as here:
        here.stores.enrolments.add_token("all", [SHARED], terms=EnrolTokenTerms(), at=BEFORE)
        assert enrolled(here, searched, drawn=drawn) == drawn
        assert tell(here, [searched], windows=3) == 3 + 1  # its windows, and that it would activate
        assert here.cells() == []
        assert tell(here, [searched], role="control", windows=3) == 0
        assert [key for key, _ in here.fleet.keys_and_labels("wake")] == [device_key(drawn)]


def test_a_device_that_enrols_again_keeps_its_bucket() -> None:
    """Else whoever may enrol would draw until it is in the arm that he wants."""
    with town() as here:
        here.stores.enrolments.add_token("all", [SHARED], terms=EnrolTokenTerms(), at=BEFORE)
        assert enrolled(here, "board", drawn="first") == "first"
        assert enrolled(here, "board", drawn="second", credential="c" * 20) == "first"


def test_a_device_that_takes_no_cohort_key_is_no_evidence() -> None:
    """Its id is its bucket, and that was chosen."""
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        here.stores.enrolments.add_token("all", [SHARED], terms=EnrolTokenTerms(), at=BEFORE)
        searched = devices_in(0, 50_000, 22)[-1]
        assert enrolled(here, searched, drawn="whatever", takes=False) is None
        tell(here, [searched], windows=2)
        assert here.fleet.counts("r1") == {}
        assert here.fleet.unproven_counts("r1")[0].reported_t == 1


# --- a spike of enrolments ---


def test_a_spike_of_enrolments_holds_what_would_go_on_and_tells_people() -> None:
    with town(running=rollout(plan=PLAN)) as here:
        fleet(here)
        tell(here, HONEST)
        tell(here, CONTROLS, role="control")
        here.enrol(*(f"new-{n}" for n in range(330)), at=LATER - 60)
        verdict = judged(here)
        assert verdict.move == "hold"
        assert "330 devices enrolled with a shared token within the last hour, and 80 at most" in verdict.because
        spike = enrolment_spike(here.fleet.enrolment_rates(now=LATER))
        assert spike is not None
        assert (spike.devices, spike.usual) == (330, 80)
        notice_spike(here.registry, spike, now=LATER)
        assert enrolment_spike(here.fleet.enrolment_rates(now=LATER + 2 * HOUR)) is None  # it is over


@pytest.mark.parametrize(
    ("count", "more"), [(49, {}), (300, {"admission": "single_use"}), (300, {"at": LATER - 2 * HOUR})]
)
def test_a_shelf_of_boards_a_factory_and_what_is_over_are_no_spike(count: int, more: dict[str, object]) -> None:
    with town() as here:
        here.enrol("old", at=BEFORE)
        here.enrol(*(f"new-{n}" for n in range(count)), **{"at": LATER - 60} | more)
        assert enrolment_spike(here.fleet.enrolment_rates(now=LATER)) is None


def test_a_fleet_that_begins_is_no_spike() -> None:
    with town() as here:
        here.enrol(*(f"new-{n}" for n in range(300)), at=LATER - 60)
        assert enrolment_spike(here.fleet.enrolment_rates(now=LATER)) is None
