"""Figures that reports become, exactly: usage, places, pasts, levels, histories and tickets; and their bounds."""

import math
from typing import Any

import msgspec
import pytest

from support.values import (
    HOUR,
    T0,
    Town,
    accuracy,
    announce,
    cell,
    devices_in,
    file,
    release,
    reports,
    rollout,
    town,
    version,
    window,
)
from whimbrel import limits
from whimbrel.flows.device_records import DeviceAdmission, Participation, SequenceMark
from whimbrel.flows.reports.batch import FleetBatch
from whimbrel.flows.reports.history import Delays, Running, history_of, inventory_of
from whimbrel.flows.reports.ingest import IngestCounts, ingest
from whimbrel.flows.reports.past import of_devices, past_cells, past_name
from whimbrel.flows.reports.place import heard, note_left, update_participation
from whimbrel.flows.reports.proven import Admissions, unproven_name
from whimbrel.flows.reports.usage import usage_of
from whimbrel.flows.reports.user_reports import FilingResult, count_reports, file_batch, file_reports
from whimbrel.gate.power import Usage
from whimbrel.health.report import Summary
from whimbrel.health.user_report import UserReport, UserReports
from whimbrel.model.release import Variant
from whimbrel.model.ways import Step
from whimbrel.plan.rollout_states import State
from whimbrel.policy.bucket import BUCKETS

# --- usage ---


def participants(here: Town, *, treated: int, control: int, comparison: str = "r1", stage: int = 0) -> None:
    for role, count in (("treated", treated), ("control", control)):
        here.fleet.save_participation(
            *(
                Participation(
                    rollout=comparison,
                    stage=stage,
                    device_id=f"{role}-{n}",
                    role=role,
                    assigned_at=T0,
                    activated_at=T0,
                    reported_at=T0 + 1,
                )
                for n in range(count)
            )
        )


def test_usage_is_that_of_the_first_cohort_of_a_rollout() -> None:
    with town(running=rollout()) as here:
        participants(here, treated=4, control=16)
        told = {"metrics": accuracy(0.9, 50, spread=0.1)}
        here.fleet.tally(
            "r1",
            [
                cell("treated", 0, n=20, crashed=9),
                cell("control", 0, n=60, crashed=1, **told),
                cell("control", 11, n=20, crashed=1),
                cell("control", 5, n=999, crashed=999, stage=1),  # of a later stage: these devices stand in the first
            ],
        )
        usage = usage_of(here.registry, here.fleet, "wake")
    assert usage.active_an_hour == pytest.approx(100 / 20 / 1.0)  # twelve windows of five minutes
    assert usage.crash_rate == pytest.approx(2 / 80)
    assert usage.accuracy_sd == pytest.approx(math.sqrt((50 * (0.81 + 0.01) - 45 * 45 / 50) / 49))
    assert usage.source == "as rollout r1 saw it: 100 device-windows of 20 devices in 1.0 h"


def test_where_no_crash_was_seen_half_of_one_is_taken() -> None:
    with town(running=rollout()) as here:
        participants(here, treated=1, control=9)
        here.fleet.tally("r1", [cell("control", 0, n=200)])
        usage = usage_of(here.registry, here.fleet, "wake")
    assert (usage.crash_rate, usage.accuracy_sd) == (0.5 / 200, None)


@pytest.mark.parametrize(("windows", "believed"), [(99, False), (100, True)])
def test_a_rollout_is_believed_from_a_hundred_device_windows_on(windows: int, believed: bool) -> None:
    with town(running=rollout()) as here:
        participants(here, treated=1, control=1)
        here.fleet.tally("r1", [cell("control", 0, n=windows)])
        assert (usage_of(here.registry, here.fleet, "wake") != Usage()) is believed


def test_the_newest_rollout_that_saw_enough_speaks() -> None:
    with town() as here:
        for number in range(7):
            ended = rollout(id=f"r{number}", created_at=T0 + number, state=State.COMPLETED, ended_at=T0 + 9)
            here.registry.add_rollout(ended, plan_text="")
            if number < 2:
                participants(here, treated=1, control=1, comparison=f"r{number}")
                here.fleet.tally(f"r{number}", [cell("control", 0, n=100 + number)])
        # Of seven the five newest are looked at, and r0 and r1 are none of them.
        assert usage_of(here.registry, here.fleet, "wake") == Usage()
        participants(here, treated=1, control=1, comparison="r3")
        here.fleet.tally("r3", [cell("control", 0, n=500)])
        assert "rollout r3" in usage_of(here.registry, here.fleet, "wake").source


