"""What does a device measure by itself while a model is in use? Metrics of a session, under names that plans know.

| metric | what | from |
|---|---|---|
| `memory_mb` | the most memory that the process held since it began, in 10^6 bytes | getrusage |
| `cpu_s` | processor seconds of the process while the session was open, all threads | the process's clock |
| `temperature_c` | the hottest zone at the session's end | /sys/class/thermal |
| `battery` | percent of a full charge an hour, at the session's end, while it discharges | /sys/class/power_supply |

1. An app's own value of a name goes before this one.
2. /sys is read once in `limits.SENSORS_EVERY_S`, by the session that ends then: some drivers take milliseconds.
3. What cannot be measured here has its reason in the status, and no metric: a missing value is no zero.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from whimbrel import limits

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MB = 1_000_000
_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB elsewhere
_COLDEST_C, _HOTTEST_C = -60.0, 200.0  # what a sensor that is not connected says lies outside


class Begun(msgspec.Struct, frozen=True):
    """What a session remembers of its start."""

    cpu_s: float


class SelfMeasures:
    """The measures of one process. `root`: where /sys is, for tests."""

    def __init__(self, *, root: Path = Path("/")) -> None:
        self._zones = root / "sys/class/thermal"
        self._supplies = root / "sys/class/power_supply"
        self._next_read = 0.0  # on the monotonic clock

    def begin(self) -> Begun:
        """At a session's start."""
        return Begun(cpu_s=time.process_time())

    def end(self, begun: Begun) -> dict[str, float]:
        """At a session's end: what could be measured, by the metric's name."""
        measured = {"cpu_s": max(0.0, time.process_time() - begun.cpu_s)}
        memory_mb = peak_memory_mb()
        if memory_mb is not None:
            measured["memory_mb"] = memory_mb
        now = time.monotonic()
        if now < self._next_read:
            return measured
        self._next_read = now + limits.SENSORS_EVERY_S
        sensors = {"temperature_c": self._temperature_c(), "battery": self._drain_percent_an_hour()}
        return measured | {name: value for name, value in sensors.items() if value is not None}

    def not_measured(self) -> Mapping[str, str]:
        """What cannot be measured here, and why."""
        reasons = {}
        if peak_memory_mb() is None:
            reasons["memory_mb"] = "this system does not tell a process its memory"
        if self._temperature_c() is None:
            reasons["temperature_c"] = "no sensor in /sys/class/thermal"
        if not (batteries := self._batteries()):
            reasons["battery"] = "no battery in /sys/class/power_supply"
        elif all(_share_an_hour(battery) is None for battery in batteries):
            reasons["battery"] = "the battery tells neither its power nor its current"
        return reasons

    def _temperature_c(self) -> float | None:
        # https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-thermal: thousandths of a degree
        degrees = [
            value / 1000
            for zone in _folders(self._zones, "thermal_zone")
            if (value := _number(zone / "temp")) is not None and _COLDEST_C < value / 1000 < _HOTTEST_C
        ]
        return max(degrees, default=None)

    def _drain_percent_an_hour(self) -> float | None:
        batteries = self._batteries()
        if not batteries or not any(_text(battery / "status") == "Discharging" for battery in batteries):
            return None
        shares = [share for battery in batteries if (share := _share_an_hour(battery)) is not None]
        return 100 * sum(shares) / len(batteries) if shares else None

    def _batteries(self) -> list[Path]:
        supplies = _folders(self._supplies, "")
        return [each for each in supplies if _text(each / "type") == "Battery" and _text(each / "scope") != "Device"]


def peak_memory_mb() -> float | None:
    """The most that this process held, in 10^6 bytes; None where the system does not tell."""
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES / _MB


def _share_an_hour(battery: Path) -> float | None:
    # https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-class-power: microwatts and microwatt hours, or
    # microamperes and microampere hours; some drivers give a current that flows out a negative sign.
    for flow, full in (("power_now", "energy_full"), ("current_now", "charge_full")):
        now, whole = _number(battery / flow), _number(battery / full)
        if now is not None and whole is not None and whole > 0:
            return abs(now) / whole
    return None


def _folders(place: Path, prefix: str) -> list[Path]:
    try:
        return sorted(each for each in place.iterdir() if each.name.startswith(prefix))
    except OSError:
        return []


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
