"""Reports of all devices become hours of their versions, whether or not anything rolls out."""

import msgspec

from support.values import EPOCH, HOUR, T0, Town, reports, rollout, town, window
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.monitors.records import HealthRow
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.reports.ingest import ingest
from whimbrel.health.report import Summary, Window
from whimbrel.health.sketch import key_of
from whimbrel.limits import DEVICE_VERSIONS
from whimbrel.plan.objectives import read_objective

NOW = T0 + 400


def take(here: Town, *records: DeviceMessage, now: float = NOW) -> None:
    ingest(here.registry, here.fleet, records, now=now, health=here.stores.health)


def hours(here: Town, *, model: str = "wake") -> list[HealthRow]:
    return here.stores.health.hours(model, since=int(T0 // HOUR), before=int(T0 // HOUR) + 99)


def plain(first: int = 1, **more: object) -> Window:
    """A window outside of any rollout."""
    return window(first, cohorts=(), **{"serial": 1, "hardware_class": "pi", **more})


def test_devices_count_when_nothing_rolls_out() -> None:
    with town() as here:
        take(here, *(reports(f"dev-{n}", plain(errors=5, crashed=n % 2)) for n in range(4)))
        (row,) = hours(here)
        assert (row.serial, row.hardware_class, row.start) == (1, "pi", int(T0 // HOUR))
        assert (row.sums.devices, row.sums.crashed, row.sums.errors.mean) == (4, 2, 0.5)


def test_a_device_counts_once_an_hour_over_many_transactions() -> None:
    with town(running=rollout()) as here:
        for number in range(1, 13):
            take(here, reports("dev-1", plain(number, crashed=int(number == 7))), now=T0 + 300 * number - 1)
        assert [(row.sums.devices, row.sums.crashed) for row in hours(here)] == [(1, 1)]
        take(here, reports("dev-1", plain(13)), now=T0 + HOUR)
        assert [(row.sums.devices, row.sums.crashed) for row in hours(here)] == [(1, 1), (1, 0)]


def test_another_installation_of_the_device_is_no_other_device() -> None:
    with town() as here:
        for turn in range(6):
            epoch = EPOCH if turn % 2 else "f" * 16
            take(here, reports("dev-1", plain(turn + 1, inferences=10, errors=turn), epoch=epoch, at=NOW + turn))
        (row,) = hours(here)
        assert (row.sums.devices, row.sums.errors.n) == (1, 1)
        assert abs((row.sums.errors.mean or 0) - 0.25) < 1e-9


def test_a_replayed_window_counts_once() -> None:
    with town() as here:
        for _ in range(3):
            take(here, reports("dev-1", plain(inferences=10, errors=10)))
        (row,) = hours(here)
        assert (row.sums.devices, row.sums.errors.sum) == (1, 1.0)


def test_what_a_device_invents_finds_no_place() -> None:
    with town(versions=8) as here:
        take(here, reports("liar", plain(1, serial=99), plain(2, serial=None), plain(3, model="nothing")))
        assert hours(here) == hours(here, model="nothing") == []
        take(here, reports("liar", *(plain(10 + serial, serial=serial) for serial in range(1, 9))))
        take(here, reports("liar", *(plain(30 + serial, serial=serial) for serial in range(1, 9))))
        assert [row.serial for row in hours(here)] == list(range(1, DEVICE_VERSIONS + 1))
        assert {row.sums.devices for row in hours(here)} == {1}


def test_an_incredible_share_is_left_out() -> None:
    with town() as here:
        take(here, reports("dev-1", plain(metrics={"accuracy": Summary.of(7.0), "battery": Summary.of(7.0)})))
        (row,) = hours(here)
        assert set(row.sums.metrics) == {"battery"}


def test_peaks_are_kept_where_an_objective_asks() -> None:
    with town() as here:
        told = {"memory_mb": Summary.of(60.0), "battery": Summary.of(3.0)}
        take(here, reports("dev-1", plain(metrics=told)))
        settings = ModelSettings(objectives=(read_objective("memory_mb < 50 peak"),))
        here.registry.change_model("wake", settings=settings)
        take(here, reports("dev-2", plain(metrics=told)))
        (row,) = hours(here)
        assert row.sums.peaks == {"memory_mb": {key_of(60.0): 1}}


def test_what_is_remembered_of_a_device_is_of_one_day() -> None:
    with town(versions=3) as here:
        for day in range(3):
            at = T0 + day * 24 * HOUR
            take(here, reports("dev-1", plain(day + 1, serial=day + 1), at=at), now=at)
        (mark,) = here.fleet.sequences(["dev-1"]).values()
        assert {model: set(serials) for model, serials in mark.hours.items()} == {"wake": {3}}
        assert msgspec.structs.astuple(mark)[0] == 3
