"""What is kept of the demo's fleet while its agents run."""

from whimbrel.demo.fleet import Observations


def test_a_device_that_returns_is_counted_for_every_version_it_ever_ran() -> None:
    observed = Observations(running={"a": None, "b": None})
    for device, serial, at in (("a", 1, 10.0), ("b", 1, 11.0), ("a", 2, 20.0), ("a", 2, 21.0), ("a", 1, 30.0)):
        observed.note_running(device, serial, at=at)
    assert observed.devices_by_serial() == {1: 2}
    assert observed.devices_ever_on == {1: {"a", "b"}, 2: {"a"}}
    assert observed.last_left_at == {1: 20.0, 2: 30.0}


def test_devices_without_a_version_are_counted_as_none() -> None:
    assert Observations(running={"a": None, "b": 3}).devices_by_serial() == {None: 1, 3: 1}
