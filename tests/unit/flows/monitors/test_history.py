"""What is kept of a model's hours is what a new reading of the same rows would be."""

from support.values import HOUR, T0, Town, town
from whimbrel.flows.monitors.history import KEPT_HOURS, HourHistory
from whimbrel.health.device_hour import HourSums, Spread

HOUR0 = int(T0 // HOUR)


def tell(here: Town, at: int, serial: int, *, devices: int, name: str = "pi") -> None:
    sums = HourSums(devices=devices, used=devices, errors=Spread(n=devices, sum=1.0, sumsq=1.0))
    here.stores.health.add_hour("wake", serial, HOUR0 + at, {name: sums})


def contents(history: HourHistory, hours: range) -> list[object]:
    told = history.told(hours)
    return [told, *[(history.at(2, hour), history.of_model(hour), history.beside(2, hour)) for hour in told]]


def test_history_that_is_kept_says_what_a_new_one_says_after_each_look() -> None:
    """Pairs of versions are worked out once: not while their hour is open, and not for longer than hours are kept."""
    with town(versions=3) as here:
        kept = HourHistory("wake")
        for at in (0, 1, 1, 2, 5, KEPT_HOURS + 2, KEPT_HOURS + 3):
            for serial, name in ((1, "pi"), (2, "pi"), (2, "jetson"), (3, "pi"), (3, "jetson")):
                tell(here, at, serial, devices=serial + at, name=name)
            new = HourHistory("wake")
            for history in (kept, new):
                history.read(here.stores.health, hour=HOUR0 + at)
            whole = range(HOUR0 - 1, HOUR0 + at + 1)
            assert contents(kept, whole) == contents(new, whole)
            assert kept.beside(2, HOUR0 + at), "both versions are on both boards"
        assert kept.told(range(HOUR0, HOUR0 + at + 1)) == [HOUR0 + 5, HOUR0 + KEPT_HOURS + 2, HOUR0 + KEPT_HOURS + 3]
