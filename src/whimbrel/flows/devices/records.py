"""What the inventory keeps of devices, besides what the fleet needs to count them."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from whimbrel.health.report import Build
from whimbrel.model.selector import EVERYONE, Selector

AccessState = Literal["open", "blocked", "removed"]


class DeviceAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What a device that was once blocked or removed may do now. Any other device is open.

    `since`: when it came to be so. `not_before`: a token from before this time is over, since the device was removed.
    """

    device_id: str
    state: AccessState
    since: float
    not_before: float = 0.0
    because: str = ""
    actor: str = ""


class ModelOnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What a device runs of a model, as it says. `serial` None: no version yet. `since`: when that was first heard.

    `waits_for`: what holds the next version up, in the device's words; "" for nothing. `build`: of what it runs, where
    it said so.
    """

    device_id: str
    model: str
    serial: int | None
    since: float | None
    at: float
    waits_for: str = ""
    waits_told_at: float | None = None
    build: Build | None = None


class BuildOnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The build of a model that a device says it runs."""

    device_id: str
    model: str
    build: Build


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says that it waits for with a model; "": for nothing any more."""

    device_id: str
    model: str
    waits_for: str
    at: float


class DuplicateIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Two installations report with one device id. `noticed_at` None: there are too few signs to say so."""

    device_id: str
    signs: int
    first_at: float
    last_at: float
    noticed_at: float | None = None
    because: str = ""


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled device. `labels`: those that it told; `operator_labels`: those that people gave it."""

    device_id: str
    labels: dict[str, str]
    operator_labels: dict[str, str]
    enrolled_at: float
    heard_at: float
    access: DeviceAccess | None = None
    duplicate: DuplicateIdentity | None = None  # that was noticed

    @property
    def is_blocked(self) -> bool:
        """Whether its messages are refused."""
        return self.access is not None and self.access.state == "blocked"


def all_labels(labels: Mapping[str, str], operator_labels: Mapping[str, str]) -> dict[str, str]:
    """What a filter looks at. Where both name a label, the device's own word holds: its decisions go by that."""
    return {**operator_labels, **labels}


class DeviceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices are asked for; all conditions must hold.

    `model`: it follows this model. `runs`: it runs one of these serials of it (None: no version). `heard_before`: it
    was not heard since.
    """

    selector: Selector = EVERYONE
    model: str | None = None
    runs: tuple[int | None, ...] | None = None
    heard_before: float | None = None
    blocked: bool = False
    duplicate: bool = False


class DevicePortion(msgspec.Struct, frozen=True):
    """The devices that match among those that were looked at, by id. `last`: the last id that was looked at."""

    devices: list[DeviceRecord]
    looked_at: int
    last: str
