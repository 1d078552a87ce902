"""What the flows about devices ask of the database, within one transaction. `stores/inventory` has the adapter."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from whimbrel.flows.device_records import FollowedModels
from whimbrel.flows.devices.records import (
    BuildOnDevice,
    DeviceAccess,
    DeviceFilter,
    DevicePortion,
    DeviceRecord,
    DuplicateIdentity,
    EnrolledDevice,
    EnrolTokenRecord,
    ModelOnDevice,
    RunBranch,
    RunRow,
    Waiting,
)


class AccessPort(Protocol):
    """Which devices may speak."""

    def access(self, devices: Sequence[str]) -> dict[str, DeviceAccess]: ...
    def set_access(self, entry: DeviceAccess) -> None: ...


class EnrolmentPort(Protocol):
    """How devices are known again, and the tokens that let new ones in."""

    def known(self, device_id: str, *, lock: bool = False) -> EnrolledDevice | None: ...
    def save(self, device: EnrolledDevice, *, labels: dict[str, str] | None, at: float) -> None: ...
    def token(self, secret: str) -> EnrolTokenRecord | None: ...
    def use_token(self, secret: str, *, uses_max: int | None, minute: int, minute_uses: int) -> bool: ...


class FollowedPort(Protocol):
    """Which models devices follow."""

    def note_followed(self, *told: FollowedModels) -> None: ...


class ObservedPort(AccessPort, Protocol):
    """What is noted of devices while their messages are taken."""

    def note_waiting(self, *waiting: Waiting) -> None: ...
    def note_builds(self, *builds: BuildOnDevice) -> None: ...
    def duplicate(self, device_id: str) -> DuplicateIdentity | None: ...
    def save_duplicate(self, entry: DuplicateIdentity) -> None: ...


class RunHistoryPort(Protocol):
    """The run histories of devices. They stay when a device is removed."""

    def branches(self, device_id: str) -> list[RunBranch]: ...
    def public_key(self, device_id: str) -> str | None: ...
    def rows(self, device_id: str, *, first: int, last: int) -> list[RunRow]: ...
    def save(self, branch: RunBranch, rows: Sequence[RunRow]) -> None: ...


class InventoryPort(Protocol):
    """The enrolled devices, to be looked at."""

    def device(self, device_id: str) -> DeviceRecord: ...
    def look(self, asked: DeviceFilter, *, after: str, limit: int) -> DevicePortion: ...
    def models_of(self, devices: Sequence[str]) -> list[ModelOnDevice]: ...


class GovernedPort(AccessPort, Protocol):
    """The enrolled devices, to be changed."""

    def device(self, device_id: str) -> DeviceRecord: ...
    def admit(self, device_id: str, *, at: float) -> None: ...
    def set_operator_labels(self, device_id: str, labels: Mapping[str, str]) -> None: ...
    def expect_no_report(self, device_id: str, *, rollouts: Sequence[str]) -> None: ...
    def remove(self, device_id: str, *, rollouts: Sequence[str]) -> int: ...
