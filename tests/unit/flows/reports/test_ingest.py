"""Reports come in: each is tallied once, in its own arm, in the window that is open."""

import functools
import itertools

import msgspec
import pytest

from support.values import (
    T0,
    Town,
    announce,
    cohort,
    devices_in,
    plan,
    reports,
    rollout,
    seen,
    shadow_plan,
    stage,
    town,
    window,
)
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.reports.ingest import IngestCounts, ingest
from whimbrel.flows.reports.judge_silence import judge_silence
from whimbrel.gate.verdict import Counts
from whimbrel.health.pairs import Pairs
from whimbrel.health.report import Summary, Window
from whimbrel.policy.bucket import BUCKETS

CANARY, SECOND = devices_in(0, 50_000, 2)
REST = devices_in(50_000, BUCKETS, 1)[0]
LATER = devices_in(50_000, 250_000, 1)[0]
NOW = T0 + 400  # in window 1


def take(here: Town, *records: DeviceMessage, now: float = NOW) -> IngestCounts:
    return ingest(here.registry, here.fleet, records, now=now)


def total(here: Town, name: str, *, role: str = "treated", stage: int = 0) -> float:
    return sum(getattr(cell, name) for cell in here.cells() if cell.role == role and cell.stage == stage)


def counts(here: Town, stage: int = 0) -> Counts:
    return here.fleet.counts("r1").get(stage, Counts())


# --- once ---


def test_a_report_is_tallied() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(crashed=1, sessions=3, inferences=10, errors=5)))
        (cell,) = here.cells()
        assert (cell.at_risk, cell.crashed, cell.sessions, cell.error_units, cell.error_share) == (1, 1, 3, 1, 0.5)
        assert (cell.role, cell.stage, cell.window, cell.age_bucket) == ("treated", 0, 1, 0)
        assert here.fleet.inventory("wake") == {2: 1}


def test_a_replayed_report_counts_once() -> None:
    with town(running=rollout()) as here:
        said = reports(CANARY, window(1), window(2))
        assert take(here, said, said).duplicates == 2
        assert take(here, said).duplicates == 2
        assert total(here, "sessions") == 2


def test_a_batch_that_holds_old_and_new_windows_adds_the_new_ones() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(1)))
        assert take(here, reports(CANARY, window(1), window(2))).duplicates == 1
        assert total(here, "sessions") == 2


def test_a_new_installation_counts_anew() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(1)), reports(CANARY, window(1), epoch="f" * 16))
        assert (total(here, "sessions"), total(here, "at_risk")) == (2, 1)  # it is the same device


def test_a_batch_that_comes_after_a_later_one_counts_nowhere() -> None:
    """An installation has one batch in flight: an older one after a newer one is a replay, and never counts twice."""
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(3)))
        assert take(here, reports(CANARY, window(1), window(2))).duplicates == 2
        assert total(here, "at_risk") == 1


def test_order_between_devices_does_not_matter() -> None:
    said = [
        reports(CANARY, window(1), window(2)),
        reports(SECOND, window(1, crashed=1)),
        announce(REST, "placebo", role="control"),
    ]
    seen = []
    for order in itertools.permutations(said):
        with town(running=rollout()) as here:
            take(here, *order)
            seen.append((here.cells(), here.fleet.counts("r1")))
    assert all(each == seen[0] for each in seen)


def test_one_batch_or_many_add_up_to_the_same() -> None:
    windows = [window(n, crashed=n % 2, latency={n: 1}, metrics={"accuracy": Summary.of(0.9)}) for n in range(1, 6)]
    with town(running=rollout()) as here, town(running=rollout()) as there:
        take(here, reports(CANARY, *windows))
        for each in windows:
            take(there, reports(CANARY, each))
        (one,), (other,) = here.cells(), there.cells()
        assert one == other
        assert (one.at_risk, one.sessions, one.crashed, sum(one.latency.values())) == (1, 5, 1, 1)
        assert one.metrics["accuracy"].sum == pytest.approx(0.9)


