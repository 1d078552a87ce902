"""Versions are watched as long as they run, whether anything rolls out or not; and hours become days."""

import logging

import msgspec
import pytest
from sqlalchemy import update

from support.rollouts_in_memory import audited
from support.server_in_memory import ServerInMemory
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.health.device_hour import HourSums, Spread
from whimbrel.health.pairs import Pairs
from whimbrel.plan.objectives import read_objective
from whimbrel.server.controllers import monitoring
from whimbrel.stores import schema

HOUR_S, DAY_S = 3600.0, 86400.0
BROKEN = "error_rate < 5% hourly"


def watched(server: ServerInMemory, *models: str, action: str = "") -> None:
    """These models have an objective, and their second version, which was good, is what everybody runs."""
    for name in models:
        with server.stores() as stores:
            settings = msgspec.structs.replace(
                stores.registry.model(name).settings, objectives=(read_objective(f"{BROKEN}{action}"),)
            )
            for serial in (1, 2):
                stores.registry.change_version(name, serial, good=True)
            stores.registry.change_model(name, settings=settings, baseline=2)


def tell(server: ServerInMemory, model: str = "wake", *, errors: float = 0.5, days_ago: int = 0) -> None:
    """A hundred devices told of this share of errors in this hour, or at this hour of an earlier day."""
    pairs = {name: Pairs(pairs=1000, squares=10_000) for name in ("crash", "error", "usage")}
    n = 100
    share = Spread(n=n, sum=errors * n, sumsq=errors * errors * n)
    with server.stores() as stores:
        hour = int(server.clock.now // HOUR_S) - 24 * days_ago
        stores.health.add_hour(model, 2, hour, {"pi": HourSums(devices=n, used=n, errors=share, pairs=pairs)})


def look(server: ServerInMemory) -> None:
    assert server.controllers.leader.take()
    server.controllers.monitoring.watch_models("default")


def told(server: ServerInMemory) -> list[str | None]:
    """The models of which an episode began, in order."""
    return [entry.model for entry in audited(server, "break_objective")]


def test_an_objective_that_is_broken_is_told_once_an_episode(server: ServerInMemory) -> None:
    watched(server, "wake")
    look(server)
    assert told(server) == []
    tell(server)
    server.clock.now += limits.MONITOR_LOOK_S - 0.5
    look(server)
    assert told(server) == []  # it was looked at just now
    server.clock.now += 0.5
    look(server)
    assert told(server) == ["wake"]
    (entry,) = audited(server, "break_objective")
    assert entry.actor == "monitor"
    assert entry.because.startswith("error_rate is 50% over the last hour (100 device-hours); it should be at most 5%")
    server.clock.now += limits.MONITOR_LOOK_S
    look(server)
    assert told(server) == ["wake"]


def test_a_clock_that_went_back_looks_again(server: ServerInMemory) -> None:
    server.clock.now += 60
    watched(server, "wake")
    look(server)
    tell(server)
    server.clock.now -= 0.5
    look(server)
    assert told(server) == ["wake"]


def test_a_model_goes_back_where_its_settings_say_so(server: ServerInMemory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger=monitoring.__name__)
    watched(server, "wake", action=", take back")
    tell(server)
    look(server)
    with server.stores() as stores:
        assert stores.registry.model("wake").baseline == 1
    (entry,) = audited(server, "break_objective")
    assert entry.because.endswith("; its devices go back to 2026.01.01.1 (1.0.0)")
    (record,) = caplog.records
    assert record.getMessage().startswith("model wake goes back to 1.0.0: ")


def test_few_models_are_looked_at_in_turn_and_all_of_them_soon(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MONITOR_MODELS_A_LOOK", 2)
    names = ["eat", "sleep"]
    for name in names:
        server.add_model(name)
        server.publish(model=name)
        server.publish(model=name)
    watched(server, *names, "wake")
    for name in (*names, "wake"):
        tell(server, name)
    turns = []
    for _ in range(2):
        look(server)
        turns.append(sorted(str(each) for each in told(server)))
        server.clock.now += limits.MONITOR_LOOK_S
    assert turns == [["eat", "sleep"], ["eat", "sleep", "wake"]]


def test_a_model_whose_figures_cannot_be_read_keeps_no_other_from_being_watched(server: ServerInMemory) -> None:
    for number in (1, 2):
        if number == 1:
            server.add_model("eat")
        server.publish(model="eat")
    watched(server, "eat", "wake")
    tell(server, "eat")
    tell(server, "wake")
    with server.database.transaction() as connection:
        connection.execute(update(schema.health).where(schema.health.c.model == "eat").values(sums=b"{"))
    assert server.controllers.leader.take()
    with pytest.raises(UntrustedInput):
        server.controllers.monitoring.watch_models("default")
    assert told(server) == ["wake"]


def days(server: ServerInMemory) -> int | None:
    with server.stores() as stores:
        return stores.health.newest_day("wake")


def test_hours_become_a_day_when_it_is_over_and_that_is_looked_for_once_an_hour(server: ServerInMemory) -> None:
    day = int(server.clock.now // DAY_S)
    tell(server)
    look(server)
    assert days(server) is None  # the day is not over
    server.clock.now += DAY_S
    look(server)
    assert days(server) == day
    server.clock.now += DAY_S
    look(server)
    tell(server, days_ago=1)  # what was told late
    server.clock.now += limits.MONITOR_LOOK_S
    look(server)
    assert days(server) == day
    server.clock.now += HOUR_S
    look(server)
    assert days(server) == day + 1


def test_hours_that_are_too_old_are_gone_and_their_days_stay(server: ServerInMemory) -> None:
    tell(server)
    look(server)
    for hours in (limits.HEALTH_HOURS, 24):
        with server.stores() as stores:
            assert len(stores.health.hours("wake", since=0, before=10**6)) == 1
        server.clock.now += hours * HOUR_S
        look(server)
    with server.stores() as stores:
        assert stores.health.hours("wake", since=0, before=10**6) == []
        assert len(stores.health.days("wake", since=0, before=10**6)) == 1
