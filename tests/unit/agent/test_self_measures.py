"""What a device measures by itself, from a /sys of our own making, and that an app's own values go before it."""

from pathlib import Path

import pytest

from support.power_cut import Device, World
from whimbrel import limits
from whimbrel.agent.disk import RealDisk
from whimbrel.agent.marks import Closed, harvest
from whimbrel.agent.places import Places
from whimbrel.agent.self_measures import SelfMeasures, peak_memory_mb
from whimbrel.agent.session import Session
from whimbrel.device.journal import seal
from whimbrel.device.slots import Content, Held, Pointer
from whimbrel.model.documents import digest_of
from whimbrel.sim.disk import ModelledDisk


def put(root: Path, folder: str, **files: str) -> None:
    place = root / "sys/class" / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name).write_text(content + "\n")


def session_of(tmp_path: Path, measures: SelfMeasures, **own: float) -> Closed:
    places = Places(tmp_path / "model", disk=RealDisk())
    places.make()
    places.slot("a").mkdir(exist_ok=True)
    (places.slot("a") / "model.onnx").write_bytes(b"weights")
    contents = (Content(name="model.onnx", sha256=digest_of(b"weights")),)
    held = Held(slot="a", serial=3, version="v3", entry="model.onnx", contents=contents)
    places.pointer.write_bytes(seal(Pointer(model="m", active=held)))
    with Session("m", places, measures=measures) as model:
        model.record(**own)
        sum(range(200_000))
    closed = harvest(places)[-1].closed
    assert closed is not None
    return closed


def test_a_session_tells_memory_and_processor_time_of_its_process(tmp_path: Path) -> None:
    metrics = session_of(tmp_path, SelfMeasures(root=tmp_path)).metrics
    assert metrics["memory_mb"].sum == pytest.approx(peak_memory_mb(), rel=0.2)
    assert 0 < metrics["cpu_s"].sum < 10
    assert not {"temperature_c", "battery"} & metrics.keys()


def test_the_hottest_zone_is_told_and_a_sensor_that_is_not_connected_is_not(tmp_path: Path) -> None:
    put(tmp_path, "thermal/thermal_zone0", temp="41500")
    put(tmp_path, "thermal/thermal_zone1", temp="63000")
    put(tmp_path, "thermal/thermal_zone2", temp="-274000")
    put(tmp_path, "thermal/cooling_device0", temp="99000")
    measures = SelfMeasures(root=tmp_path)
    assert session_of(tmp_path, measures).metrics["temperature_c"].sum == 63.0
    assert "temperature_c" not in measures.not_measured()


@pytest.mark.parametrize(
    ("files", "percent"),
    [
        ({"power_now": "5000000", "energy_full": "50000000"}, 10.0),
        ({"current_now": "-300000", "charge_full": "3000000"}, 10.0),
    ],
)
def test_a_battery_that_discharges_tells_its_percent_an_hour(
    tmp_path: Path, files: dict[str, str], percent: float
) -> None:
    put(tmp_path, "power_supply/BAT0", type="Battery", status="Discharging", **files)
    put(tmp_path, "power_supply/mouse", type="Battery", scope="Device", status="Discharging", **files)
    assert session_of(tmp_path, SelfMeasures(root=tmp_path)).metrics["battery"].sum == pytest.approx(percent)


def test_a_battery_on_a_charger_drains_nothing_that_could_be_told(tmp_path: Path) -> None:
    put(tmp_path, "power_supply/BAT0", type="Battery", status="Charging", power_now="5000000", energy_full="50000000")
    measures = SelfMeasures(root=tmp_path)
    assert "battery" not in session_of(tmp_path, measures).metrics
    assert "battery" not in measures.not_measured()


def test_what_cannot_be_measured_has_its_reason(tmp_path: Path) -> None:
    assert SelfMeasures(root=tmp_path).not_measured() == {
        "temperature_c": "no sensor in /sys/class/thermal",
        "battery": "no battery in /sys/class/power_supply",
    }
    put(tmp_path, "power_supply/BAT0", type="Battery", status="Discharging", capacity="80")
    missing = SelfMeasures(root=tmp_path).not_measured()
    assert missing["battery"] == "the battery tells neither its power nor its current"


def test_an_apps_own_value_goes_before_ours(tmp_path: Path) -> None:
    put(tmp_path, "thermal/thermal_zone0", temp="41500")
    metrics = session_of(tmp_path, SelfMeasures(root=tmp_path), memory_mb=12.0, temperature_c=20.0).metrics
    assert (metrics["memory_mb"].sum, metrics["memory_mb"].n, metrics["temperature_c"].sum) == (12.0, 1, 20.0)


def test_sensors_are_read_once_in_a_while_and_not_in_every_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "thermal/thermal_zone0", temp="41500")
    measures = SelfMeasures(root=tmp_path)
    told = ["temperature_c" in session_of(tmp_path / str(number), measures).metrics for number in range(3)]
    assert told == [True, False, False]
    monkeypatch.setattr(limits, "SENSORS_EVERY_S", 0.0)
    measures = SelfMeasures(root=tmp_path)
    assert all("temperature_c" in session_of(tmp_path / f"x{number}", measures).metrics for number in range(2))


def test_windows_of_an_agent_carry_them_and_the_status_says_what_is_missing() -> None:
    with World() as world:
        device = Device(world, ModelledDisk())
        device.settle(1)
        device.world.now += 400
        device.cycle()
        told = [window["metrics"] for window in world.server.windows if window.get("metrics")]
        assert told
        assert all({"memory_mb", "cpu_s"} <= each.keys() for each in told)
        assert isinstance(device.agent.cycle(world.now).models, dict)
