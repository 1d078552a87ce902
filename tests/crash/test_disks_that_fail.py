"""No room, no writing, somebody else, and files that changed behind our back: the model stays, and why is said."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.power_cut import CONTENTS, FOLDER, MODEL, Device, World, whole
from whimbrel.errors import Conflict, Unavailable
from whimbrel.sim.disk import ModelledDisk

pytestmark = pytest.mark.long

WRITES = "create", "append", "add_folder", "move"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture
def device(world: World) -> Device:
    made = Device(world, ModelledDisk())
    made.settle(1)
    return made


def fails(disk: ModelledDisk, number: int, *, once: bool, code: int = errno.ENOSPC) -> Callable[[], int]:
    """From the `number`-th write on there is no room (`once`: for that one only); how many writes were asked for."""
    asked = [0]

    def before(what: str, path: Path) -> None:
        if what in WRITES:
            asked[0] += 1
            if asked[0] == number or (asked[0] > number and not once):
                raise OSError(code, "No space left on device", str(path))

    disk.before = before
    return lambda: asked[0]


@pytest.mark.parametrize("once", [False, True])
def test_disk_that_is_full_at_any_write_keeps_the_model_and_goes_on_when_there_is_room(
    device: Device, world: World, once: bool
) -> None:
    start, number = device.disk.copy(), 0
    world.want(2)
    while True:
        number += 1
        disk = start.copy()
        asked = fails(disk, number, once=once)
        tried = Device(world, disk)
        for _ in range(2):
            found = tried.cycle()
            assert whole(disk) == found["serial"]
            tried.use()
        was_full = asked() >= number
        disk.before = None
        tried.settle(2)
        disk.let_go()
        if not was_full:
            break
    assert number > 30


def test_full_disk_is_said_and_a_session_begins_all_the_same(device: Device) -> None:
    fails(device.disk, 1, once=False)
    device.world.want(2)
    device.world.now += 61
    result = device.agent.cycle(device.world.now, force=True)
    assert any("the disk is full" in problem for problem in result.problems)
    with device.agent.session("detector") as model:
        assert device.disk.read(model.path) == CONTENTS[1]
        model.record(latency_ms=1.0)


def test_folder_that_may_only_be_read_gives_its_model_and_says_so(device: Device) -> None:
    def before(what: str, path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    device.disk.before = before
    device.restart()
    with device.agent.session("detector") as model:
        assert device.disk.read(model.path) == CONTENTS[1]
    with pytest.raises(Unavailable, match="cannot be written to"):
        device.cycle()


def test_second_agent_on_a_folder_is_refused_and_the_first_goes_on(device: Device, world: World) -> None:
    hold = device.disk.hold(FOLDER / "agent.lock")
    assert hold is not None
    other = world.opened(device.disk)
    with pytest.raises(Conflict, match="in use by another agent"):
        other.cycle()
    hold.release()
    device.settle(2)


def changed(disk: ModelledDisk, serial: int) -> Path:
    """One bit of an active model's file is another one."""
    for slot in ("a", "b"):
        path = MODEL / slot / "model.onnx"
        if disk.read(path) == CONTENTS[serial]:
            disk.remove(path)
            disk.create(path, CONTENTS[serial][:-1] + bytes([CONTENTS[serial][-1] ^ 1]))
            return path
    raise AssertionError("it is in no slot")


def test_file_that_changed_is_not_opened_at_the_next_start_without_any_agent(device: Device, world: World) -> None:
    changed(device.disk, 1)
    device.disk.let_go()
    with (
        pytest.raises(Unavailable, match="not those that were verified"),
        world.opened(device.disk).session("detector"),
    ):
        raise AssertionError("it was opened")


def test_file_that_changed_while_the_agent_runs_is_replaced(device: Device) -> None:
    changed(device.disk, 1)
    device.cycle()
    assert whole(device.disk) == 1
    device.settle(1)


def test_file_that_changed_gives_way_to_the_version_before_without_a_network(device: Device, world: World) -> None:
    device.settle(2)
    changed(device.disk, 2)
    device.restart()
    world.server.down = True
    device.cycle()
    assert whole(device.disk) == 1
    world.server.down = False
    device.settle(2)


def test_both_slots_changed_leave_nothing_to_open_until_one_is_fetched_again(device: Device, world: World) -> None:
    device.settle(2)
    changed(device.disk, 1)
    changed(device.disk, 2)
    device.restart()
    world.server.down = True
    device.cycle()
    assert whole(device.disk) is None
    world.server.down = False
    device.cycle()
    device.settle(2)


def test_file_that_changed_while_another_version_is_on_its_way_is_left(device: Device, world: World) -> None:
    def half(handler: object) -> None:
        handler.close_connection = True

    for digest in list(world.repository.blobs):
        world.server.faults[f"artifacts/{digest}"] = half
    world.want(2)
    assert device.cycle()["state"] == "downloading"
    changed(device.disk, 1)
    device.cycle()
    world.server.faults.clear()
    device.settle(2)
