"""One suite for the inventory, on every database: pages by id, filters, and what refuses a token."""

import msgspec
import pytest

from support.values import T0, enrol
from whimbrel.errors import NotFound
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.devices.find import find_devices
from whimbrel.flows.devices.records import BuildOnDevice, DeviceAccess, DeviceFilter, DuplicateIdentity, Waiting
from whimbrel.health.report import Build
from whimbrel.model.selector_text import read_selector
from whimbrel.stores.database import Database
from whimbrel.stores.inventory import Inventory, access_changes, access_that_matters
from whimbrel.stores.transaction import Stores, transaction

HOUR = 3600.0
# Of every character that an id may have: a database's own order is kept from page to page, whatever it is.
IDS = ["Board-2", "a.b", "a:b", "a@b", "a_b", "board-1", "board-10", "board-2", "dev-9", "z"]


def fill(stores: Stores) -> None:
    for number, device in enumerate(IDS):
        region = "NZ" if number % 2 else "FR"
        enrol(stores, device, labels={"region": region}, at=T0 + number)
        if number < 6:
            serial = None if number == 0 else 1 + number % 2
            running = RunningVersion(device_id=device, model="wake", serial=serial, hardware_class="", at=T0 + number)
            stores.fleet.note_running(running)


def ids(inventory: Inventory, *, limit: int = 100, **asked: object) -> list[str]:
    selector = read_selector(str(asked.pop("selector", "")))
    page = find_devices(inventory, DeviceFilter(selector=selector, **asked), after="", limit=limit)
    assert page.after is None
    return [device.device_id for device, _ in page.devices]


@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
@pytest.mark.parametrize("selector", ["", "region in (NZ,FR)", "region=NZ"])
def test_pages_hold_every_device_once(database: Database, limit: int, selector: str) -> None:
    with transaction(database, "default") as stores:
        fill(stores)
    with transaction(database, "default") as stores:
        expected = ids(stores.inventory, selector=selector)
        listed: list[str] = []
        after: str | None = ""
        while after is not None:
            asked = DeviceFilter(selector=read_selector(selector))
            page = find_devices(stores.inventory, asked, after=after, limit=limit)
            assert 0 < len(page.devices) <= limit
            listed += [device.device_id for device, _ in page.devices]
            after = page.after
        assert listed == expected
        assert len(listed) == (5 if selector == "region=NZ" else 10)


