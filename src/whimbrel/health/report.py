"""The reports of a device: announcements before it acts, and windows that sum up its sessions. The wire types.

1. A device says what it is about to do before it does it, so that a device that dies of an update is missed.
2. A window is frozen once it was sent; it carries the sequence numbers [first, last] that it stands for, and counts
   once by (device, epoch, sequence). The epoch is random for each installation.
3. At most one crash a device and window: repeated crashes of one device are not independent events.
"""

from typing import Annotated, Literal

from msgspec import Meta

from whimbrel import limits
from whimbrel.health.run_history import RunHistoryPart
from whimbrel.health.shadow import Buckets, Count, ShadowSums
from whimbrel.model.documents import Document
from whimbrel.model.ids import END, ONE_LINE_PATTERN, ONE_LINE_WORDS, Label, LabelValue, Name, Serial
from whimbrel.model.patterns import matching

Finite = Annotated[float, Meta(ge=-1e15, le=1e15)]
HardwareClass = LabelValue
Bin = Annotated[int, Meta(ge=0, lt=limits.REFERENCE_BINS)]  # of predictions, as the version's reference cuts them
Slices = Annotated[dict[Label, LabelValue], Meta(max_length=limits.SLICE_LABELS)]  # the model's `slice_labels`
WaitsFor = Annotated[str, matching(ONE_LINE_PATTERN, ONE_LINE_WORDS, max_length=limits.WAITING_CHARS)]  # a line
Stage = Annotated[int, Meta(ge=0, lt=limits.STAGES)]
Role = Literal["treated", "control"]

WayName = Literal["delta", "chain", "compressed", "whole"]  # how bytes came, the cheapest first
ERROR_RATE = "error_rate"  # errors an inference: told by every window, as a metric is
Step = Literal[
    "assigned", "begun", "activating", "activated", "committed", "went_back", "failed", "placebo", "shadowing"
]


class Cohort(Document, frozen=True):
    """A group that a window counts in: `age_s` is the time since the device activated, or took its placebo.

    `before`: means of metrics over its windows before it was assigned, where the policy asks for them.
    """

    rollout: Name
    stage: Stage
    role: Role
    age_s: Annotated[float, Meta(ge=0, le=1e10)]
    before: Annotated[dict[Label, Finite], Meta(max_length=limits.BEFORE)] = {}


class Summary(Document, frozen=True):
    """n values, their sum, the sum of their squares, and the highest (None of one value, and where an agent is old)."""

    n: Count
    sum: Finite
    sumsq: Annotated[float, Meta(ge=0, le=1e30)]
    most: Finite | None = None

    def plus(self, other: "Summary") -> "Summary":
        """Both together."""
        one, two = self.peak, other.peak
        most = None if one is None or two is None else max(one, two)
        return Summary(n=self.n + other.n, sum=self.sum + other.sum, sumsq=self.sumsq + other.sumsq, most=most)

    @property
    def peak(self) -> float | None:
        """The highest of the values; None where it was not told."""
        return self.sum if self.n == 1 and self.most is None else self.most

    @classmethod
    def of(cls, value: float) -> "Summary":
        """One value."""
        return cls(n=1, sum=value, sumsq=value * value)


class Window(Document, frozen=True):
    """What a device saw of one model since its last window."""

    model: Name
    serial: Serial | None  # None: it runs no version of the model
    first: Annotated[int, Meta(ge=1, le=2**53)]
    last: Annotated[int, Meta(ge=1, le=2**53)]
    hardware_class: HardwareClass = ""
    slices: Slices = {}
    cohorts: Annotated[tuple[Cohort, ...], Meta(max_length=limits.STAGES)] = ()
    sessions: Count = 0
    crashed: Annotated[int, Meta(ge=0, le=1)] = 0
    inferences: Count = 0
    errors: Count = 0
    metrics: Annotated[dict[Label, Summary], Meta(max_length=64)] = {}
    latency: Buckets = {}
    shadow: ShadowSums | None = None  # of the version that is tried beside `serial`
    predictions: Annotated[dict[Bin, Count], Meta(max_length=limits.REFERENCE_BINS)] = {}

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError(f"a window's first sequence {self.first} comes after its last {self.last}")
        if self.errors > self.inferences:
            raise ValueError(f"{self.errors} errors in {self.inferences} inferences")

    @property
    def used(self) -> bool:
        """Whether anybody used the model: what crashed or ran was in use, whichever window its session is told in."""
        return bool(self.sessions or self.crashed or self.inferences)

    def means(self) -> dict[str, float]:
        """One value a metric: its mean in this window; `error_rate` too, unless the app has a metric of that name."""
        means = {ERROR_RATE: self.errors / self.inferences} if self.inferences else {}
        return means | {name: metric.sum / metric.n for name, metric in self.metrics.items() if metric.n}


class Build(Document, frozen=True):
    """The build of a model that a device runs: of which version, its budgets, and what its probe measured there."""

    serial: Serial
    variant: Name
    latency_ms_max: Annotated[float, Meta(gt=0)] | None = None
    memory_mib_max: Annotated[float, Meta(gt=0)] | None = None
    latency_ms: Annotated[float, Meta(ge=0)] | None = None
    memory_mib: Annotated[float, Meta(ge=0)] | None = None


class Batch(Document, frozen=True):
    """The body of POST reports: one installation's windows, in order; only the labels that policies ask for.

    `models`: all that the device follows now; an old agent, which leaves them out, says nothing of them.
    `waiting`: what holds the next version of a model up, in words ("": nothing any more); only what has changed.
    `builds`: the build that runs, by model; only what has changed. `runs`: the version that a model runs now (None:
    none), where its newest window here is of another one. `run_history`: what is new in its signed log of versions.
    """

    epoch: Annotated[str, matching("^[0-9a-f]{16,64}" + END, "16 to 64 lower-case hexadecimal digits")]
    windows: Annotated[tuple[Window, ...], Meta(max_length=256)] = ()
    labels: Annotated[dict[Label, LabelValue], Meta(max_length=limits.LABELS)] = {}
    models: Annotated[tuple[Name, ...], Meta(max_length=limits.DEVICE_MODELS)] = ()
    waiting: Annotated[dict[Name, WaitsFor], Meta(max_length=limits.DEVICE_MODELS)] = {}
    builds: Annotated[dict[Name, Build], Meta(max_length=limits.DEVICE_MODELS)] = {}
    runs: Annotated[dict[Name, Serial | None], Meta(max_length=limits.DEVICE_MODELS)] = {}
    run_history: RunHistoryPart | None = None

    def __post_init__(self) -> None:
        last = 0
        for window in self.windows:
            if window.first <= last:
                raise ValueError(f"window {window.first} does not come after {last}")
            last = window.last


class Announcement(Document, frozen=True):
    """The body of POST announce: one step of one device in one cohort (or, with no rollout, outside of any).

    Idempotent: the same step said again changes nothing. `serial`: the version that the step is about; of `failed` and
    `went_back` it is the one that was refused or left. What the device runs is told by `activated` (None: nothing) and
    `committed`, also after it went back.
    """

    model: Name
    step: Step
    serial: Serial | None = None
    rollout: Name | None = None
    stage: Stage = 0
    role: Role = "treated"
    hardware_class: HardwareClass = ""
    slices: Slices = {}
    reason: Annotated[str, Meta(max_length=2000)] = ""
    bytes_moved: Count = 0
    moved_by: dict[WayName, Count] = {}  # the same bytes, by the way that they were for
