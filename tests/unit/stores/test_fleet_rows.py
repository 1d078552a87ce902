"""The fleet on SQLite in memory: each figure is of its own devices, and of its namespace alone."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.values import T0, Town, enrol, town
from whimbrel import limits
from whimbrel.flows.device_records import EnrolmentRates, Participation, RunningVersion
from whimbrel.stores.rows import NAMES_A_QUERY, portions
from whimbrel.stores.transaction import Stores

DAY = 86400.0


@pytest.fixture
def here() -> Iterator[Town]:
    with town() as made:
        yield made


@pytest.fixture
def other(here: Town) -> Stores:
    """Another namespace, in the same database."""
    return Stores(here.stores.connection, "other")


def place(device_id: str, **changes: Any) -> Participation:
    return Participation(
        **{"rollout": "r1", "stage": 0, "device_id": device_id, "role": "treated", "assigned_at": T0} | changes
    )


def test_each_count_is_of_its_own_devices(here: Town) -> None:
    told = {"activated_at": T0, "reported_at": T0, "used_at": T0}
    here.fleet.save_participation(
        place("assigned"),
        place("activated", activated_at=T0),
        place("reported", **told),
        place("unused", activated_at=T0, reported_at=T0),
        place("silent", **told, hearing="missed"),
        place("failed", outcome="failed"),
        place("gave up", outcome="failed", shadowed_at=T0),
        place("back", **told, outcome="went_back"),
        place("c1", role="control"),
        place("c2", role="control", activated_at=T0, reported_at=T0, hearing="missed"),
        place("c3", role="control", activated_at=T0, outcome="went_back"),
        place("c4", role="control", outcome="went_back"),
        place("apart", proven=False, **told),
        place("other", stage=1),
    )
    counts = here.fleet.counts("r1")
    zero = counts[0]
    assert (zero.assigned_t, zero.activated_t, zero.reported_t, zero.silent_t, zero.unused_t) == (8, 5, 4, 1, 1)
    assert (zero.failed_t, zero.went_back_t, zero.shadowed_t, zero.gave_up_t) == (2, 1, 1, 1)
    assert (zero.assigned_c, zero.placebo_c, zero.reported_c, zero.silent_c, zero.went_back_c) == (4, 2, 1, 1, 1)
    assert (list(counts), counts[1].assigned_t) == ([0, 1], 1)
    apart = here.fleet.unproven_counts("r1")
    assert (list(apart), apart[0].reported_t) == ([0], 1)
    assert here.fleet.has_reported("r1", stage=0)
    assert not here.fleet.has_reported("r1", stage=1)


def test_slices_that_went_back_are_counted_no_more_and_their_stage_stays(here: Town) -> None:
    here.fleet.save_participation(
        place("a", hardware_class="pi4"),
        place("b", hardware_class="pi5", slices={"os": "x"}),
        place("c", stage=1, hardware_class="pi4"),
    )
    counts = here.fleet.counts("r1", without=("pi4",))
    assert {stage: each.assigned_t for stage, each in counts.items()} == {0: 1, 1: 0}
    counts = here.fleet.counts("r1", without=("os=x",))
    assert {stage: each.assigned_t for stage, each in counts.items()} == {0: 1, 1: 1}


def test_delays_are_of_the_first_devices_of_each_stage_that_did_not_fail(here: Town) -> None:
    here.fleet.save_participation(
        place("d3", begun_at=T0 + 3, activated_at=T0 + 9, hardware_class="pi"),
        place("d1", begun_at=T0 + 1),
        place("d2", begun_at=T0 + 2, outcome="failed"),
        place("d4", begun_at=T0 + 4),
        place("c", role="control", begun_at=T0),
        place("e", stage=1, begun_at=T0),
        place("never"),
        place("apart", begun_at=T0, proven=False),
    )
    assert here.fleet.begun("r1", a_stage=2) == [(T0 + 1, None, ""), (T0 + 3, T0 + 9, "pi"), (T0, None, "")]


def test_delays_of_history_leave_out_who_had_no_time(here: Town) -> None:
    here.fleet.save_participation(
        place("early", activated_at=T0 + 60),
        place("before", activated_at=T0 - 5),  # it ran the version already
        place("edge", assigned_at=T0 + 100),
        place("late", assigned_at=T0 + 100.1),
        place("c", role="control", reported_at=T0 + 200),
        place("apart", activated_at=T0, proven=False),
    )
    assert sorted(here.fleet.delays("r1", least_s=100.0), key=str) == [0.0, 60.0, None]


def test_enrolment_rates_tell_the_last_hour_and_the_busiest_before(here: Town) -> None:
    now = T0 + 30 * DAY

    def come(count: int, at: float, prefix: str, **changes: Any) -> None:
        for number in range(count):
            enrol(here.stores, f"{prefix}{number}", at=at, **changes)

    come(49, now - 60, "late")
    assert here.fleet.enrolment_rates(now=now) == EnrolmentRates(
        last_hour=49, busiest_hour=0, enrolled_before=0, newest=""
    )
    come(1, now, "newest")
    come(3, now - 3600.0, "first")
    come(2, now - 3600.1, "hour-a")
    come(3, now - 7199.9, "hour-b")
    come(4, now - 7200.0, "hour-c")
    come(9, now - limits.SPIKE_USUAL_S - 1, "old")
    come(9, now - 7300, "factory", admission="single_use")
    assert here.fleet.enrolment_rates(now=now) == EnrolmentRates(
        last_hour=53, busiest_hour=5, enrolled_before=27, newest="newest0"
    )
    assert here.fleet.first_admitted_at() == now - limits.SPIKE_USUAL_S - 1


def test_devices_of_a_model_are_those_that_follow_it_and_those_that_never_said(here: Town, other: Stores) -> None:
    here.enrol("a", "b", labels={"os": "x"}, models=("wake",))
    here.enrol("c", labels={"os": "y"}, models=("nap",))
    here.enrol("d", labels={"os": "x"})
    fleet = here.fleet
    assert (fleet.count_enrolled(), fleet.count_devices("wake"), fleet.count_undeclared()) == (4, 3, 1)
    assert sorted((labels["os"], count) for labels, count in fleet.label_sets("wake")) == [("x", 1), ("x", 2)]
    assert [labels for _, labels in fleet.keys_and_labels("nap")] == [{"os": "y"}, {"os": "x"}]
    assert (other.fleet.count_devices("wake"), other.fleet.count_enrolled()) == (0, 0)
    assert [fleet.is_held_by_at_most("wake", devices=count) for count in (1, 2)] == [False, True]
    assert [fleet.is_enrolled(name) for name in ("a", "z")] == [True, False]
    fleet.note_running(RunningVersion(device_id="a", model="wake", serial=2, hardware_class="pi", at=T0))
    assert (fleet.inventory("wake"), fleet.classes("wake")) == ({2: 1, None: 1}, {"pi": 1})
    assert [fleet.still_on("wake", 2, heard_since=T0 + since) for since in (0, 0.1)] == [1, 0]
    assert fleet.running_of("a").keys() == {"wake"}


def test_names_come_in_portions_that_a_statement_may_hold() -> None:
    assert [len(some) for some in portions(range(NAMES_A_QUERY))] == [500]
    assert [list(some) for some in portions([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]
    assert list(portions([])) == []
