"""Freezes and start times, on the clocks of the people who wrote them."""

import itertools
import math
import re
from datetime import UTC, datetime, timedelta

import pytest

from whimbrel.plan.schedule import Freeze, Schedule, frozen_until, zone_of


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def freeze(start: str, end: str, zone: str = "UTC") -> Freeze:
    return Freeze(start=start, end=end, zone=zone)


WEEKEND = freeze("fri 16:00", "mon 08:00", "Europe/Oslo")


@pytest.mark.parametrize(
    ("one", "now", "until"),
    [
        (WEEKEND, "2026-11-27T15:59+01:00", None),
        (WEEKEND, "2026-11-27T16:00+01:00", "2026-11-30T08:00+01:00"),
        (WEEKEND, "2026-11-30T07:59+01:00", "2026-11-30T08:00+01:00"),
        (WEEKEND, "2026-11-30T08:00+01:00", None),
        (freeze("sat", "sun"), "2026-11-29T23:59+00:00", "2026-11-30T00:00+00:00"),
        (freeze("sat", "sun"), "2026-11-27T23:59+00:00", None),
        (freeze("20:00", "08:00"), "2026-11-29T23:00+00:00", "2026-11-30T08:00+00:00"),
        (freeze("20:00", "08:00"), "2026-11-30T07:59+00:00", "2026-11-30T08:00+00:00"),
        (freeze("20:00", "08:00"), "2026-11-30T08:00+00:00", None),
        (freeze("08:00", "20:00"), "2026-11-30T08:00+00:00", "2026-11-30T20:00+00:00"),
        (freeze("2026-12-24", "2026-12-26", "Europe/Oslo"), "2026-12-26T23:59+01:00", "2026-12-27T00:00+01:00"),
        (freeze("2026-12-24", "2026-12-26", "Europe/Oslo"), "2026-12-27T00:00+01:00", None),
        (freeze("2026-12-24T18:00", "2026-12-24T19:00"), "2026-12-24T18:30+00:00", "2026-12-24T19:00+00:00"),
        (freeze("mon", "sun"), "2026-11-29T05:00+00:00", "2026-11-30T00:00+00:00"),
        # The night in which Oslo's clocks go back: 02:30 comes twice, and the freeze lasts through both.
        (freeze("01:00", "04:00", "Europe/Oslo"), "2026-10-25T02:30+01:00", "2026-10-25T04:00+01:00"),
    ],
)
def test_a_freeze_holds_between_its_ends(one: Freeze, now: str, until: str | None) -> None:
    assert one.end_of(at(now)) == (at(until) if until else None)


def test_freezes_that_follow_upon_each_other_are_one() -> None:
    both = [freeze("2026-12-24", "2026-12-26"), freeze("2026-12-27", "2027-01-01")]
    assert frozen_until(both, at("2026-12-25T00:00+00:00")) == at("2027-01-02T00:00+00:00")
    assert frozen_until(both, at("2027-01-02T00:00+00:00")) is None


def test_freezes_without_end_are_said_to_be_so() -> None:
    assert frozen_until([freeze("mon", "fri"), freeze("sat", "sun")], at("2026-12-25T00:00+00:00")) == math.inf


def test_a_zone_that_is_not_known_here_freezes() -> None:
    assert frozen_until([freeze("08:00", "09:00", "Mars/Olympus")], 0.0) == math.inf


FORMS = " is another form than from {}; say both as dates, as week days, or as times of the day"


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("mon", "08:00", "to: '08:00'" + FORMS.format("'mon'")),
        ("2026-12-24", "fri", "to: 'fri'" + FORMS.format("'2026-12-24'")),
        ("08:00", "2026-12-24", "to: '2026-12-24'" + FORMS.format("'08:00'")),
        ("08:00", "08:00", "to: '08:00' is not after '08:00'"),
        ("fri 16:00", "fri 16:00", "to: 'fri 16:00' is not after 'fri 16:00'"),
        ("2026-12-24", "2026-12-22", "to: '2026-12-22' is not after '2026-12-24'"),
        ("2026-12-24", "2026-12-23", "to: '2026-12-23' is not after '2026-12-24'"),
        ("2026-12-24T18:00", "2026-12-24T17:59", "to: '2026-12-24T17:59' is not after '2026-12-24T18:00'"),
        ("2026-02-30", "2026-03-30", "day is out of range for month"),
    ],
)
def test_a_freeze_that_cannot_be_is_refused(start: str, end: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        freeze(start, end)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (WEEKEND, "every week from fri 16:00 to mon 08:00 Europe/Oslo"),
        (freeze("20:00", "08:00"), "every day from 20:00 to 08:00 UTC"),
        (
            Freeze(start="2026-12-24", end="2026-12-26", note="Christmas"),
            "from 2026-12-24 to 2026-12-26 UTC (Christmas)",
        ),
    ],
)
def test_a_freeze_is_told_in_its_form(one: Freeze, words: str) -> None:
    assert one.words() == words