def test_a_page_that_looked_at_many_devices_says_where_the_next_begins(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whimbrel.limits.DEVICES_A_QUERY", 4)
    monkeypatch.setattr("whimbrel.limits.DEVICES_LOOKED_AT", 4)
    with transaction(database, "default") as stores:
        fill(stores)
        asked = DeviceFilter(selector=read_selector("region=nowhere"))
        first = find_devices(stores.inventory, asked, after="", limit=3)
        assert (first.devices, first.after is None) == ([], False)
        second = find_devices(stores.inventory, asked, after=first.after or "", limit=3)
        third = find_devices(stores.inventory, asked, after=second.after or "", limit=3)
        assert (second.after is None, third.after) == (False, None)


def test_filters_hold_together(database: Database) -> None:
    with transaction(database, "default") as stores:
        fill(stores)
        inventory = stores.inventory
        inventory.set_operator_labels("z", {"site": "lab"})
        inventory.set_access(DeviceAccess(device_id="dev-9", state="blocked", since=T0, because="b", actor="ana"))
        inventory.set_access(DeviceAccess(device_id="z", state="open", since=T0))
        duplicate = DuplicateIdentity(device_id="a.b", signs=2, first_at=T0, last_at=T0, noticed_at=T0, because="b")
        inventory.save_duplicate(duplicate)
        inventory.save_duplicate(msgspec.structs.replace(duplicate, device_id="z", noticed_at=None))
        by_id = sorted(IDS)
        assert sorted(ids(inventory)) == by_id
        assert set(ids(inventory, model="wake")) == set(IDS[:6])
        assert set(ids(inventory, model="wake", runs=(2,))) == {"a.b", "a@b", "board-1"}
        assert set(ids(inventory, model="wake", runs=(None,))) == {"Board-2"}
        assert set(ids(inventory, model="wake", runs=(None, 2), selector="region=FR")) == {"Board-2"}
        assert ids(inventory, model="other") == []
        assert set(ids(inventory, heard_before=T0 + 2)) == {"Board-2", "a.b"}
        assert ids(inventory, blocked=True) == ["dev-9"]
        assert ids(inventory, duplicate=True) == ["a.b"]
        assert ids(inventory, selector="site=lab") == ["z"]
        device = inventory.device("dev-9")
        assert (device.is_blocked, device.access and device.access.because, device.duplicate) == (True, "b", None)


def test_a_namespace_sees_its_own_devices_alone(database: Database) -> None:
    with transaction(database, "default") as stores:
        fill(stores)
        stores.inventory.set_access(DeviceAccess(device_id="z", state="blocked", since=T0))
    with transaction(database, "other") as stores:
        assert ids(stores.inventory) == []
        assert stores.inventory.access(["z"]) == {}
        assert stores.inventory.models_of(["board-1"]) == []
        stores.inventory.remove("z", rollouts=["r1"])
        with pytest.raises(NotFound):
            stores.inventory.device("z")
    with transaction(database, "default") as stores:
        assert stores.inventory.device("z").is_blocked


def test_what_is_waited_for_stays_when_a_version_is_noted(database: Database) -> None:
    with transaction(database, "default") as stores:
        fill(stores)
        stores.inventory.note_waiting(Waiting(device_id="board-1", model="wake", waits_for="a charger", at=T0 + 9))
        running = RunningVersion(device_id="board-1", model="wake", serial=2, hardware_class="pi", at=T0 + 10)
        stores.fleet.note_running(running)
        (row,) = stores.inventory.models_of(["board-1"])
        assert (row.serial, row.since, row.at, row.waits_for) == (2, T0 + 5, T0 + 10, "a charger")
        stores.fleet.note_running(msgspec.structs.replace(running, serial=None, at=T0 + 11))
        stores.fleet.note_running(msgspec.structs.replace(running, serial=None, at=T0 + 12))
        (row,) = stores.inventory.models_of(["board-1"])
        assert (row.serial, row.since) == (None, T0 + 11)


def test_what_refuses_tokens_is_read_whole_and_then_by_what_changed(database: Database) -> None:
    with transaction(database, "default") as stores:
        for device, state, since, not_before in (
            ("blocked", "blocked", T0, 0.0),
            ("unblocked", "open", T0 + 5, 0.0),
            ("removed", "removed", T0 + HOUR, T0 + HOUR),
            ("back", "open", T0 + HOUR + 1, T0 + HOUR),
            ("gone", "removed", T0, T0),
        ):
            entry = DeviceAccess(device_id=device, state=state, since=since, not_before=not_before)
            stores.inventory.set_access(entry)
    with database.transaction() as connection:
        whole = access_that_matters(connection, removed_since=T0 + 10)
        assert {access.device_id for _, access in whole} == {"blocked", "removed", "back"}
        assert {namespace for namespace, _ in whole} == {"default"}
        changed = access_changes(connection, since=T0 + 5)
        assert {access.device_id for _, access in changed} == {"unblocked", "removed", "back"}


def test_a_build_is_of_the_version_that_runs_and_is_counted_by_variant(database: Database) -> None:
    small = Build(serial=2, variant="small", latency_ms_max=20.0, latency_ms=12.0)
    with transaction(database, "default") as stores:
        fill(stores)
        for device in ("board-1", "a.b", "z"):
            stores.inventory.note_builds(BuildOnDevice(device_id=device, model="wake", build=small))
        running = {row.device_id: row for row in stores.inventory.models_of(IDS)}
        assert {name for name, row in running.items() if row.build == small} == {
            name for name in ("board-1", "a.b") if running[name].serial == 2
        }
        counted = stores.fleet.variants_running("wake", 2)
        assert {variant for _, variant in counted} == {"small"}
        assert sum(counted.values()) == sum(row.build == small for row in running.values())
        stores.fleet.note_running(
            RunningVersion(device_id="board-1", model="wake", serial=3, hardware_class="", at=T0 + 99)
        )
        (row,) = stores.inventory.models_of(["board-1"])
        assert row.build is None
        assert stores.fleet.variants_running("wake", 3) == {}
