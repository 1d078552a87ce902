"""A device leaves its version by itself: by crashes, by a load that failed, by an app; with and without cycles."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from support.power_cut import CONTENTS, MODEL, Device, World
from whimbrel import limits
from whimbrel.agent.places import Places, read_departures
from whimbrel.agent.status import own_words
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.model.local_limits import LocalLimits
from whimbrel.sim.disk import ModelledDisk


@pytest.fixture
def device() -> Iterator[Device]:
    """It runs version 2, committed; version 1 is in the other slot."""
    with World() as world:
        made = Device(world, ModelledDisk())
        made.settle(1)
        made.settle(2)
        yield made


def opens(device: Device) -> int:
    """The serial that an app gets now."""
    with device.agent.session("detector") as model:
        return model.serial


def crash(device: Device, times: int = 1) -> None:
    for _ in range(times):
        device.crash_in_a_session()


def told(device: Device, step: str) -> list[dict[str, Any]]:
    return [each for each in device.world.server.announced if each["step"] == step]


def test_a_crash_loop_after_the_commit_ends_without_any_cycle_and_is_told_by_the_next_one(device: Device) -> None:
    crash(device, limits.CRASH_LOOP)
    assert opens(device) == 1
    assert not told(device, "went_back")
    found = device.cycle()
    assert (found["state"], found["serial"]) == ("quarantined", 1)
    assert "3 sessions of serial 2 ended their process" in found["refused"]["2"]
    (announced,) = told(device, "went_back")
    assert (announced["serial"], announced["reason"]) == (2, found["refused"]["2"])
    for _ in range(3):
        assert device.cycle()["serial"] == 1
        assert opens(device) == 1
    assert len(told(device, "went_back")) == 1


def test_a_crash_loop_after_the_commit_ends_where_a_cycle_sees_each_crash_before_the_next_start(device: Device) -> None:
    for _ in range(limits.CRASH_LOOP):
        assert device.cycle()["serial"] == 2
        crash(device)
    assert device.cycle()["serial"] == 1
    assert opens(device) == 1


def test_the_count_survives_power_cuts_and_restarts(device: Device) -> None:
    for _ in range(limits.CRASH_LOOP):
        crash(device)
        device.disk = device.disk.crash(lambda _: 0)
        device.agent = device.world.opened(device.disk)
    assert opens(device) == 1


def test_a_good_session_between_crashes_begins_the_row_anew(device: Device) -> None:
    for _ in range(4):
        crash(device, limits.CRASH_LOOP - 1)
        assert opens(device) == 2
        device.cycle()
    assert device.cycle()["serial"] == 2


def test_processes_that_die_together_count_once(device: Device) -> None:
    sessions = [device.agent.session("detector") for _ in range(2 * limits.CRASH_LOOP)]
    for session in sessions:
        session.__enter__()
    device.disk.let_go()
    assert opens(device) == 2
    assert device.cycle()["serial"] == 2


def test_a_session_that_answers_well_for_long_is_no_crash_of_a_row(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kiosk opens one session at its start, and its plug is pulled every evening: no version is at fault."""
    monkeypatch.setattr(limits, "STEADY_S", 0.0)
    for _ in range(3 * limits.CRASH_LOOP):
        session = device.agent.session("detector")
        session.__enter__()
        assert session.serial == 2
        session.record(latency_ms=3.0)
        device.disk = device.disk.crash(lambda count: count - 1)
        device.agent = device.world.opened(device.disk)
    assert device.cycle()["serial"] == 2