def test_a_devices_windows_are_tallied_with_what_it_said_before() -> None:
    """Sums over the pairs of windows of one device: none of a device's first, two of its third."""

    def told(value: float) -> dict[str, Summary]:
        return {"accuracy": Summary.of(value), "f1": Summary.of(value)}

    first = [window(n, metrics=told(value)) for n, value in enumerate((0.75, 0.5, 1.0), start=1)]
    second = [window(n, metrics=told(value)) for n, value in enumerate((0.25, 0.5), start=1)]
    with town(running=rollout()) as here:
        for number, each in enumerate(itertools.zip_longest(first, second)):
            said = [reports(device, one) for device, one in zip((CANARY, SECOND), each, strict=True) if one is not None]
            take(here, *said, now=T0 + 300 * number)
        told_with = functools.reduce(Pairs.plus, (cell.pairs["accuracy"] for cell in here.cells()[1:]))
        assert told_with == Pairs(pairs=4, squares=6, now=3.0, then=2.25, both=1.75)
        assert here.cells()[0].pairs == {}


def test_a_share_that_is_none_is_nobodys_past() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, *(window(n, metrics={"accuracy": Summary.of(v)}) for n, v in ((1, 7.0), (2, 0.5)))))
        take(here, reports(CANARY, window(3, metrics={"accuracy": Summary.of(0.25)})), now=NOW + 300)
        before, after = here.cells()
        assert (before.metrics["accuracy"].sum, before.pairs) == (0.5, {})
        assert after.pairs["accuracy"] == Pairs.of(0.25, before=1, total=0.5)


def test_messages_taken_together_are_as_taken_one_by_one() -> None:
    said = [
        announce(CANARY, "activating", at=T0 + 1),
        reports(CANARY, window(1), window(2, crashed=1)),
        announce(CANARY, "went_back", at=T0 + 3),
        reports(CANARY, window(2), window(3)),
        announce(CANARY, "committed", at=T0 + 4),
        reports(SECOND, window(1), epoch="f" * 16),
    ]
    with town(running=rollout()) as together, town(running=rollout()) as apart:
        for here in (together, apart):
            here.enrol(CANARY, SECOND)
        take(together, *said)
        for each in said:
            take(apart, each)
        for question in (
            lambda here: here.cells(),
            lambda here: here.fleet.counts("r1"),
            lambda here: here.fleet.participations(["r1"], [CANARY, SECOND]),
            lambda here: here.fleet.sequences([CANARY, SECOND]),
            lambda here: here.fleet.inventory("wake"),
        ):
            assert question(together) == question(apart)


def test_one_cohort_named_many_times_in_a_window_counts_once() -> None:
    """A window that named its cohort 32 times was 32 device-windows at risk, and 32 crashes."""
    with town(running=rollout()) as here:
        done = take(here, reports(CANARY, window(1, crashed=1, cohorts=(cohort(),) * 32)))
        assert total(here, "at_risk") == total(here, "crashed") == 1
        assert done.contradictions == 31


# --- whose ---


def test_a_forged_arm_counts_nowhere() -> None:
    with town(running=rollout()) as here:
        done = take(here, reports(REST, window(1, crashed=1)), announce(REST, "activating"))
        assert done.contradictions == 2
        assert here.cells() == []
        assert here.fleet.counts("r1") == {}


def test_a_treated_device_is_no_control() -> None:
    with town(running=rollout()) as here:
        assert take(here, reports(CANARY, window(1, cohorts=(cohort("control"),)))).contradictions == 1
        assert here.cells() == []


def test_a_stage_that_has_not_begun_counts_nowhere() -> None:
    with town(running=rollout()) as here:
        assert take(here, reports(CANARY, window(1, cohorts=(cohort(stage=1),)))).contradictions == 1


def test_a_device_is_treated_in_one_stage_alone() -> None:
    """The first match among the treated arms has a device: in a later, larger stage it would count twice."""
    with town(running=rollout(stage=1, shares=(50_000, 250_000))) as here:
        done = take(here, reports(CANARY, window(1, cohorts=(cohort(), cohort(stage=1)))))
        assert done.contradictions == 1
        assert (total(here, "at_risk"), total(here, "at_risk", stage=1)) == (1, 0)
        assert take(here, reports(LATER, window(1, cohorts=(cohort(stage=1),)))).contradictions == 0


