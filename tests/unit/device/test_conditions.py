"""When a device may act: what is asked for and not known counts as not given."""

from datetime import UTC, datetime

import pytest

from whimbrel import limits
from whimbrel.device.conditions import (
    Permit,
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

NO = "the policy asks for "
UNKNOWN = " and that is not known"
NIGHT_UTC = Conditions(window_utc=(82800, 3600))
EARLY_UTC = Conditions(window_utc=(3600, 7200))
OPEN = Window(start_s=0, end_s=86400)
CLOSED = Window(start_s=0, end_s=0)


@pytest.mark.parametrize(
    ("conditions", "situation", "now", "because"),
    [
        (Conditions(), Situation(), 0, ""),
        (Conditions(unmetered=True), Situation(), 0, f"{NO}an unmetered network{UNKNOWN}"),
        (Conditions(unmetered=True), Situation(unmetered=False), 0, f"{NO}an unmetered network"),
        (Conditions(unmetered=True), Situation(unmetered=True), 0, ""),
        (Conditions(charging=True), Situation(), 0, f"{NO}a charger{UNKNOWN}"),
        (Conditions(charging=True), Situation(charging=False, unmetered=True, idle=True), 0, f"{NO}a charger"),
        (Conditions(charging=True), Situation(charging=True), 0, ""),
        (Conditions(idle=True), Situation(charging=True), 0, f"{NO}an idle device{UNKNOWN}"),
        (Conditions(idle=True), Situation(idle=False), 0, f"{NO}an idle device"),
        (Conditions(idle=True), Situation(idle=True), 0, ""),
        (Conditions(battery_min=0.4), Situation(), 0, f"{NO}a battery at 40% and it is not known"),
        (Conditions(battery_min=0.4), Situation(battery=0.39), 0, f"{NO}a battery at 40% (it is at 39%)"),
        (Conditions(battery_min=0.4), Situation(battery=0.4), 0, ""),
        (Conditions(battery_min=0.4), Situation(battery=0.0, charging=True), 0, ""),
        (Conditions(battery_min=0.4), Situation(charging=False), 0, f"{NO}a battery at 40% and it is not known"),
        (Conditions(battery_min=1.0), Situation(battery=1.0), 0, ""),
        (Conditions(battery_min=0.0), Situation(battery=0.0), 0, ""),
        (Conditions(storage_mib_min=500), Situation(), 0, f"{NO}500 MiB of free storage{UNKNOWN}"),
        (Conditions(storage_mib_min=500), Situation(free_bytes=500 * 2**20), 0, ""),
        (
            Conditions(storage_mib_min=500),
            Situation(free_bytes=500 * 2**20 - 1),
            0,
            f"{NO}500 MiB of free storage (499 MiB are free)",
        ),
        (Conditions(storage_mib_min=0), Situation(free_bytes=0), 0, ""),
        (EARLY_UTC, Situation(), 86400 + 3599, "the policy's window is 01:00 to 02:00 UTC"),
        (EARLY_UTC, Situation(), 86400 + 3600, ""),
        (EARLY_UTC, Situation(), 86400 + 7199, ""),
        (EARLY_UTC, Situation(), 86400 + 7200, "the policy's window is 01:00 to 02:00 UTC"),
        (NIGHT_UTC, Situation(), 86400 * 3 + 82799, "the policy's window is 23:00 to 01:00 UTC"),
        (NIGHT_UTC, Situation(), 86400 * 3 + 82800, ""),
        (NIGHT_UTC, Situation(), 86400 * 3 + 3599, ""),
        (NIGHT_UTC, Situation(), 86400 * 3 + 3600, "the policy's window is 23:00 to 01:00 UTC"),
        (Conditions(window_utc=(5400, 5400)), Situation(), 5400, "the policy's window is 01:30 to 01:30 UTC"),
        (
            Conditions(window_utc=(0, 86400), windows=(CLOSED,)),
            Situation(),
            9,
            "the policy's windows are 00:00 to 00:00 UTC",
        ),
        (Conditions(window_utc=(0, 86400), windows=(CLOSED, OPEN)), Situation(), 9, ""),
        (Conditions(window_utc=(0, 1), windows=(OPEN,)), Situation(), 9, "the policy's window is 00:00 to 00:00 UTC"),
        # Of what lacks the first is said.
        (
            Conditions(unmetered=True, charging=True, battery_min=1),
            Situation(),
            0,
            f"{NO}an unmetered network{UNKNOWN}",
        ),
        (Conditions(charging=True, idle=True), Situation(), 0, f"{NO}a charger{UNKNOWN}"),
        (Conditions(battery_min=0.5, storage_mib_min=1), Situation(), 0, f"{NO}a battery at 50% and it is not known"),
        (Conditions(storage_mib_min=1, window_utc=(1, 2)), Situation(), 0, f"{NO}1 MiB of free storage{UNKNOWN}"),
    ],
)
def test_a_device_may_act_where_all_is_given_and_else_is_told_what_lacks(
    conditions: Conditions, situation: Situation, now: float, because: str
) -> None:
    assert permit(conditions, situation, now=now) == Permit(not because, because)


@pytest.mark.parametrize(
    ("start_s", "end_s", "inside"),
    [
        (3600, 7200, [3600, 5429, 5430, 7199]),
        (82800, 3600, [82800, 86399, 0, 3599]),
        (7200, 7200, []),
        (5430, 9030, [5430, 7199, 7200, 9029]),
        (0, 86400, [0, 3599, 3600, 5429, 5430, 7199, 7200, 9029, 9030, 82799, 82800, 86399]),
    ],
)
def test_a_window_of_a_zone_begins_at_its_first_second_and_ends_before_its_last(
    start_s: int, end_s: int, inside: list[int]
) -> None:
    window = Conditions(windows=(Window(start_s=start_s, end_s=end_s, zone="UTC"),))
    moments = [0, 3599, 3600, 5429, 5430, 7199, 7200, 9029, 9030, 82799, 82800, 86399]
    allowed = [each for each in moments if permit(window, Situation(), now=86400.0 * 7 + each).allowed]
    assert sorted(allowed) == sorted(inside)


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
    assert permit(conditions, Situation(), now=utc("2026-07-03T00:30:00")).because == (
        "the policy's windows are 00:00 to 01:00 local (a time zone that is not known here)"
    )


def test_all_windows_are_named_where_none_is_open() -> None:
    morning = Window(start_s=6 * 3600 + 5 * 60, end_s=7 * 3600, days=("sat", "sun"))
    assert permit(Conditions(windows=(NIGHT, morning)), Situation(), now=utc("2026-07-04T12:00:00")).because == (
        "the policy's windows are 22:00 to 06:00 Europe/Berlin on fri, 06:05 to 07:00 UTC on sat/sun"
    )


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


def test_a_start_is_spread_over_devices_and_occasions_and_over_all_of_the_jitter() -> None:
    conditions = Conditions(start_jitter_s=1000)
    waits = sorted(start_jitter(conditions, device_id=f"dev-{number}", occasion="m/1") for number in range(1000))
    assert all(abs(wait - number) < 60 for number, wait in enumerate(waits))
    others = {start_jitter(conditions, device_id="dev-1", occasion=f"m/{number}") for number in range(9)}
    assert len(others) == 9
    assert start_jitter(Conditions(), device_id="dev-1", occasion="m/1") == 0


def test_a_start_waits_until_its_turn_and_says_how_long_and_over_what() -> None:
    spread = Conditions(start_jitter_s=90.5)
    jitter_s = start_jitter(spread, device_id="dev-1", occasion="m/1")
    assert jitter_s > 2
    waits = begins(spread, now=101.0)
    assert waits is not None
    assert waits.because == "its turn: starts are spread over 90.5 s"
    assert waits.again_s == pytest.approx(jitter_s - 1)


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
