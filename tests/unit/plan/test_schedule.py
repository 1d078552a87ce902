"""Freezes and start times, on the clocks of the people who wrote them."""

import math
from datetime import datetime

import pytest

from whimbrel.plan.schedule import Freeze, Schedule, frozen_until


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


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("mon", "08:00", "another form"),
        ("2026-12-24", "fri", "another form"),
        ("08:00", "08:00", "is not after"),
        ("fri 16:00", "fri 16:00", "is not after"),
        ("2026-12-24", "2026-12-22", "is not after"),
        ("2026-02-30", "2026-03-30", "day"),
    ],
)
def test_a_freeze_that_cannot_be_is_refused(start: str, end: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        freeze(start, end)


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
    with pytest.raises(ValueError, match="offset of its own"):
        Schedule(start_at="2026-12-01T09:00+02:00", zone="Europe/Oslo")