def test_a_device_outside_of_an_earlier_stages_region_belongs_to_the_later_one() -> None:
    regional = plan(stage("nz", 5, regions=("NZ",)), stage("all", 25))
    with town(running=rollout(plan=regional, stage=1, shares=(50_000, 250_000))) as here:
        assert take(here, reports(CANARY, window(1, cohorts=(cohort(stage=1),)))).contradictions == 0
        assert total(here, "at_risk", stage=1) == 1


def test_a_device_that_has_just_become_treated_may_still_report_as_the_control_it_was() -> None:
    with town(running=rollout(stage=1, shares=(50_000, 250_000))) as here:
        assert take(here, reports(LATER, window(1, cohorts=(cohort("control"),)))).contradictions == 0
        assert total(here, "at_risk", role="control") == 1


def test_a_control_of_two_stages_counts_in_both() -> None:
    with town(running=rollout(stage=1, shares=(50_000, 60_000))) as here:
        control = devices_in(60_000, BUCKETS, 1)[0]
        take(here, reports(control, window(1, cohorts=(cohort("control"), cohort("control", stage=1)))))
        assert total(here, "at_risk", role="control") == total(here, "at_risk", role="control", stage=1) == 1


def test_reports_of_a_rollout_that_ended_keep_the_inventory_and_count_nowhere() -> None:
    with town() as here:
        done = take(here, reports(CANARY, window(1)))
        assert (done.windows, done.contradictions) == (1, 0)
        assert here.fleet.inventory("wake") == {2: 1}


def test_another_namespace_is_another_world() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(1)))
        here.fleet.namespace = "other"
        assert here.cells() == []
        assert here.fleet.sequences([CANARY]) == {}


# --- when ---


@pytest.mark.parametrize(("now", "number"), [(T0, 0), (T0 + 299.9, 0), (T0 + 300, 1), (T0 + 10_000, 33), (T0 - 99, 0)])
def test_a_report_counts_in_the_window_that_is_open(now: float, number: int) -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(1), at=T0 + 5), now=now)
        assert [cell.window for cell in here.cells()] == [number]


def test_a_late_report_leaves_closed_windows_as_they_were() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(1)), now=T0 + 10)
        closed = here.cells(before_window=1)
        take(here, reports(SECOND, window(1), at=T0 + 10), now=T0 + 900)
        assert here.cells(before_window=1) == closed


def test_age_decides_the_age_bucket() -> None:
    with town(running=rollout()) as here:
        for n, hours in enumerate((0.5, 2, 30), 1):
            take(here, reports(CANARY, window(n, cohorts=(cohort(age_s=hours * 3600),))), now=T0 + 300 * n)
        assert [cell.age_bucket for cell in here.cells()] == [0, 1, 5]


def test_ages_are_scaled_with_a_rehearsals_hour() -> None:
    with town(running=rollout(hour_s=1.0)) as here:
        take(here, reports(CANARY, window(1, cohorts=(cohort(age_s=2.0),))))
        assert [cell.age_bucket for cell in here.cells()] == [1]


# --- announcements ---


def test_about_to_activate_counts_as_activated() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "assigned"))
        assert counts(here) == Counts(assigned_t=1)
        take(here, announce(CANARY, "activating"))
        assert counts(here) == Counts(assigned_t=1, activated_t=1)


def test_an_announcement_said_again_changes_nothing() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activating", at=T0 + 10))
        take(here, announce(CANARY, "activating", at=T0 + 99), announce(CANARY, "activated", at=T0 + 100))
        assert counts(here) == Counts(assigned_t=1, activated_t=1)
        (held,) = here.fleet.participations(["r1"], [CANARY])
        assert held.activated_at == T0 + 10


def test_the_first_begin_of_a_treated_device_is_kept() -> None:
    with town(running=rollout()) as here:
        said = [announce(CANARY, step, at=T0 + at) for at, step in enumerate(("assigned", "begun", "begun"))]
        take(here, *said, announce(REST, "begun", role="control"))
        assert counts(here) == Counts(assigned_t=1, assigned_c=1)
        assert here.fleet.begun("r1", a_stage=9) == [(T0 + 1, None, "")]