def test_a_single_day_is_a_freeze_from_midnight_to_midnight() -> None:
    one = freeze("2026-12-24", "2026-12-24")
    assert one.end_of(at("2026-12-24T00:00+00:00")) == at("2026-12-25T00:00+00:00")
    assert one.end_of(at("2026-12-23T23:59:59+00:00")) is None


def test_the_end_of_a_freeze_lies_ahead_where_the_clocks_are_set_back() -> None:
    """01:00 to 02:30 in Oslo: at the second 02:15 of the night it holds, and its first 02:30 is over already."""
    one = freeze("01:00", "02:30", "Europe/Oslo")
    second_quarter_past_two = at("2026-10-25T02:15+01:00")
    assert one.end_of(second_quarter_past_two) == second_quarter_past_two + 1


def test_a_freeze_ends_when_the_longest_of_those_that_hold_does() -> None:
    both = [freeze("2026-12-24", "2026-12-30"), freeze("2026-12-24", "2026-12-26"), freeze("2026-12-24", "2026-12-28")]
    assert frozen_until(both, at("2026-12-25T00:00+00:00")) == at("2026-12-31T00:00+00:00")


@pytest.mark.parametrize(("count", "ends"), [(1, True), (2, True), (255, True), (256, False)])
def test_so_many_freezes_in_a_row_have_an_end_and_more_count_as_endless(count: int, ends: bool) -> None:
    """Of a minute each, and each begins as the one before it ends."""
    clock = [f"2026-01-01T{minute // 60:02}:{minute % 60:02}" for minute in range(count + 1)]
    row = [freeze(start, end) for start, end in itertools.pairwise(clock)]
    until = frozen_until(row, at("2026-01-01T00:00+00:00"))
    assert until == (at(f"{clock[-1]}+00:00") if ends else math.inf)


@pytest.mark.parametrize("now", [math.inf, -math.inf])
def test_at_the_end_of_time_every_freeze_holds(now: float) -> None:
    assert freeze("08:00", "09:00").end_of(now) == math.inf


def test_a_start_in_a_zone_that_is_not_known_here_never_comes() -> None:
    assert Schedule(start_at="2026-12-01", zone="Mars/Olympus").at() == math.inf
    assert Schedule(start_at="2026-12-01T09:00+02:00").at() == at("2026-12-01T09:00+02:00")


@pytest.mark.parametrize("name", ["Mars/Olympus", "local", "posixrules.nothing", "Etc"])
def test_a_zone_without_rules_here_has_none(name: str) -> None:
    assert zone_of(name) is None


def test_a_zone_is_known_by_its_name() -> None:
    assert zone_of("UTC") is UTC
    oslo = zone_of("Europe/Oslo")
    assert oslo is not None
    assert datetime(2026, 7, 1, tzinfo=oslo).utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(
    ("said", "zone", "meant"),
    [
        ("2026-12-01T09:00", None, "2026-12-01T09:00+00:00"),
        ("2026-12-01T09:00", "Europe/Oslo", "2026-12-01T09:00+01:00"),
        ("2026-12-01T09:00:30+02:00", None, "2026-12-01T09:00:30+02:00"),
        ("2026-12-01T09:00Z", None, "2026-12-01T09:00+00:00"),
        ("2026-12-01", "Europe/Oslo", "2026-12-01T00:00+01:00"),
    ],
)
def test_a_start_time_is_local_or_has_an_offset(said: str, zone: str | None, meant: str) -> None:
    assert Schedule(start_at=said, zone=zone).at() == at(meant)


def test_two_zones_for_one_time_are_refused() -> None:
    said = "start_at: '2026-12-01T09:00+02:00' has an offset of its own; leave out the zone 'Europe/Oslo'"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        Schedule(start_at="2026-12-01T09:00+02:00", zone="Europe/Oslo")
