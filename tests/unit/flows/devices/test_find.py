"""A page of the inventory: its end, its border, and how many devices it looks at."""

import pytest

from support.values import T0, Town, selector, town
from whimbrel import limits
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.devices.find import DevicePage, find_devices
from whimbrel.flows.devices.records import DeviceFilter
from whimbrel.model.selector import EVERYONE, Selector

LAB = selector(site="lab")


def fleet(here: Town, count: int, *, every: int = 1) -> None:
    """Devices d00, d01, ...; each `every`-th is in the lab."""
    for number in range(count):
        here.enrol(f"d{number:02d}", labels={"site": "lab" if number % every == 0 else "roof"}, models=("wake",))


def page(here: Town, *, after: str = "", limit: int = 3, of: Selector = EVERYONE) -> tuple[list[str], str | None]:
    found: DevicePage = find_devices(here.stores.inventory, DeviceFilter(selector=of), after=after, limit=limit)
    return [device.device_id for device, _ in found.devices], found.after


@pytest.mark.parametrize("of", [EVERYONE, LAB])
def test_a_page_that_is_just_full_has_none_behind_it_and_one_device_more_has(of: Selector) -> None:
    with town() as here:
        fleet(here, 3)
        assert page(here, of=of) == (["d00", "d01", "d02"], None)
        assert page(here, of=of, limit=4) == (["d00", "d01", "d02"], None)
        here.enrol("d03", labels={"site": "lab"})
        assert page(here, of=of) == (["d00", "d01", "d02"], "d02")
        assert page(here, of=of, after="d02") == (["d03"], None)
        assert page(here, of=of, after="d03") == ([], None)


def test_all_pages_together_hold_every_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES_A_QUERY", 4)  # several queries a page
    with town() as here:
        fleet(here, 25, every=3)
        for limit in (1, 2, 3, 8, 9, 10):
            seen: list[str] = []
            after: str | None = ""
            while after is not None:
                some, after = page(here, after=after, limit=limit, of=LAB)
                assert len(some) <= limit
                seen += some
            assert seen == [f"d{number:02d}" for number in range(0, 25, 3)]


def test_a_page_looks_at_a_bounded_number_of_devices_and_says_where_the_next_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "DEVICES_A_QUERY", 4)
    monkeypatch.setattr(limits, "DEVICES_LOOKED_AT", 8)
    with town() as here:
        fleet(here, 20, every=19)
        assert page(here, of=LAB) == (["d00"], "d07")
        assert page(here, of=LAB, after="d07") == ([], "d15")
        assert page(here, of=LAB, after="d15") == (["d19"], None)


def test_a_device_is_told_with_all_that_it_runs_by_model() -> None:
    with town() as here:
        fleet(here, 2)
        for model, serial in (("wake", 2), ("nap", 1)):
            here.fleet.note_running(
                RunningVersion(device_id="d00", model=model, serial=serial, hardware_class="", at=T0)
            )
        found = find_devices(here.stores.inventory, DeviceFilter(), after="", limit=9)
        assert [[(each.model, each.serial) for each in models] for _, models in found.devices] == [
            [("nap", 1), ("wake", 2)],
            [("wake", None)],
        ]
