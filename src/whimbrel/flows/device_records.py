"""The rows that messages of devices leave behind, as frozen values. Times are POSIX seconds (UTC)."""

from typing import Literal

import msgspec

from whimbrel.health.device_hour import DeviceHour
from whimbrel.health.device_window import DeviceWindow
from whimbrel.health.panel import Value
from whimbrel.health.user_report import Fate


class Participation(msgspec.Struct, frozen=True, kw_only=True):
    """One device in one stage's cohort."""

    rollout: str
    stage: int
    device_id: str
    role: Literal["treated", "control"]
    hardware_class: str = ""
    slices: dict[str, str] = {}
    assigned_at: float
    begun_at: float | None = None  # permitted to fetch; treated devices only
    activated_at: float | None = None  # or about to activate, or took its placebo
    reported_at: float | None = None
    outcome: Literal["", "committed", "went_back", "failed"] = ""
    silence_judged: bool = False
    shadowed_at: float | None = None  # told of the candidate in the shadow
    heard_at: float | None = None  # when the newest report that counts here came in
    gap_s: float = 0.0  # the longest time between two of these
    hearing: Literal["", "heard", "missed", "left"] = ""  # whether a report is due; "": none came yet
    missed_at: float | None = None  # when it was missed last
    used_at: float | None = None  # the first report with a session
    values: dict[str, Value] = {}  # of its tally windows that are over (health/device_window.py), by name
    device_window: DeviceWindow | None = None  # what it told in the newest tally window in which it was heard
    proven: bool = True  # whether it is evidence that moves the rollout (flows/reports/proven.py)


class DeviceAdmission(msgspec.Struct, frozen=True, kw_only=True):
    """How a device came in, as its evidence is weighed. `cohort_key` None: the server drew none, its id stands in."""

    device_id: str
    cohort_key: str | None
    admission: Literal["shared", "single_use", "attested", "person"]
    admitted_at: float


class EnrolmentRates(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices a shared token let in: in the last hour, and in the busiest one of the two weeks before it.

    `enrolled_before`: all devices that were enrolled before the last hour. `newest`: the last that came in.
    """

    last_hour: int
    busiest_hour: int
    enrolled_before: int
    newest: str


class SilenceLook(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one group that were due at a look, and how many of them were silent. `proven`: as of their places."""

    stage: int
    role: Literal["treated", "control"]
    hardware_class: str
    slices: dict[str, str]
    due: int
    overdue: int
    age_bucket: int
    proven: bool = True


class UserReportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket, and what became of it. It names a device, or else a serial. `at`: when the trouble was."""

    ticket: str
    model: str
    device_id: str | None
    serial: int | None
    at: float
    text: str = ""
    fate: Fate = "waiting"
    decided_at: float | None = None


class HeardDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device was heard. `labels` None: it said nothing of them."""

    device_id: str
    at: float
    labels: dict[str, str] | None = None


class RunningVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says that it runs of a model."""

    device_id: str
    model: str
    serial: int | None
    hardware_class: str
    at: float


class FollowedModels(msgspec.Struct, frozen=True, kw_only=True):
    """All models that a device says it follows, at `at`."""

    device_id: str
    models: tuple[str, ...]
    at: float


class SequenceMark(msgspec.Struct, frozen=True):
    """How far the windows of an installation are tallied: one folder of one agent, from one boot to the next (epoch).

    `last`: the newest number. `at`: when it was heard. `digests`: of the newest windows, by their last number. `hours`:
    what the device told of each version in the newest hour, by model and serial.
    """

    last: int
    at: float = 0.0  # 0: before times were noted
    digests: dict[int, str] = {}
    hours: dict[str, dict[int, DeviceHour]] = {}


class DeviceMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a device, as it lies in the inbox."""

    namespace: str
    device_id: str
    kind: Literal["announce", "reports"]
    body: bytes  # JSON of an Announcement or a Batch, checked at the edge
    at: float
