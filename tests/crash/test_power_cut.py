"""The power goes at every operation of the disk: whatever it leaves, a verified model boots, and the device goes on.

Small spaces of states are looked at whole, large ones by a sample; the seed is in every failure, and
`WHIMBREL_CRASH_SEED` sets it. The suite checks itself: with any one fsync left out it must fail.
"""

import random
from pathlib import Path

import pytest

from support.power_cut import SEED, Broken, cut_everywhere, sync_sites
from support.power_cut_ways import WAYS
from support.set_cut import back_together
from whimbrel.sim.disk import ModelledDisk

pytestmark = pytest.mark.long

# Who asks for a durable write, and would break a promise without its first or second fsync.
ASKING = {
    "model_state.py:point": "both",
    "model_state.py:_save": "both",
    "departures.py:leave": "both",
    "crash_counts.py:count_crashes": "both",
    "settings.py:settle": "both",
    "settings.py:_root": "file",  # agent.json follows, in the same folder
    "tuf_client.py:_remember": "both",
    "tuf_internals.py:_persist_root": "both",
    "places.py:make": "folder",
    "app.py:open": "folder",
}


@pytest.mark.parametrize("name", WAYS)
def test_power_that_goes_at_any_operation_leaves_a_verified_model_and_a_device_that_goes_on(name: str) -> None:
    found = cut_everywhere(WAYS[name], states=16, recoveries=24)
    print(f"WHIMBREL_CRASH_SEED={SEED}: {found}")
    assert found.operations >= 10
    assert found.states > found.operations


def test_set_that_went_back_stays_back_when_the_power_goes() -> None:
    assert back_together() >= 1


# Where to look first, so that the suite is quick; it looks everywhere.
FOUND_IN = {
    "_unpack": "folder of files",
    "stage": "several files",
    "_persist_root": "a new root",
    "_save": "back by crash loop",
    "departures.py:leave": "back by an app",
    "departures.py:forget": "tried again",
    "count_crashes": "back without cycles",
}


def without(site: str) -> None:
    """Raises `Broken`, where the suite sees that `site` does nothing."""
    if "remove_record" in site:
        back_together(leave_out=[site])
    first = next((way for word, way in FOUND_IN.items() if word in site), "first install")
    ways = [WAYS[first], *(way for name, way in WAYS.items() if name != first)]
    for recoveries in (0, 6):
        for way in ways:
            cut_everywhere(way, states=16, recoveries=recoveries, leave_out=[site])


@pytest.mark.parametrize("site", list(sync_sites()))
def test_suite_fails_without_this_fsync(site: str) -> None:
    with pytest.raises(Broken):
        without(site)


def asked_for() -> list[str]:
    writes = [site for site in sync_sites() if site.startswith("durable.py:write_durably")]
    writes.sort(key=lambda site: int(site.rpartition(":")[2]))  # the file, then its folder
    folders = [site for site in sync_sites() if site.startswith("durable.py:make_folders")]
    sites = {"both": writes, "file": writes[:1], "folder": folders}
    return [f"{site} of {who}" for who, what in ASKING.items() for site in sites[what]]


@pytest.mark.parametrize("site", asked_for())
def test_suite_fails_when_one_durable_write_lacks_an_fsync(site: str) -> None:
    with pytest.raises(Broken):
        without(site)


# --- the model itself ---

A, B = Path("/f/a"), Path("/f/b")


def disk_with_a_folder() -> ModelledDisk:
    disk = ModelledDisk()
    disk.make_folder(A.parent)
    return disk


def contents(disk: ModelledDisk, path: Path = A) -> set[bytes | None]:
    return {state.read(path) for state in disk.states(most=10_000, chance=random.Random(1))}


def test_bytes_that_were_not_synced_are_lost_kept_torn_or_nothing_but_a_length() -> None:
    disk = disk_with_a_folder()
    disk.create(A, b"1234")
    disk.sync(A.parent)
    assert contents(disk) == {b"", b"1234", b"12", bytes(4)}
    disk.sync(A)
    assert contents(disk) == {b"1234"}


def test_later_bytes_may_be_there_without_earlier_ones() -> None:
    disk = disk_with_a_folder()
    disk.create(A, b"")
    disk.sync(A.parent)
    disk.append(A, b"12")
    disk.append(A, b"34")
    assert bytes(2) + b"34" in contents(disk)


def test_name_is_not_durable_before_its_folder_is_synced() -> None:
    disk = disk_with_a_folder()
    disk.create(A, b"x")
    disk.sync(A)
    assert contents(disk) == {None, b"x"}
    disk.sync(A.parent)
    assert contents(disk) == {b"x"}


def test_rename_happens_whole_or_not_at_all() -> None:
    disk = disk_with_a_folder()
    for path, content in ((A, b"old"), (B, b"new")):
        disk.create(path, content)
        disk.sync(path)
    disk.sync(A.parent)
    disk.move(B, A)
    states = list(disk.states(most=100, chance=random.Random(1)))
    assert {(state.read(A), state.read(B)) for state in states} == {(b"old", b"new"), (b"new", None)}


def test_later_name_may_be_durable_before_an_earlier_one() -> None:
    disk = disk_with_a_folder()
    for path in (A, B):
        disk.create(path, b"x")
        disk.sync(path)
    states = list(disk.states(most=100, chance=random.Random(1)))
    assert {(state.read(A), state.read(B)) for state in states} == {
        (None, None),
        (b"x", None),
        (None, b"x"),
        (b"x", b"x"),
    }


def test_locks_do_not_outlive_a_process_or_a_boot() -> None:
    disk = disk_with_a_folder()
    assert disk.hold(A) is not None
    assert disk.hold(A) is None
    disk.sync(A.parent)
    after = disk.crash(lambda _: 0)
    assert not after.is_held(A)
    assert after.boot() != disk.boot()
    disk.let_go()
    assert not disk.is_held(A)
