"""The health of a model as people see it: by version, class and hour or day; monitors and episodes."""

import pytest

from support.values import HOUR, T0, Town, town
from whimbrel.errors import NotFound
from whimbrel.flows.monitors.fold_days import fold_days
from whimbrel.flows.monitors.records import DAY_S, Episode
from whimbrel.flows.monitors.show_health import ModelHealth, class_figures, model_health
from whimbrel.health.device_hour import HourSums

HOUR0 = int(T0 // HOUR)


def tell(here: Town, at: int, serial: int, *, crashed: int = 1, hardware_class: str = "pi") -> None:
    sums = HourSums(devices=10, used=10, crashed=crashed)
    here.stores.health.add_hour("wake", serial, HOUR0 + at, {hardware_class: sums})


def shown(here: Town, *, at: float, hours: int = 24, serial: int | None = None) -> ModelHealth:
    health = here.stores.health
    return model_health(here.registry, health, health, "wake", hours=hours, now=T0 + at * HOUR, serial=serial)


def test_figures_are_by_version_class_and_hour() -> None:
    with town() as here:
        tell(here, 0, 1)
        tell(here, 1, 1, crashed=3)
        tell(here, 1, 1, crashed=5, hardware_class="phone")
        tell(here, 1, 2, crashed=0)
        two, one = shown(here, at=1.5).versions
        assert (two.serial, two.baseline, two.figures.crash_rate) == (2, False, 0.0)
        assert (one.serial, one.baseline, one.watched) == (1, True, True)
        assert (one.figures.device_hours, one.figures.devices, one.figures.crash_rate) == (30, 20, 0.3)
        assert {name: figures.crash_rate for name, figures in one.classes.items()} == {"phone": 0.5, "pi": 0.2}
        assert [(each.start, each.figures.crash_rate) for each in one.periods] == [(T0, 0.1), (T0 + HOUR, 0.4)]
        assert [each.serial for each in shown(here, at=1.5, serial=2).versions] == [2]


def test_of_more_than_two_days_figures_are_by_day_also_of_days_that_are_not_made_yet() -> None:
    with town() as here:
        for at in (0, 5, 24, 24 * 9, 24 * 10 + 3):
            tell(here, at, 1)
        fold_days(here.stores.health, "wake", now=T0 + 5 * DAY_S)
        told = shown(here, at=24 * 10 + 3.5, hours=24 * 30)
        assert told.period_s == DAY_S
        days = [((each.start - T0) / DAY_S, each.figures.device_hours) for each in told.versions[0].periods]
        assert days == [(0, 20), (1, 10), (9, 10), (10, 10)]
        assert told.versions[0].figures.device_hours == 50


def test_episodes_are_shown_that_began_meanwhile() -> None:
    with town() as here:
        health = here.stores.health
        health.begin_episode(Episode(model="wake", serial=1, monitor="old", since=T0, because="b"))
        health.end_episode(Episode(model="wake", serial=1, monitor="old", since=T0, because="b"), at=T0 + 5)
        health.begin_episode(Episode(model="wake", serial=1, monitor="new", since=T0 + 200 * HOUR, because="b"))
        assert [each.monitor for each in shown(here, at=201).episodes] == ["new"]
        assert [each.monitor for each in shown(here, at=201, hours=300).episodes] == ["old", "new"]


def test_a_candidate_stands_beside_the_week_of_its_baseline() -> None:
    with town() as here:
        tell(here, 0, 1, crashed=9)  # more than a week ago
        tell(here, 200, 1, crashed=1)
        tell(here, 200, 2, crashed=4)  # before the rollout began
        tell(here, 210, 2, crashed=2)
        tell(here, 210, 2, crashed=3, hardware_class="phone")
        told = class_figures(
            here.stores.health, "wake", baseline=1, candidate=2, since=T0 + 209 * HOUR, now=T0 + 210.5 * HOUR
        )
        rates = {
            each.hardware_class: tuple(side and side.crash_rate for side in (each.baseline, each.candidate))
            for each in told
        }
        assert rates == {"phone": (None, 0.3), "pi": (0.1, 0.2)}


def test_a_model_that_is_not_there_is_not_found() -> None:
    with town() as here:
        health = here.stores.health
        with pytest.raises(NotFound):
            model_health(here.registry, health, health, "nothing", hours=24, now=T0)