def test_a_session_that_only_fails_for_long_is_one_of_a_row(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STEADY_S", 0.0)
    for _ in range(limits.CRASH_LOOP):
        session = device.agent.session("detector")
        session.__enter__()
        session.record(ok=False)
        device.disk.let_go()
    assert opens(device) == 1


def test_crashes_without_a_version_before_keep_the_model_and_a_small_folder() -> None:
    with World() as world:
        device = Device(world, ModelledDisk())
        device.settle(1)
        crash(device, 40)
        assert opens(device) == 1
        assert len(device.disk.names(MODEL / "marks")) <= limits.CRASHES_IN_A_ROW + 1
        assert device.cycle()["serial"] == 1


def test_a_crash_loop_of_a_trial_without_any_cycle_goes_back_too(device: Device) -> None:
    device.world.want(3)
    assert device.cycle()["state"] == "on trial"
    crash(device, limits.CRASH_LOOP)
    assert opens(device) == 2
    found = device.cycle()
    assert (found["state"], found["serial"], list(found["refused"])) == ("quarantined", 2, ["3"])


def test_a_version_that_does_not_load_is_left_at_once(device: Device) -> None:
    with pytest.raises(RuntimeError, match="opset 99"), device.agent.session("detector") as model, model.loading():
        raise RuntimeError("opset 99 is not known")
    assert opens(device) == 1
    assert device.cycle()["refused"]["2"] == "it could not be loaded: RuntimeError: opset 99 is not known"


# --- the status where no cycle runs, and where there is nothing to go back to ---


def status(device: Device) -> dict[str, Any]:
    """What `whimbrel agent status` says of the model."""
    return device.agent.status()["models"]["detector"]


@pytest.mark.parametrize("next_start", [True, False])
def test_the_status_says_what_sessions_open_after_a_crash_loop_without_any_cycle(
    device: Device, *, next_start: bool
) -> None:
    """It named serial 2 as committed until a cycle ran, while every session opened serial 1."""
    crash(device, limits.CRASH_LOOP)
    if next_start:
        assert opens(device) == 1
    marks = device.disk.names(MODEL / "marks")
    found = status(device)
    assert device.disk.names(MODEL / "marks") == marks, "the status only reads"
    assert (found["serial"], found["state"], found["stays"]) == (1, "going back", None)
    with device.agent.session("detector") as model:
        assert (model.serial, model.version) == (found["serial"], found["version"])
    assert found["went_back"] == {"from": 2, "reason": "3 sessions of serial 2 ended their process one after the other"}
    assert own_words(found) == (
        "went back from serial 2 by itself: 3 sessions of serial 2 ended their process one after the other; "
        "told at the next cycle"
    )
    device.cycle()
    found = status(device)
    assert (found["serial"], found["state"], found["went_back"]) == (1, "quarantined", None)


def test_the_status_says_at_once_that_an_app_went_back(device: Device) -> None:
    assert status(device)["serial"] == 2
    device.agent.go_back("detector", "it hears wake words in music")
    found = status(device)
    assert (found["serial"], found["went_back"]["from"]) == (1, 2)
    assert "it hears wake words in music; told at the next cycle" in own_words(found)


def load(device: Device, *, works: bool) -> None:
    """An app whose runtime refuses the model, and that goes on without it."""
    with device.agent.session("detector") as model:
        with suppress(RuntimeError), model.loading():
            if not works:
                raise RuntimeError("opset 99 is not known")
        if works:
            model.record(latency_ms=3.0)


def test_a_load_that_fails_with_nothing_to_go_back_to_is_in_the_status_until_one_works() -> None:
    """Two failures on a fresh device left no trace: committed, waiting for nothing, no problem."""
    with World() as world:
        device = Device(world, ModelledDisk())
        device.settle(1)
        assert status(device)["stays"] is None
        load(device, works=False)
        because = status(device)["stays"]
        assert "could not be loaded: RuntimeError: opset 99 is not known; it stays: " in because
        assert "nothing to go back to" in because
        device.restart()
        for _ in range(2):
            assert device.cycle()["stays"] == because
            load(device, works=False)
        told_waiting = [batch["waiting"]["detector"] for batch in world.server.batches if batch.get("waiting")]
        assert because.startswith(told_waiting[-1][:100])
        assert any(window.get("errors") for batch in world.server.batches for window in batch["windows"])
        load(device, works=True)
        assert status(device)["serial"] == 1
        assert device.cycle()["stays"] is None
        assert status(device)["stays"] is None


def test_a_crash_loop_of_the_only_version_is_in_the_status_with_and_without_a_cycle(device: Device) -> None:
    """On its last good version it was killed four more times, and the status said nothing of it."""
    crash(device, limits.CRASH_LOOP)
    assert device.cycle()["serial"] == 1
    crash(device, 4)
    because = status(device)["stays"]
    assert "sessions of serial 1 ended their process one after the other; it stays: " in because
    assert device.cycle()["stays"] == because
    answer(device, right=True)
    assert device.cycle()["stays"] is None


def test_a_load_that_failed_is_no_good_session_of_a_trial() -> None:
    """An app that goes on without its model would have committed a version that it cannot load."""
    with World() as world:
        device = Device(world, ModelledDisk())
        assert device.cycle()["state"] == "on trial"
        for _ in range(3):
            load(device, works=False)
        assert device.cycle()["state"] != "committed"


@pytest.mark.parametrize("error", [ImportError("no onnxruntime"), MemoryError()])
def test_a_load_that_fails_for_the_machine_says_nothing_of_the_version(device: Device, error: Exception) -> None:
    with pytest.raises(type(error)), device.agent.session("detector") as model, model.loading():
        raise error
    assert opens(device) == 2


def test_a_load_that_failed_in_a_session_of_a_version_that_is_gone_leaves_no_other(device: Device) -> None:
    with device.agent.session("detector") as model:
        device.agent.go_back("detector", "it answers nonsense")
        assert not model.load_failed("too late")
    assert opens(device) == 1


def test_an_app_goes_back_and_is_told_of_with_its_reason(device: Device) -> None:
    with device.agent.session("detector") as before:
        assert device.agent.go_back("detector", "it hears wake words in music") == 1
        assert before.serial == 2
        assert before.path.parent.name == "b"
        assert opens(device) == 1
        found = device.cycle()
        assert device.disk.read(before.path) is not None
    assert (found["state"], found["serial"]) == ("quarantined", 1)
    assert told(device, "went_back")[0]["reason"] == "the app asked for it: it hears wake words in music"


def test_an_app_that_has_nothing_to_go_back_to_is_told_why(device: Device) -> None:
    device.agent.go_back("detector", "bad")
    for because in ("serial 2 was left already", "nothing to go back to"):
        with pytest.raises(Refused, match=because):
            device.agent.go_back("detector", "bad as well")
        device.cycle()
    with pytest.raises(UntrustedInput, match="expected the reason"):
        device.agent.go_back("detector", " ")
    with pytest.raises(NotFound):
        device.agent.go_back("other", "bad")
    with World() as world:
        fresh = Device(world, ModelledDisk())
        with pytest.raises(Refused, match="no version on this device"):
            fresh.agent.go_back("detector", "bad")
        fresh.settle(1)
        with pytest.raises(Refused, match="nothing to go back to"):
            fresh.agent.go_back("detector", "bad")


def test_nothing_goes_back_to_a_version_that_was_revoked(device: Device) -> None:
    device.world.repository.line("detector", revoked=(1,))
    device.world.want(2)
    device.cycle()
    with pytest.raises(Refused, match="serial 1, which ran before, may not run here any more"):
        device.agent.go_back("detector", "bad")
    crash(device, 2 * limits.CRASH_LOOP)
    assert opens(device) == 2
    assert device.cycle()["serial"] == 2


def test_nothing_goes_back_to_files_that_were_changed(device: Device) -> None:
    place = MODEL / "a" / "model.onnx"
    device.disk.replace(place, b"worn")
    with pytest.raises(Refused, match="are not those that were verified"):
        device.agent.go_back("detector", "bad")
    crash(device, limits.CRASH_LOOP)
    assert opens(device) == 2


def test_what_apps_went_back_to_is_not_emptied_for_a_newer_version(device: Device) -> None:
    device.agent.go_back("detector", "bad")
    device.world.want(3)
    for _ in range(3):
        found = device.cycle()
        assert opens(device) in {1, 3}
        device.use()
    assert (found["state"], found["serial"], list(found["refused"])) == ("committed", 3, ["2"])


def test_a_change_that_was_made_while_no_cycle_ran_is_one_for_hooks_too(device: Device) -> None:
    before = device.cycle()
    device.agent.go_back("detector", "bad")
    after = device.cycle()
    assert (before["version"], after["version"]) == ("2026.03.05.2", "2026.03.05.1")


def test_a_version_that_was_left_and_is_tried_again_goes_through_a_trial_and_counts_from_zero(device: Device) -> None:
    crash(device, limits.CRASH_LOOP)
    assert opens(device) == 1
    device.cycle()
    device.world.want(2, overrides=(2,))
    assert [device.cycle()["state"] for _ in range(2)][-1] == "on trial"
    crash(device)
    device.use()
    found = device.cycle()
    assert (found["state"], found["serial"], list(found["overridden"])) == ("committed", 2, ["2"])
    crash(device, limits.CRASH_LOOP - 1)
    assert opens(device) == 2


# --- signed limits ---


def with_limits(**of: LocalLimits) -> Device:
    """A device on version 2, whose release or policy has limits."""
    world = World()
    if "release" in of:
        content = CONTENTS[2]
        world.repository.release("detector", 2, content, local_limits=of["release"])
    device = Device(world, ModelledDisk())
    device.settle(1)
    device.settle(2)
    if "policy" in of:
        world.want(2, local_limits=of["policy"])
        device.cycle()
    return device


def answer(device: Device, *, right: bool, times: int = 1) -> None:
    for _ in range(times):
        with device.agent.session("detector") as model:
            model.record(latency_ms=3.0, ok=right, accuracy=float(right))


@pytest.mark.parametrize("where", ["release", "policy"])
def test_a_signed_limit_acts_without_a_network_and_is_told_when_there_is_one(where: str) -> None:
    device = with_limits(**{where: LocalLimits(error_rate_max=0.1)})
    with device.world:
        device.world.server.down = True
        answer(device, right=True, times=20)
        assert device.cycle()["serial"] == 2
        answer(device, right=False, times=20)
        found = device.cycle()
        assert (found["state"], found["serial"]) == ("quarantined", 1)
        assert "% errors in the last 4" in found["refused"]["2"]
        assert opens(device) == 1
        device.world.server.down = False
        device.cycle()
        assert told(device, "went_back")[0]["reason"] == found["refused"]["2"]


def test_without_a_limit_errors_make_no_device_go_back_and_nothing_is_kept(device: Device) -> None:
    answer(device, right=False, times=60)
    assert device.cycle()["serial"] == 2
    assert device.disk.size(MODEL / "recent") is None


def test_sessions_of_the_version_before_say_nothing_of_the_next() -> None:
    device = with_limits(policy=LocalLimits(accuracy_min=0.9))
    with device.world:
        answer(device, right=False, times=4)
        device.world.want(3, local_limits=LocalLimits(accuracy_min=0.9))
        device.cycle()
        answer(device, right=True, times=40)
        assert device.cycle()["serial"] == 3


def test_a_policy_says_how_many_crashes_end_a_version_and_zero_that_none_do() -> None:
    device = with_limits(policy=LocalLimits(crash_loop=5))
    with device.world:
        crash(device, 4)
        assert opens(device) == 2
        crash(device, 5)
        assert opens(device) == 1
    device = with_limits(policy=LocalLimits(crash_loop=0))
    with device.world:
        crash(device, 20)
        assert opens(device) == 2
        assert device.cycle()["serial"] == 2


def test_a_limit_that_is_broken_where_there_is_nothing_to_go_back_to_is_in_the_status() -> None:
    with World() as world:
        device = Device(world, ModelledDisk())
        device.settle(1)
        world.want(1, local_limits=LocalLimits(error_rate_max=0.1))
        device.cycle()
        answer(device, right=False, times=20)
        found = device.cycle()
    assert found["serial"] == 1
    assert "errors in the last" in found["stays"]
    assert "nothing to go back to" in found["stays"]


def test_a_record_that_was_written_down_does_not_come_back_with_the_power(device: Device) -> None:
    """Apps would leave the same version again, after it was let in once more."""
    crash(device, limits.CRASH_LOOP)
    assert opens(device) == 1
    assert read_departures(Places(MODEL, disk=device.disk))
    device.cycle()
    assert read_departures(Places(MODEL, disk=device.disk.crash(lambda _: 0))) == {}
