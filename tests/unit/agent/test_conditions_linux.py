"""What Linux's files say of charger, battery, network, load and place."""

from pathlib import Path

import pytest

from whimbrel.agent.conditions_linux import LinuxSituation
from whimbrel.device.conditions import Situation

ROUTE = "Iface Destination Gateway Flags RefCnt Use Metric Mask\n{} 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n"


def seen(root: Path, files: dict[str, str]) -> Situation:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return LinuxSituation(root, root=root)()


def battery(level: str, status: str = "Discharging") -> dict[str, str]:
    place = "sys/class/power_supply/BAT0"
    return {f"{place}/type": "Battery", f"{place}/capacity": level, f"{place}/status": status}


MAINS = {"sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "1"}
MOUSE = {
    f"sys/class/power_supply/hid/{name}": value
    for name, value in {"type": "Battery", "capacity": "3", "scope": "Device"}.items()
}


@pytest.mark.parametrize(
    ("files", "charging", "level"),
    [
        ({}, None, None),
        (battery("42"), False, 0.42),
        (battery("42", "Charging"), True, 0.42),
        (battery("42") | MAINS, True, 0.42),
        (MAINS, True, None),
        (battery("80") | MOUSE, False, 0.8),
        (battery("nonsense"), True, None),
    ],
)
def test_power(tmp_path: Path, files: dict[str, str], charging: bool | None, level: float | None) -> None:
    found = seen(tmp_path, files)
    assert (found.charging, found.battery) == (charging, level)


def network(device: str, **files: str) -> dict[str, str]:
    place = f"sys/class/net/{device}"
    given = {"type": "1", "ifindex": "2", **files}
    return {"proc/net/route": ROUTE.format(device)} | {f"{place}/{name}": text for name, text in given.items()}


@pytest.mark.parametrize(
    ("files", "unmetered"),
    [
        ({}, None),
        (network("eth0"), True),
        (network("wlan0", **{"wireless/x": ""}), None),
        (network("wwan0"), False),
        (network("tun0", type="65534"), None),
        (network("eth0") | {"run/NetworkManager/devices/2": "[device]\nmetered=1"}, False),
        (network("wlan0", **{"wireless/x": ""}) | {"run/NetworkManager/devices/2": "metered=4"}, True),
        (network("eth0") | {"run/NetworkManager/devices/2": "metered=0"}, True),
    ],
)
def test_network(tmp_path: Path, files: dict[str, str], unmetered: bool | None) -> None:
    assert seen(tmp_path, files).unmetered is unmetered


@pytest.mark.parametrize(("load", "idle"), [("0.00 1 1 1/1 1", True), ("64.0 1 1 1/1 1", False), ("", None)])
def test_load(tmp_path: Path, load: str, idle: bool | None) -> None:
    assert seen(tmp_path, {"proc/loadavg": load}).idle is idle


def test_zone_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Pacific/Auckland")
    assert seen(tmp_path, {}).zone == "Pacific/Auckland"
    assert seen(tmp_path, {"etc/timezone": "Europe/Berlin"}).zone == "Europe/Berlin"


def test_room_is_that_of_the_agents_folder(tmp_path: Path) -> None:
    assert (seen(tmp_path, {}).free_bytes or 0) > 0
    assert LinuxSituation(tmp_path / "gone", root=tmp_path)().free_bytes is None