# --- a place in a cohort ---

PLACE = Participation(rollout="r1", stage=0, device_id="dev-1", role="treated", assigned_at=T0)


def batch_of(here: Town, *devices: str) -> FleetBatch:
    return FleetBatch(here.fleet, comparisons=["r1"], devices=devices or ("dev-1",), models=frozenset({"wake"}))


def test_a_device_that_is_heard_is_remembered_with_its_longest_silence() -> None:
    first = heard(PLACE, at=T0 + 100)
    assert (first.heard_at, first.gap_s, first.hearing) == (T0 + 100, 0.0, "heard")
    after_activation = heard(msgspec.structs.replace(PLACE, activated_at=T0 + 40), at=T0 + 100)
    assert after_activation.gap_s == 60
    second = heard(first, at=T0 + 400)
    assert (second.heard_at, second.gap_s) == (T0 + 400, 300)
    third = heard(second, at=T0 + 500)
    assert (third.heard_at, third.gap_s) == (T0 + 500, 300)
    late = heard(third, at=T0 + 450)  # it lay in a queue
    assert (late.heard_at, late.gap_s) == (T0 + 500, 300)


@pytest.mark.parametrize(("at", "hearing"), [(T0 + 199, "missed"), (T0 + 200, "missed"), (T0 + 200.1, "heard")])
def test_only_what_came_in_after_it_was_missed_says_that_a_device_lives(at: float, hearing: str) -> None:
    missed = msgspec.structs.replace(PLACE, heard_at=T0 + 100, missed_at=T0 + 200, hearing="missed")
    assert heard(missed, at=at).hearing == hearing


def test_of_each_time_and_label_the_first_that_was_told_stays() -> None:
    with town(running=rollout()) as here:
        batch = batch_of(here)
        told = {"begun_at": T0 + 1, "activated_at": T0 + 2, "used_at": T0 + 3, "shadowed_at": T0 + 4}
        update_participation(batch, PLACE, hardware_class="pi4", slices={"os": "a"}, outcome="committed", **told)
        later = {name: at + 100 for name, at in told.items()}
        placed = batch.participation("r1", 0, "dev-1")
        assert placed is not None
        update_participation(batch, placed, hardware_class="pi5", slices={"os": "b"}, outcome="failed", **later)
        update_participation(
            batch, batch.participation("r1", 0, "dev-1") or PLACE, hardware_class="", slices={}, outcome="committed"
        )
        batch.write()
        (kept,) = here.fleet.participations(["r1"], ["dev-1"])
    assert (kept.hardware_class, kept.slices, kept.outcome) == ("pi4", {"os": "a"}, "failed")
    assert {name: getattr(kept, name) for name in told} == told


def test_a_device_leaves_the_cohorts_that_its_newest_window_does_not_name() -> None:
    with town(running=rollout()) as here:
        places = {
            0: msgspec.structs.replace(PLACE, hearing="heard"),
            1: msgspec.structs.replace(PLACE, stage=1, hearing="missed"),
            2: msgspec.structs.replace(PLACE, stage=2, hearing="heard"),
            3: msgspec.structs.replace(PLACE, stage=3, hearing=""),
        }
        here.fleet.save_participation(*places.values())
        batch = batch_of(here)
        note_left(batch, {"other"}, device_id="dev-1", named=set())
        assert [each.hearing for each in batch.places("dev-1")] == ["heard", "missed", "heard", ""]
        note_left(batch, {"r1"}, device_id="dev-1", named={("r1", 2)})
        assert [each.hearing for each in batch.places("dev-1")] == ["left", "left", "heard", ""]


# --- installations ---


def test_of_very_many_installations_the_oldest_is_forgotten() -> None:
    with town(running=rollout()) as here:
        batch = batch_of(here)
        for number in range(limits.DEVICE_EPOCHS):
            batch.set_mark("dev-1", f"{number:016x}", SequenceMark(1, T0 + (number + 5) % limits.DEVICE_EPOCHS))
        assert len(batch.marks("dev-1")) == limits.DEVICE_EPOCHS
        batch.set_mark("dev-1", "f" * 16, SequenceMark(9, T0 - 1))  # the newest stays whatever its clock says
        oldest = f"{limits.DEVICE_EPOCHS - 5:016x}"
        assert oldest not in batch.marks("dev-1")
        batch.write()
        kept = {epoch for _, epoch in here.fleet.sequences(["dev-1"])}
        assert (len(kept), oldest in kept, "f" * 16 in kept) == (limits.DEVICE_EPOCHS, False, True)
        again = batch_of(here)
        assert (again.last_sequence("dev-1", "f" * 16), again.last_sequence("dev-1", oldest)) == (9, 0)