def test_a_placebo_is_a_controls_activation() -> None:
    with town(running=rollout()) as here:
        take(here, announce(REST, "placebo", role="control"))
        assert counts(here) == Counts(assigned_c=1, placebo_c=1)


def test_a_failure_stays_in_the_denominator() -> None:
    with town(running=rollout()) as here:
        assert take(here, announce(CANARY, "assigned"), announce(CANARY, "failed")).setbacks == 1
        take(here, announce(CANARY, "activating"), announce(CANARY, "committed"))
        assert counts(here).failed_t == 1


def test_a_device_that_went_back_is_counted_and_seen_on_the_old_version() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activated", serial=2), announce(CANARY, "went_back", serial=2))
        take(here, announce(CANARY, "activated", serial=1, rollout=None))
        assert counts(here) == Counts(assigned_t=1, activated_t=1, went_back_t=1)
        assert here.fleet.inventory("wake") == {1: 1}


def test_the_last_window_of_a_version_that_was_left_does_not_say_that_it_runs() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activated", serial=1, rollout=None))
        take(here, reports(CANARY, window(serial=2), runs={"wake": 1}))
        assert here.fleet.inventory("wake") == {1: 1}
        take(here, reports(CANARY, window(2, serial=2)))
        assert here.fleet.inventory("wake") == {2: 1}


def test_a_device_that_leaves_a_version_after_its_commit_is_counted_and_the_gate_looks_at_once() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activating"), announce(CANARY, "activated"), announce(CANARY, "committed"))
        assert counts(here).went_back_t == 0
        assert take(here, announce(CANARY, "went_back", serial=2)).setbacks == 1
        assert counts(here).went_back_t == 1


def test_a_control_that_leaves_the_version_before_is_counted_as_a_control() -> None:
    with town(running=rollout()) as here:
        take(here, announce(REST, "placebo", role="control", serial=1))
        take(here, announce(REST, "went_back", role="control", serial=1))
        assert counts(here) == Counts(assigned_c=1, placebo_c=1, went_back_c=1)


def test_what_cannot_be_read_is_counted_and_dropped() -> None:
    with town(running=rollout()) as here:
        rubbish = msgspec.structs.replace(reports(CANARY), body=b'{"epoch": 7}')
        done = take(here, rubbish, reports(SECOND, window(1)))
        assert (done.unreadable, done.windows) == (1, 1)


# --- no device can break the sums ---


def test_the_largest_figures_of_many_devices_still_add_up() -> None:
    """Sums were read back under the bounds of one device's report: two large reports and no verdict ever came again."""
    huge = window(
        1,
        sessions=2**40,
        inferences=2**40,
        errors=2**40,
        latency={4000: 2**40},
        metrics={"fps": Summary(n=1, sum=1e15, sumsq=1e30)},
    )
    with town(running=rollout()) as here:
        for device in devices_in(0, 50_000, 5):
            take(here, reports(device, huge))
        assert total(here, "sessions") == 5 * 2**40
        assert here.cells()[0].metrics["fps"].n == 5


# --- silence ---


def test_an_activated_device_that_never_reports_is_overdue() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activating"), announce(SECOND, "activating"), reports(SECOND, window(1)))
        assert judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 910) == 0
        assert judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 911) == 2  # the first looks
        assert (total(here, "due"), total(here, "overdue")) == (2, 1)


def test_a_device_that_never_reports_is_asked_after_once() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "activating"))
        judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 2000)
        assert judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 4000) == 0
        assert total(here, "due") == 1


def test_a_control_with_a_placebo_is_asked_after_too() -> None:
    with town(running=rollout()) as here:
        take(here, announce(REST, "placebo", role="control"))
        judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 2000)
        assert total(here, "overdue", role="control") == 1


def test_a_device_that_did_not_activate_is_not_silent() -> None:
    with town(running=rollout()) as here:
        take(here, announce(CANARY, "assigned"), announce(SECOND, "failed"))
        assert judge_silence(here.fleet, rollout(), report_s=300, now=T0 + 9000) == 0


