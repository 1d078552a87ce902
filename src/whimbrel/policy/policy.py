"""Who should run what, now? The policy: one document that starts, advances, holds or takes back a rollout.

Signed online; TUF target `policy/<model>.json`. `decide` reads it on the device, on the server and in the simulator.
"""

from collections.abc import Mapping, Set
from itertools import pairwise
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import END, DeviceId, Label, LabelValue, Name, Serial
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.patterns import matching
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.shadow import Shadow

Bucket = Annotated[int, Meta(ge=0, le=BUCKETS)]
RolloutId = Name
SliceLabels = Annotated[tuple[Label, ...], Meta(max_length=limits.SLICE_LABELS)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[str, ...] = get_args(Day)
Period = Annotated[float, Meta(ge=0.1, le=30 * 86400)]  # seconds between refreshes or reports
Delays = Annotated[tuple[Annotated[float, Meta(ge=0, le=limits.DELAY_S)], ...], Meta(max_length=limits.DELAYS)]
PERIOD_S = 300.0  # between refreshes, and between reports, where nothing else is said
ACTIVATE_MAX_AGE_S = 3600.0  # of the policy that an activation goes by, where nothing else is said
ZONE_PATTERN = r"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}" + END
ZONE_WORDS = "UTC, local, or a zone such as Europe/Oslo"


class Window(Document, frozen=True):
    """A part of the day in a time zone: [start_s, end_s) seconds after local midnight, on the days on which it begins.

    An end before the start is on the next day. `zone` is an IANA name; "local" is the device's own.
    """

    start_s: Annotated[int, Meta(ge=0, le=86400)]
    end_s: Annotated[int, Meta(ge=0, le=86400)]
    zone: Annotated[str, matching(ZONE_PATTERN, ZONE_WORDS)] = "UTC"
    days: Annotated[tuple[Day, ...], Meta(max_length=7)] = ()  # none: every day


# The bounds of conditions. A change of a model's settings (flows/records.py) has the same.
BatteryMin = Annotated[float, Meta(ge=0, le=1)] | None
WindowUtc = tuple[Annotated[int, Meta(ge=0, le=86400)], Annotated[int, Meta(ge=0, le=86400)]] | None
Windows = Annotated[tuple[Window, ...], Meta(max_length=limits.WINDOWS)]
Mebibytes = Annotated[int, Meta(ge=0, le=2**40)] | None
StartJitter = Annotated[float, Meta(ge=0, le=7 * 86400)]  # seconds


class Conditions(Document, frozen=True):
    """When a device may fetch and activate. An absent field asks for nothing. One of the `windows` is enough.

    `storage_mib_min`: free room beyond the version's own. `metered_mib_a_day`: fetched on a metered network at most.
    """

    unmetered: bool = False
    charging: bool = False
    battery_min: BatteryMin = None  # charging satisfies it too
    idle: bool = False
    window_utc: WindowUtc = None
    windows: Windows = ()
    storage_mib_min: Mebibytes = None
    metered_mib_a_day: Mebibytes = None
    start_jitter_s: StartJitter = 0


class Arm(Document, frozen=True):
    """Buckets [start, end) of an entry, and the version that they run. `stage` names the cohort.

    A `control` arm runs the baseline; a device may be a control of several stages at once, and is treated at most once.
    `conditions` replace the policy's for this arm's devices; a stage's control has the same as its treated arm.
    A treated arm with `shadow` runs the baseline too, and tries its serial beside the baseline.
    """

    role: Literal["treated", "control"]
    name: Name
    stage: Annotated[int, Meta(ge=0, lt=limits.STAGES)]
    serial: Serial
    start: Bucket
    end: Bucket
    selector: Selector = EVERYONE
    conditions: Conditions | None = None
    shadow: Shadow | None = None

    def __post_init__(self) -> None:
        if self.shadow is not None and self.role == "control":
            raise ValueError(f"arm {self.name!r} is a control, and nothing is tried beside what a control runs")
        if self.start > self.end:
            raise ValueError(f"arm {self.name!r} starts at bucket {self.start}, after its end {self.end}")


class Entry(Document, frozen=True):
    """A rollout or an experiment: its devices and its arms.

    Its devices are those of `selector` whose bucket lies in [start, end); so entries share a layer.
    `before`: metrics whose mean from before the assignment a device reports.
    `delays_s`: how long treated devices take from their permission to their activation, as quantiles. Each control
    draws its own delay from them before its placebo (policy/delays.py). Empty: placebos are taken at once.
    `delays_by_class`: the same for devices of a hardware class that takes another time.
    `bucket_by`: the label by whose value a device falls into a bucket, so that the devices of one person agree; a
    device without a value is none of its devices. None: each device for itself.
    """

    rollout: RolloutId
    arms: Annotated[tuple[Arm, ...], Meta(max_length=limits.ARMS)]
    selector: Selector = EVERYONE
    start: Bucket = 0
    end: Bucket = BUCKETS
    before: Annotated[tuple[Label, ...], Meta(max_length=limits.BEFORE)] = ()
    delays_s: Delays = ()
    delays_by_class: Annotated[dict[LabelValue, Delays], Meta(max_length=limits.DELAY_CLASSES)] = {}
    bucket_by: Label | None = None

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise ValueError(f"entry {self.rollout!r} starts at bucket {self.start}, after its end {self.end}")
        for delays in (self.delays_s, *self.delays_by_class.values()):
            if any(one > other for one, other in pairwise(delays)):
                raise ValueError("delays_s are quantiles: none may be below the one before it")

    def delays_of(self, hardware_class: str) -> tuple[float, ...]:
        """The delays that a control of this hardware class draws from."""
        return self.delays_by_class.get(hardware_class, self.delays_s)

    def arm_of(self, *, role: str, stage: int) -> Arm | None:
        """The arm of a stage, by its role."""
        return next((arm for arm in self.arms if (arm.role, arm.stage) == (role, stage)), None)


class Layer(Document, frozen=True):
    """Entries that share one division of the devices into buckets. The salt stays while the layer has entries."""

    salt: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    entries: Annotated[tuple[Entry, ...], Meta(max_length=limits.ENTRIES)] = ()


class Quarantine(Document, frozen=True):
    """A version that the devices of `selector` refuse."""

    serial: Serial
    selector: Selector = EVERYONE


class Pin(Document, frozen=True):
    """Devices that run `serial` whatever the layers say: by selector, or by id (for a desk, not for a fleet)."""

    serial: Serial
    selector: Selector | None = None
    devices: Annotated[tuple[DeviceId, ...], Meta(max_length=limits.PINS)] = ()

    def __post_init__(self) -> None:
        if (self.selector is None) == (not self.devices):
            raise ValueError("a pin names either a selector or device ids")


class SetLead(Document, frozen=True):
    """`serial` came in a set that serial `lead_serial` of `model` led: a device of both has it only beside that version
    of `model`, or a later one."""

    serial: Serial
    model: Name
    lead_serial: Serial


class Policy(Document, frozen=True, tag_field="format", tag="whimbrel-policy-1"):
    """Who runs which serial of `model`. Without a `baseline` only arms and pins offer one. The sequence only grows."""

    model: Name
    sequence: Annotated[int, Meta(ge=1, le=limits.SEQUENCE_MAX)]
    baseline: Serial | None = None
    known_good: Annotated[tuple[Serial, ...], Meta(max_length=64)] = ()  # versions to go back to, newest first
    layers: Annotated[tuple[Layer, ...], Meta(max_length=limits.LAYERS)] = ()
    quarantine: Annotated[tuple[Quarantine, ...], Meta(max_length=1000)] = ()
    overrides: Annotated[
        tuple[Serial, ...], Meta(max_length=1000)
    ] = ()  # a person wants these tried again where they failed
    pins: Annotated[tuple[Pin, ...], Meta(max_length=1000)] = ()
    conditions: Conditions = msgspec.field(default_factory=Conditions)
    on_revoked: Literal["keep", "stop"] = "keep"
    refresh_s: Period = PERIOD_S
    report_s: Period = PERIOD_S
    activate_max_age_s: Annotated[float, Meta(ge=1)] = ACTIVATE_MAX_AGE_S
    report_labels: Annotated[tuple[Label, ...], Meta(max_length=limits.LABELS)] = ()
    hardware_label: Label = "hardware"  # the label whose value is a device's hardware class
    slice_labels: SliceLabels = ()  # further labels that devices report, by which harm is searched (os, region)
    set_leads: Annotated[tuple[SetLead, ...], Meta(max_length=limits.SET_LEADS)] = ()
    local_limits: LocalLimits | None = None  # over those of the release: by them each device decides alone

    def __post_init__(self) -> None:
        if sum(len(pin.devices) for pin in self.pins) > limits.PINS:
            raise ValueError(f"pins name more than {limits.PINS} devices; use a selector")

    @property
    def private_labels(self) -> frozenset[str]:
        """The labels by which devices fall into buckets: a device tells none of them, whatever asks for it."""
        entries = (entry for layer in self.layers for entry in layer.entries)
        return frozenset(entry.bucket_by for entry in entries if entry.bucket_by is not None)

    def reported_labels(self, labels: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """What a device with `labels` reports of itself in windows: its hardware class, and its slices by label."""
        told = without(labels, self.private_labels)
        return told.get(self.hardware_label, ""), {label: told[label] for label in self.slice_labels if label in told}

    def conditions_of(self, rollout: str | None, *, role: str, stage: int) -> Conditions:
        """When a device of an arm may fetch and activate: the arm's own conditions, or the policy's."""
        entries = (entry for layer in self.layers for entry in layer.entries if entry.rollout == rollout)
        arm = next((arm for entry in entries if (arm := entry.arm_of(role=role, stage=stage))), None)
        return self.conditions if arm is None or arm.conditions is None else arm.conditions


def without(labels: Mapping[str, str], private: Set[str]) -> Mapping[str, str]:
    """The labels but for those that are private."""
    return {name: value for name, value in labels.items() if name not in private} if private else labels