# --- who is evidence ---


def admission(**changes: Any) -> DeviceAdmission:
    fields = {"device_id": "dev-1", "cohort_key": "drawn", "admission": "shared", "admitted_at": T0}
    return DeviceAdmission(**fields | changes)


@pytest.mark.parametrize(
    ("device", "first_at", "proves"),
    [
        (admission(admitted_at=T0 + 9), T0, True),
        (admission(admitted_at=T0 + 10), T0, False),  # it came as the rollout began
        (admission(admitted_at=T0 + 11), T0, False),
        (admission(admitted_at=T0 + 11), T0 + 10, True),  # nobody was there before
        (admission(admitted_at=T0 + 11), None, True),
        (admission(admitted_at=T0 + 11), T0 + 9.9, False),
        (admission(admitted_at=T0 + 11, admission="single_use"), T0, True),
        (admission(admitted_at=T0 + 11, admission="attested"), T0, True),
        (admission(admitted_at=T0 + 11, admission="person"), T0, True),
        (admission(cohort_key=None), T0, False),
        (admission(cohort_key=None, admission="single_use"), T0, False),
        (admission(cohort_key=None, admission="person"), T0, True),
        (None, T0, False),
    ],
)
def test_who_proves_something_in_a_comparison(
    device: DeviceAdmission | None, first_at: float | None, proves: bool
) -> None:
    admissions = Admissions({} if device is None else {"dev-1": device}, first_at)
    assert admissions.proves("dev-1", began_at=T0 + 10) is proves
    expected = "drawn" if device is not None and device.cohort_key else "dev-1"
    assert admissions.cohort_key("dev-1") == expected


def test_names_of_tallies_that_are_too_long_are_hashes() -> None:
    assert unproven_name("r" * 55) == "unproven/" + "r" * 55
    for name in (unproven_name("r" * 56), past_name("m" * 60, 1)):
        assert len(name) <= 64
    assert unproven_name("r" * 56).startswith("unproven/")
    assert unproven_name("r" * 56) != unproven_name("r" * 57)
    assert past_name("m" * 57, 1) == "past/1/" + "m" * 57
    assert past_name("m" * 58, 1).startswith("past/")
    assert "m" * 5 not in past_name("m" * 58, 1)


# --- the past of a small fleet ---


def tell(here: Town, device: str, number: int, *, at: float = T0 + 400, **more: Any) -> None:
    told = window(number, **{"serial": 1, "cohorts": ()} | more)
    ingest(here.registry, here.fleet, [reports(device, told, at=at)], now=at)


def test_the_past_is_by_device_and_week_and_five_weeks_are_read() -> None:
    week = limits.PAST_WINDOW_S
    with town() as here:
        here.enrol("a", "b")
        for number, (device, at) in enumerate([("b", T0), ("a", T0), ("a", T0 + week), ("a", T0 + 6 * week)], 1):
            tell(here, device, number, at=at, metrics={"accuracy": Summary.of(0.9)})
        now = T0 + 6 * week
        by_device = past_cells(here.fleet, "wake", 1, now=now)
        assert {device: len(cells) for device, cells in by_device.items()} == {"a": 2}
        by_device = past_cells(here.fleet, "wake", 1, now=now - week)
        assert {device: len(cells) for device, cells in by_device.items()} == {"a": 2, "b": 1}
        assert [each.slices["device"] for each in of_devices(by_device, {"b", "a", "none"})] == ["a", "a", "b"]
        assert of_devices(by_device, {"b"})[0].metrics["accuracy"].n == 1
        assert past_cells(here.fleet, "wake", 2, now=now) == {}


@pytest.mark.parametrize(("devices", "kept"), [(limits.SMALL_FLEET, True), (limits.SMALL_FLEET + 1, False)])
def test_the_past_is_kept_of_small_fleets_alone(devices: int, kept: bool) -> None:
    with town() as here:
        here.enrol(*(f"d{n}" for n in range(devices)), models=("wake",))
        tell(here, "d0", 1)
        assert bool(past_cells(here.fleet, "wake", 1, now=T0 + 400)) is kept


