"""What a policy's conditions need to know of a Linux device: charger, battery, network, load, room. Without a library.

1. What cannot be read is None: not known, and a policy that asks for it waits.
2. A machine without any battery is on a charger. A network is unmetered where its route's device is a wire and
   nothing says otherwise; radio is known only where NetworkManager or the app tells.
3. An app that knows better brings its own reader: `AgentOptions(situation=...)`.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from whimbrel.device.conditions import Situation

_IDLE_LOAD = 0.25  # of one processor, over a minute
_ETHERNET = "1"  # ARPHRD_ETHER, linux/if_arp.h; radio has a folder `wireless` or `phy80211` besides
_METERED = re.compile(r"^\s*metered\s*=\s*(\d|yes|no|true|false)\s*$", re.MULTILINE | re.IGNORECASE)
_ZONE = re.compile(r"zoneinfo/(?:posix/|right/)?([A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*)$")


def default_situation(folder: Path) -> Callable[[], Situation]:
    """The reader for this system. Elsewhere than on Linux only the room is known, until the app says more."""
    if sys.platform == "linux":
        return LinuxSituation(folder)
    return lambda: Situation(free_bytes=_free(folder))


class LinuxSituation:
    """Reads a `Situation` at every call. `root`: where /sys, /proc, /etc and /run are, for tests."""

    def __init__(self, folder: Path, *, root: Path = Path("/")) -> None:
        self._folder = folder
        self._root = root

    def __call__(self) -> Situation:
        charging, battery = self._power()
        return Situation(
            unmetered=self._unmetered(),
            charging=charging,
            battery=battery,
            idle=self._idle(),
            free_bytes=_free(self._folder),
            zone=self._zone(),
        )

    def _power(self) -> tuple[bool | None, float | None]:
        # https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-power
        supplies = self._root / "sys/class/power_supply"
        if not supplies.is_dir():
            return None, None
        plugged, charging, levels = False, False, []
        for supply in sorted(supplies.iterdir()):
            if _text(supply / "scope") == "Device":
                continue  # a mouse's battery is not ours
            if _text(supply / "type") == "Battery":
                levels += [int(level)] if (level := _text(supply / "capacity")).isdigit() else []
                charging |= _text(supply / "status") in {"Charging", "Full"}
            else:
                plugged |= _text(supply / "online") in {"1", "2"}
        if not levels:
            return True, None
        return plugged or charging, min(1.0, sum(levels) / len(levels) / 100)

    def _unmetered(self) -> bool | None:
        devices = self._routes()
        if not devices:
            return None
        answers = [self._unmetered_of(device) for device in devices]
        return False if False in answers else (None if None in answers else True)

    def _unmetered_of(self, device: str) -> bool | None:
        place = self._root / "sys/class/net" / device
        stated = self._network_manager(place)
        if stated is not None:
            return stated
        if device.startswith(("ww", "ppp", "rmnet")):
            return False  # a modem
        if (place / "wireless").exists() or (place / "phy80211").exists():
            return None
        return True if _text(place / "type") == _ETHERNET else None

    def _network_manager(self, place: Path) -> bool | None:
        # /run/NetworkManager/devices/<ifindex>; NMMetered: 1 yes, 2 no, 3 guessed yes, 4 guessed no.
        index = _text(place / "ifindex")
        line = _METERED.search(_text(self._root / "run/NetworkManager/devices" / index)) if index else None
        if line is None:
            return None
        return None if line[1] == "0" else line[1].lower() in {"2", "4", "no", "false"}

    def _routes(self) -> set[str]:
        devices = set()
        for line in _text(self._root / "proc/net/route").splitlines()[1:]:
            parts = line.split()
            if len(parts) > 7 and parts[1] == parts[7] == "00000000":  # destination and mask: the default route
                devices.add(parts[0])
        for line in _text(self._root / "proc/net/ipv6_route").splitlines():
            parts = line.split()
            if len(parts) == 10 and parts[1] == "00" and set(parts[0]) == {"0"} and parts[9] != "lo":
                devices.add(parts[9])
        return devices

    def _idle(self) -> bool | None:
        try:
            return float(_text(self._root / "proc/loadavg").split()[0]) < _IDLE_LOAD * (os.cpu_count() or 1)
        except (IndexError, ValueError):
            return None

    def _zone(self) -> str | None:
        named = _text(self._root / "etc/timezone")
        if named:
            return named
        try:
            zone = _ZONE.search(os.readlink(self._root / "etc/localtime"))
        except OSError:
            return None
        return zone[1] if zone else None


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
