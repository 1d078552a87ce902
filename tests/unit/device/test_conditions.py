"""When a device may act: what is asked for and not known counts as not given."""

from datetime import UTC, datetime

import pytest

from whimbrel import limits
from whimbrel.device.conditions import (
    Situation,
    Wait,
    permit,
    start_jitter,
    wait_for_conditions,
    wait_to_begin,
    without_measurements,
)
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import encode, parse
from whimbrel.policy.policy import Conditions, Window


@pytest.mark.parametrize(
    ("conditions", "situation", "now", "allowed"),
    [
        (Conditions(), Situation(), 0, True),
        (Conditions(unmetered=True), Situation(), 0, False),
        (Conditions(unmetered=True), Situation(unmetered=False), 0, False),
        (Conditions(unmetered=True), Situation(unmetered=True), 0, True),
        (Conditions(charging=True), Situation(charging=True), 0, True),
        (Conditions(idle=True), Situation(charging=True), 0, False),
        (Conditions(battery_min=0.4), Situation(), 0, False),
        (Conditions(battery_min=0.4), Situation(battery=0.39), 0, False),
        (Conditions(battery_min=0.4), Situation(battery=0.4), 0, True),
        (Conditions(battery_min=0.4), Situation(charging=True), 0, True),
        (Conditions(window_utc=(3600, 7200)), Situation(), 86400 + 3599, False),
        (Conditions(window_utc=(3600, 7200)), Situation(), 86400 + 3600, True),
        (Conditions(window_utc=(82800, 3600)), Situation(), 86400 * 3 + 100, True),
        (Conditions(window_utc=(82800, 3600)), Situation(), 86400 * 3 + 43200, False),
    ],
)
def test_permit(conditions: Conditions, situation: Situation, now: float, allowed: bool) -> None:
    answer = permit(conditions, situation, now=now)
    assert answer.allowed is allowed
    assert bool(answer.because) is not allowed


def test_jitter_is_the_same_however_often_it_is_asked_and_spreads_over_devices() -> None:
    conditions = Conditions(start_jitter_s=100)
    waits = [start_jitter(conditions, device_id=f"dev-{number}", occasion="m/1") for number in range(1000)]
    assert waits[7] == start_jitter(conditions, device_id="dev-7", occasion="m/1")
    assert all(0 <= wait < 100 for wait in waits)
    assert 45 < sum(waits) / 1000 < 55


NIGHT = Window(start_s=22 * 3600, end_s=6 * 3600, zone="Europe/Berlin", days=("fri",))


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("moment", "allowed"),
    [
        ("2026-07-03T19:59:59", False),  # a Friday, 21:59:59 in Berlin
        ("2026-07-03T20:00:00", True),
        ("2026-07-04T03:59:59", True),  # Saturday morning belongs to Friday's window
        ("2026-07-04T04:00:00", False),
        ("2026-07-04T20:30:00", False),  # Saturday
        ("2026-07-03T03:00:00", False),  # Friday morning belongs to Thursday
        ("2026-01-02T20:30:00", False),  # winter: 21:30
        ("2026-01-02T21:00:00", True),
    ],
)
def test_window_follows_its_zone_its_days_and_the_change_of_the_clocks(moment: str, allowed: bool) -> None:
    answer = permit(Conditions(windows=(NIGHT,)), Situation(), now=utc(moment))
    assert answer.allowed is allowed
    assert allowed or answer.because == "the policy's windows are 22:00 to 06:00 Europe/Berlin on fri"


def test_one_of_several_windows_is_enough() -> None:
    other = Window(start_s=0, end_s=86400, days=("sat",))
    assert permit(Conditions(windows=(NIGHT, other)), Situation(), now=utc("2026-07-04T12:00:00")).allowed


def test_local_window_asks_where_the_device_is() -> None:
    conditions = Conditions(windows=(Window(start_s=0, end_s=3600, zone="local"),))
    assert permit(conditions, Situation(zone="Pacific/Auckland"), now=utc("2026-07-03T12:30:00")).allowed
    assert not permit(conditions, Situation(zone="UTC"), now=utc("2026-07-03T12:30:00")).allowed
    assert "not known here" in permit(conditions, Situation(), now=utc("2026-07-03T00:30:00")).because


@pytest.mark.parametrize("zone", ["Mars/Olympus", "..", "/etc/passwd", "posixrules/../../x"])
def test_zone_that_is_not_known_opens_no_window(zone: str) -> None:
    try:
        conditions = parse(
            Conditions, encode({"windows": [{"start_s": 0, "end_s": 86400, "zone": zone}]}), what="conditions"
        )
    except UntrustedInput:
        return
    assert not permit(conditions, Situation(), now=0).allowed


def test_storage_is_asked_for_and_the_sentence_says_how_much() -> None:
    conditions = Conditions(storage_mib_min=500)
    assert permit(conditions, Situation(free_bytes=500 * 2**20), now=0).allowed
    assert permit(conditions, Situation(), now=0).because.endswith("and that is not known")
    assert permit(conditions, Situation(free_bytes=2**20), now=0).because == (
        "the policy asks for 500 MiB of free storage (1 MiB are free)"
    )


def test_conditions_that_are_not_met_are_looked_at_again_in_a_minute() -> None:
    asked = Conditions(charging=True)
    wait = wait_for_conditions(asked, Situation(charging=False), now=0, offline=False)
    assert wait == Wait("the policy asks for a charger", limits.WAIT_FOR_CONDITIONS_S)
    assert wait_for_conditions(asked, Situation(charging=True), now=0, offline=False) is None
    assert wait_for_conditions(Conditions(), Situation(), now=0, offline=False) is None


def test_a_bundle_uses_no_network_and_so_none_is_asked_about() -> None:
    asked = Conditions(unmetered=True, charging=True)
    assert wait_for_conditions(asked, Situation(charging=True), now=0, offline=True) is None
    assert wait_for_conditions(asked, Situation(charging=True), now=0, offline=False) is not None
    assert wait_for_conditions(asked, Situation(charging=False), now=0, offline=True) is not None


def begins(conditions: Conditions, *, now: float, offline: bool = False) -> Wait | None:
    return wait_to_begin(
        conditions, Situation(), device_id="dev-1", occasion="m/1", since=100.0, now=now, offline=offline
    )


def test_a_start_waits_for_its_jitter_and_then_for_the_conditions() -> None:
    spread = Conditions(start_jitter_s=100, idle=True)
    jitter_s = start_jitter(spread, device_id="dev-1", occasion="m/1")
    assert begins(spread, now=100.0) == Wait("its turn: starts are spread over 100 s", jitter_s)
    assert begins(spread, now=100.0 + jitter_s) == wait_for_conditions(spread, Situation(), now=0, offline=False)
    assert begins(Conditions(start_jitter_s=100), now=100.0 + jitter_s) is None


def test_a_start_waits_for_no_jitter_with_a_bundle_or_where_the_clock_was_set_back() -> None:
    spread = Conditions(start_jitter_s=100)
    assert begins(spread, now=100.0, offline=True) is None
    assert begins(spread, now=99.0) is None


def test_a_server_is_told_what_is_asked_for_and_not_what_was_measured() -> None:
    for asked, situation, told in (
        (Conditions(battery_min=0.5), Situation(battery=0.125), "the policy asks for a battery at 50%"),
        (Conditions(storage_mib_min=500), Situation(free_bytes=7), "the policy asks for 500 MiB of free storage"),
        (Conditions(charging=True), Situation(), "the policy asks for a charger and that is not known"),
    ):
        assert without_measurements(permit(asked, situation, now=0.0).because) == told