def test_a_share_that_no_share_can_be_is_nobodys_past() -> None:
    with town() as here:
        here.enrol("a")
        good = {"accuracy": Summary.of(1.0), "watch_time": Summary.of(7.0), "feedback": Summary.of(0.0)}
        tell(here, "a", 1, metrics=good)
        tell(here, "a", 2, metrics={"accuracy": Summary.of(1.01), "feedback": Summary.of(-0.01)}, at=T0 + 500)
        (told,) = past_cells(here.fleet, "wake", 1, now=T0 + 500)["a"]
        assert told.metrics["accuracy"].n == 1
        assert told.metrics["accuracy"].sum == 1.0


# --- counts of a batch ---


def test_what_became_of_messages_is_counted_by_kind() -> None:
    canary, rest = devices_in(0, 50_000, 1)[0], devices_in(50_000, BUCKETS, 1)[0]
    with town(running=rollout()) as here:
        here.enrol(canary, rest)
        broken = msgspec.structs.replace(reports(canary, window()), body=b"{")
        counts = ingest(
            here.registry,
            here.fleet,
            [
                announce(canary, "activating"),
                announce(canary, "went_back"),
                announce(canary, "failed"),
                announce(rest, "activating"),  # it is none of the treated
                reports(canary, window(1), window(2)),
                reports(canary, window(2), window(3)),
                reports(rest, window(1)),  # contradicts its bucket
                broken,
            ],
            now=T0 + 400,
        )
    assert counts == IngestCounts(windows=4, duplicates=1, announcements=4, contradictions=2, unreadable=1, setbacks=2)


# --- history ---


def test_history_adds_up_the_newest_rollouts_with_an_hour_of_an_hour() -> None:
    with town() as here:
        here.enrol("a", "b", "c")
        for number in range(limits.HISTORY_ROLLOUTS + 1):
            ended = rollout(id=f"r{number}", created_at=T0 + number, state=State.COMPLETED, ended_at=T0 + 99)
            here.registry.add_rollout(ended, plan_text="")
            here.fleet.tally(f"r{number}", [cell("control", 0, n=10**number, crashed=1)])
        here.registry.add_rollout(rollout(id="short", hour_s=60.0, created_at=T0 + 99), plan_text="")
        here.fleet.tally("short", [cell("control", 0, n=7)])
        place = {"rollout": "r1", "stage": 0, "role": "treated", "assigned_at": T0}
        outcomes = [("committed", T0 + 1), ("failed", None), ("", T0 + 1), ("failed", None)]
        here.fleet.save_participation(
            *(
                Participation(device_id=f"d{n}", outcome=outcome, activated_at=at, **place)
                for n, (outcome, at) in enumerate(outcomes)
            )
        )
        running = [Running(version="x", serial=1, devices=2)]
        told = history_of(here.registry, here.fleet, "wake", running=running)
    kept = range(1, limits.HISTORY_ROLLOUTS + 1)
    assert (told.rollouts, told.crashed, told.at_risk) == (len(kept), len(kept), sum(10**n for n in kept))
    assert (told.tried, told.failed) == (4, 2)
    assert (told.devices, told.running, told.window_s, told.refresh_s) == (3, (running[0],), 300.0, 30.0)
    assert (told.latency_p50_ms, told.latency_p99_ms, told.delays) == (None, None, Delays())


@pytest.mark.parametrize("count", [19, 20])
def test_delays_are_told_from_twenty_devices_on_in_four_groups(count: int) -> None:
    with town(running=rollout()) as here:
        for n in range(count + 5):
            late = n >= count
            here.fleet.save_participation(
                Participation(
                    rollout="r1",
                    stage=0,
                    device_id=f"d{n}",
                    role="treated",
                    assigned_at=T0,
                    activated_at=None if late else T0 + (n + 1) * HOUR,
                    reported_at=T0 + 30 * HOUR,
                )
            )
        here.fleet.tally("r1", [cell("control", 400, n=1)])
        delays = history_of(here.registry, here.fleet, "wake", running=()).delays
    if count < 20:
        assert delays == Delays(devices=24)
    else:
        assert delays == Delays(mean_h=(3.0, 8.0, 13.0, 18.0), never=pytest.approx(0.2), devices=25)


