"""One suite for the figures of versions by hour and day, on every database."""

import pytest

from support.values import T0
from whimbrel.flows.monitors.fold_days import fold_days, forget_old
from whimbrel.flows.monitors.records import DAY_S, HOUR_S, OTHER_CLASSES, Episode
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.health.tally import Moments
from whimbrel.limits import HEALTH_DAYS, HEALTH_HOURS
from whimbrel.stores.database import Database
from whimbrel.stores.health import Health
from whimbrel.stores.transaction import transaction

HOUR0 = int(T0 // HOUR_S)
FULL = HourSums(
    devices=3,
    used=2,
    crashed=1,
    errors=Spread(n=2, sum=0.5, sumsq=0.25),
    metrics={"accuracy": Spread(n=3, sum=2.7, sumsq=2.5)},
    peaks={"memory_mb": {195: 3}},
    latency_units=2,
    latency={-5: 10_000, 117: 10_000},
    prediction_units=1,
    predictions={0: Moments.of(0.25), 3: Moments.of(0.75)},
    pairs={"crash": Pairs.of(1.0, before=2, total=1.0)},
)


def test_hours_are_added_up_by_class(database: Database) -> None:
    with transaction(database, "default") as stores:
        stores.health.add_hour("wake", 1, HOUR0, {"pi": FULL, "phone": HourSums(devices=1)})
    with transaction(database, "default") as stores:
        stores.health.add_hour("wake", 1, HOUR0, {"pi": FULL})
        stores.health.add_hour("wake", 2, HOUR0 + 1, {"pi": HourSums(devices=5)})
        rows = stores.health.hours("wake", since=HOUR0, before=HOUR0 + 1)
        assert {row.hardware_class: row.sums for row in rows} == {"pi": FULL.plus(FULL), "phone": HourSums(devices=1)}
        newer = stores.health.hours("wake", since=HOUR0 + 1, before=HOUR0 + 2)
        assert [(row.serial, row.sums.devices) for row in newer] == [(2, 5)]
        assert stores.health.hours("other", since=0, before=HOUR0 + 9) == []
        assert stores.health.models() == ["wake"]
    with transaction(database, "other") as stores:
        assert stores.health.hours("wake", since=0, before=HOUR0 + 9) == []


def test_what_a_revised_value_takes_away_may_be_negative(database: Database) -> None:
    """A sum of squares that rounding left a little below 0 made the whole row unreadable."""
    with transaction(database, "default") as stores:
        stores.health.add_hour("wake", 1, HOUR0, {"": HourSums(devices=1, errors=Spread(n=1, sum=0.1, sumsq=0.01))})
        stores.health.add_hour("wake", 1, HOUR0, {"": HourSums(errors=Spread(n=0, sum=-0.1, sumsq=-0.01 - 1e-18))})
        (row,) = stores.health.hours("wake", since=HOUR0, before=HOUR0 + 1)
        assert row.sums.errors.sum == pytest.approx(0)


def test_classes_that_are_invented_share_a_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whimbrel.limits.HEALTH_CLASSES", 2)
    with transaction(database, "default") as stores:
        for name in ("a", "b", "c", "d", "a"):
            stores.health.add_hour("wake", 1, HOUR0, {name: HourSums(devices=1)})
        rows = stores.health.hours("wake", since=HOUR0, before=HOUR0 + 1)
        assert {row.hardware_class: row.sums.devices for row in rows} == {"a": 2, "b": 1, OTHER_CLASSES: 2}


def test_hours_become_days_also_after_a_gap(database: Database) -> None:
    """A model that was idle for longer than one round of folding was folded no more."""
    day = HOUR0 // 24
    with transaction(database, "default") as stores:
        health = stores.health
        for hour in (HOUR0, HOUR0 + 5, HOUR0 + 24 * 20, HOUR0 + 24 * 21):
            health.add_hour("wake", 1, hour, {"pi": HourSums(devices=4 if hour == HOUR0 else 2, crashed=1)})
        now = T0 + 21 * DAY_S + 60
        while fold_days(health, "wake", now=now):
            pass
        rows = health.days("wake", since=day, before=day + 99)
        assert [(row.start - day, row.sums.devices, row.sums.crashed) for row in rows] == [(0, 6, 2), (20, 2, 1)]
        assert [row.sums.most_at_once for row in rows] == [4, 2]
        assert not fold_days(health, "wake", now=now)
        assert health.days("wake", since=day, before=day + 99) == rows


def test_what_is_too_old_is_forgotten(database: Database) -> None:
    with transaction(database, "default") as stores:
        stores.health.add_hour("wake", 1, HOUR0, {"": HourSums(devices=1)})
        fold_days(stores.health, "wake", now=T0 + DAY_S)
        forget_old(stores.health, now=T0 + HEALTH_HOURS * HOUR_S)
        assert kept(stores.health) == (1, 1)
        forget_old(stores.health, now=T0 + (HEALTH_HOURS + 24) * HOUR_S)
        assert kept(stores.health) == (0, 1)
        forget_old(stores.health, now=T0 + (HEALTH_DAYS + 1) * DAY_S)
        assert kept(stores.health) == (0, 0)


def kept(health: Health) -> tuple[int, int]:
    """Rows of hours and of days."""
    return len(health.hours("wake", since=0, before=HOUR0 + 1)), len(health.days("wake", since=0, before=HOUR0))


def test_an_episode_lasts_until_it_ends(database: Database) -> None:
    first = Episode(model="wake", serial=1, monitor="battery <= 5 day", since=T0, because="6", outcome="alert")
    second = Episode(model="wake", serial=2, monitor="crash against its past", since=T0 + 9, because="more")
    with transaction(database, "default") as stores:
        stores.health.begin_episode(first)
        stores.health.begin_episode(second)
        stores.health.end_episode(first, at=T0 + 50)
        (ended, lasting) = stores.health.episodes("wake", since=T0)
        assert (ended.ended_at, ended.because, lasting) == (T0 + 50, "6", second)
        assert stores.health.episodes("wake", since=T0 + 40) == [second]
        stores.health.begin_episode(Episode(model="wake", serial=1, monitor=first.monitor, since=T0 + 60, because="7"))
        assert [each.since for each in stores.health.episodes("wake", since=T0)] == [T0, T0 + 9, T0 + 60]
    with transaction(database, "other") as stores:
        assert stores.health.episodes("wake", since=0) == []