def test_only_the_slices_that_were_asked_for_make_cells() -> None:
    """A device that invents labels makes no cells of its own."""
    with town(running=rollout()) as here:
        settings = msgspec.structs.replace(here.registry.model("wake").settings, slice_labels=("os",))
        here.registry.change_model("wake", settings=settings)
        take(here, announce(CANARY, "activated", slices={"os": "b"}))
        take(here, reports(CANARY, window(1, slices={"os": "b", "mood": "7"})))
        assert [cell.slices for cell in here.cells()] == [{"os": "b"}]
        (entry,) = here.fleet.participations(["r1"], [CANARY])
        assert entry.slices == {"os": "b"}
        assert here.fleet.counts("r1", without=("os=b",))[0] == Counts()
        assert here.fleet.counts("r1", without=("os=a",))[0].activated_t == 1


# --- the shadow ---

IN_SHADOW = rollout(plan=shadow_plan(percent=5))


def told(stage: int = 0, **changes: object) -> Window:
    return window(serial=1, cohorts=(cohort(stage=stage),), shadow=seen(10, agreed=9, **changes))


def test_what_was_seen_in_the_shadow_is_tallied_once_by_device_window() -> None:
    with town(running=IN_SHADOW) as here:
        take(here, announce(CANARY, "shadowing"), reports(CANARY, told()), reports(CANARY, told()))
        (cell,) = here.cells()
        assert cell.shadow is not None
        assert (cell.shadow.windows, cell.shadow.inputs, cell.shadow.disagreed_share) == (1, 10, pytest.approx(0.1))
        assert (counts(here).activated_t, counts(here).shadowed_t) == (1, 1)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (REST, told()),  # not in the shadow, by its bucket
        (CANARY, told(serial=3)),  # of another version
        (REST, window(serial=1, cohorts=(cohort("control"),), shadow=seen())),
        (CANARY, told(stage=1)),  # of a stage that was not entered
    ],
)
def test_a_shadow_that_contradicts_bucket_or_rollout_counts_nowhere(device: str, said: Window) -> None:
    with town(running=IN_SHADOW) as here:
        take(here, reports(device, said))
        assert all(cell.shadow is None for cell in here.cells())
        assert counts(here).shadowed_t == 0


def test_a_stage_that_serves_takes_no_evidence_from_the_shadow() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window(serial=1, shadow=seen())))
        assert [cell.shadow for cell in here.cells()] == [None]
        assert counts(here).shadowed_t == 0


def test_a_device_that_was_in_the_shadow_and_is_served_now_counts_in_both_stages() -> None:
    with town(running=rollout(plan=shadow_plan(), stage=1, shares=(500_000, 50_000))) as here:
        take(here, reports(LATER, told()), reports(CANARY, window(1, cohorts=(cohort(stage=1),))))
        assert [(cell.stage, cell.shadow is not None) for cell in here.cells()] == [(0, True), (1, False)]


# --- which models a device follows ---


def test_a_batch_tells_all_models_that_a_device_follows() -> None:
    with town(running=rollout()) as here:
        here.enrol(CANARY, models=("wake", "sleep"))
        take(here, reports(CANARY, window(), models=("wake", "walk")))
        assert {name: row.serial for name, row in here.fleet.running_of(CANARY).items()} == {"wake": 2, "walk": None}


def test_a_window_that_was_kept_of_a_model_that_is_followed_no_more_does_not_bring_it_back() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, window()))
        take(here, reports(CANARY, window(2), models=("walk",)))
        assert (here.fleet.inventory("wake"), here.fleet.inventory("walk")) == ({}, {None: 1})
        assert total(here, "sessions") == 2  # what it saw is counted all the same


def test_the_newest_word_holds_where_several_come_at_once() -> None:
    with town(running=rollout()) as here:
        take(here, reports(CANARY, models=("walk",)), reports(CANARY, window(), models=("wake",)))
        assert (here.fleet.inventory("wake"), here.fleet.inventory("walk")) == ({2: 1}, {})


def test_an_agent_that_tells_no_models_follows_those_that_it_reports_of() -> None:
    with town(running=rollout()) as here:
        here.enrol(CANARY)
        assert here.fleet.count_devices("sleep") == 1
        take(here, reports(CANARY, window()))
        assert (here.fleet.count_devices("wake"), here.fleet.count_devices("sleep")) == (1, 0)