def test_the_way_of_a_version_is_that_of_its_largest_build_and_its_dearest_file() -> None:
    small = Variant(name="small", files=(file("1" * 64, size_bytes=10),))
    large = Variant(
        name="large",
        files=(
            file("2" * 64, size_bytes=1000),
            file("3" * 64, name="b.bin", size_bytes=500),
            file("4" * 64, name="c.bin", size_bytes=7),
        ),
    )
    target = release(3, variants=(small, large))
    base = release(1, variants=(Variant(name="large", files=(file("9" * 64), file("4" * 64, name="c.bin"))),))
    steps = [Step(base="9" * 64, target="2" * 64, target_bytes=1000, sha256="f" * 64, size_bytes=20)]
    rows = inventory_of(
        {1: 5, 2: 0, None: 5, 3: 9}, [version(1), version(3)], releases={1: base, 3: target}, steps=steps, target=3
    )
    assert rows == [
        Running(version=None, serial=None, devices=5, way="whole", size_bytes=1507),
        Running(version="2026.01.01.1", serial=1, devices=5, way="whole", size_bytes=520),
    ]
    here = release(1, variants=(large,))
    assert inventory_of({1: 1}, [version(1)], releases={1: here, 3: target}, steps=steps, target=3) == [
        Running(version="2026.01.01.1", serial=1, devices=1, way="delta", size_bytes=0)
    ]


# --- tickets ---


def ticket(number: int, **changes: Any) -> UserReport:
    return UserReport(**{"ticket": f"Z-{number}", "model": "wake", "version": "2.0.0", "at": T0 + 400} | changes)


def test_a_batch_of_tickets_is_told_in_one_entry_of_the_audit_log() -> None:
    with town(running=rollout()) as here:
        tickets = here.stores.tickets
        nap = ticket(9, model="nap")

        def hand_on(*several: UserReport) -> FilingResult:
            batch = UserReports(reports=several)
            return file_batch(here.registry, here.fleet, tickets, batch, actor="desk", now=T0 + 400)

        assert hand_on(ticket(1), ticket(2), nap) == FilingResult(
            new=2,
            known=0,
            refused={"Z-9": "there is no model 'nap' (models: wake); make it with: whimbrel model add nap"},
        )
        assert hand_on(ticket(2), ticket(3)) == FilingResult(new=1, known=1, refused={})
        assert hand_on(ticket(2)).known == 1  # nothing new is told of
        one, two = here.registry.audit_log()
        assert (two.actor, two.action, two.because) == ("desk", "file_tickets", "2 tickets of users")
        assert two.evidence == {"new": 2, "known": 0, "refused": 1, "models": ["nap", "wake"]}
        assert (one.because, one.evidence["known"]) == ("1 ticket of users", 1)


def test_there_is_room_for_so_many_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "USER_REPORTS", 2)
    with town(running=rollout()) as here:
        several = [ticket(n) for n in range(3)]
        said = file_reports(here.registry, here.fleet, here.stores.tickets, several, now=T0 + 400)
        assert (said.new, said.refused) == (
            2,
            {"Z-2": "2 tickets are kept already, which is all there is room for"},
        )
        assert file_reports(here.registry, here.fleet, here.stores.tickets, several[:1], now=T0 + 400).known == 1


def test_a_ticket_of_a_version_counts_from_the_beginning_of_the_rollout_in_its_arm() -> None:
    with town(versions=3, running=rollout()) as here:
        several = [
            ticket(1, at=T0 - 1),
            ticket(2, at=T0),
            ticket(3, version="1.0.0", at=T0 + 400),
            ticket(4, version="3.0.0", at=T0 + 400),
        ]
        file_reports(here.registry, here.fleet, here.stores.tickets, several, now=T0 + 400)
        assert count_reports(here.registry, here.fleet, here.stores.tickets, now=T0 + 700) == 4
        fates = {each.ticket: each.fate for each in here.stores.tickets.newest(model="wake", limit=9)}
        assert fates == {"Z-1": "nowhere", "Z-2": "counted", "Z-3": "counted", "Z-4": "nowhere"}
        assert {(each.role, each.window, each.stage, each.version_reports) for each in here.cells()} == {
            ("treated", 2, 0, 1),
            ("control", 2, 0, 1),
        }


@pytest.mark.parametrize(("at", "fate"), [(T0 + 9.9, "nowhere"), (T0 + 10, "counted")])
def test_a_ticket_counts_from_the_moment_at_which_its_device_activated(at: float, fate: str) -> None:
    (canary,) = devices_in(0, 50_000, 1)
    with town(running=rollout()) as here:
        here.enrol(canary)
        ingest(here.registry, here.fleet, [announce(canary, "activating", at=T0 + 10)], now=T0 + 20)
        told = UserReport(ticket="Z-1", model="wake", device_id=canary, at=at)
        file_reports(here.registry, here.fleet, here.stores.tickets, [told], now=T0 + 400)
        count_reports(here.registry, here.fleet, here.stores.tickets, now=T0 + 700)
        assert [each.fate for each in here.stores.tickets.newest(model="wake", limit=1)] == [fate]
