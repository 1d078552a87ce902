"""The rows of the registry as frozen values, and what they say of themselves. Times are POSIX seconds (UTC)."""

from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whimbrel import limits
from whimbrel.health.report import Role
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label
from whimbrel.model.local_limits import LocalLimits
from whimbrel.model.provenance import ModelSigner
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.plan.experiment import Experiment, ExperimentVariant
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.objectives import Anomalies, Objectives, check_objectives, refuse_wrong_side
from whimbrel.plan.plan import Plan
from whimbrel.plan.ranges import Range
from whimbrel.plan.rehearsal import rehearsed_s
from whimbrel.plan.rollout_states import ENDED, LIVE, State
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import (
    ACTIVATE_MAX_AGE_S,
    PERIOD_S,
    BatteryMin,
    Conditions,
    Mebibytes,
    Period,
    Policy,
    SliceLabels,
    StartJitter,
    Windows,
    WindowUtc,
)

ActivateMaxAge = Annotated[float, Meta(ge=1)]  # seconds
OnRevoked = Literal["keep", "stop"]
ROLLOUT_REFRESH_S = 30.0  # "within seconds": a device hears of a way back in 15 s on average
SecondPersonAbove = Annotated[float, Meta(ge=0, le=100)] | None  # percent of the devices
WATCHED_AFTER_HOURS = 24  # after a rollout ended, devices refresh as often as while it was live, for so long
SizeBudget = Annotated[int, Meta(gt=0)] | None  # bytes
DeltaBases = Annotated[int, Meta(ge=0, le=64)]


class ModelSettings(Document, frozen=True):
    """What an operator may set for a model; it travels in the policy, or is checked at publication."""

    refresh_s: Period = PERIOD_S
    rollout_refresh_s: Period = ROLLOUT_REFRESH_S  # while something rolls out, and for a day after it, if it is less
    report_s: Period = PERIOD_S
    activate_max_age_s: ActivateMaxAge = ACTIVATE_MAX_AGE_S
    conditions: Conditions = msgspec.field(default_factory=Conditions)
    report_labels: tuple[Label, ...] = ()
    hardware_label: Label = "hardware"
    slice_labels: SliceLabels = ()
    on_revoked: OnRevoked = "keep"
    size_bytes_max: SizeBudget = None  # publish-time budget: of the largest variant
    delta_bases: DeltaBases = limits.DELTA_BASES  # newest earlier versions with a direct patch
    metrics_min: dict[Label, float] = {}  # publish-time budget: floors of metrics
    local_limits: LocalLimits | None = None  # by which each device decides alone; over those of the release
    objectives: Objectives = ()  # what every version must keep while it runs
    anomalies: Anomalies = "alert"  # what follows where a version departs from its past, or from those beside it
    second_person_above_percent: SecondPersonAbove = None  # what a rollout may reach by one person's word; None: all
    model_signer: ModelSigner | None = None  # whose model signature every version must have; None: nobody's
    sealed: bool = False  # whether its artifacts are published as age files alone
    sealed_for: Selector = EVERYONE  # the devices that get the keys of its releases, by labels that the server gives

    def __post_init__(self) -> None:
        check_objectives(self.objectives)


class NewConditions(Document, frozen=True):
    """A change of `Conditions`: the fields that are set replace the model's own, and the others stay.

    A condition that is set to its default (false, null, no window, 0) is asked for no more.
    """

    unmetered: bool | UnsetType = UNSET
    charging: bool | UnsetType = UNSET
    battery_min: BatteryMin | UnsetType = UNSET
    idle: bool | UnsetType = UNSET
    window_utc: WindowUtc | UnsetType = UNSET
    windows: Windows | UnsetType = UNSET
    storage_mib_min: Mebibytes | UnsetType = UNSET
    metered_mib_a_day: Mebibytes | UnsetType = UNSET
    start_jitter_s: StartJitter | UnsetType = UNSET


class NewSettings(Document, frozen=True):
    """A change of `ModelSettings`: the fields that are set replace the model's own, and the others stay.

    So do the conditions: one that is set leaves the other conditions as they are.
    """

    refresh_s: Period | UnsetType = UNSET
    rollout_refresh_s: Period | UnsetType = UNSET
    report_s: Period | UnsetType = UNSET
    activate_max_age_s: ActivateMaxAge | UnsetType = UNSET
    conditions: NewConditions | UnsetType = UNSET
    report_labels: tuple[Label, ...] | UnsetType = UNSET
    hardware_label: Label | UnsetType = UNSET
    slice_labels: SliceLabels | UnsetType = UNSET
    on_revoked: OnRevoked | UnsetType = UNSET
    size_bytes_max: SizeBudget | UnsetType = UNSET
    delta_bases: DeltaBases | UnsetType = UNSET
    metrics_min: dict[Label, float] | UnsetType = UNSET
    local_limits: LocalLimits | UnsetType | None = UNSET
    objectives: Objectives | UnsetType = UNSET
    anomalies: Anomalies | UnsetType = UNSET
    second_person_above_percent: SecondPersonAbove | UnsetType = UNSET
    model_signer: ModelSigner | UnsetType | None = UNSET
    sealed: bool | UnsetType = UNSET
    sealed_for: Selector | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not isinstance(self.objectives, UnsetType):
            check_objectives(self.objectives)
            refuse_wrong_side(self.objectives)


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its settings, its layer's salt, and what runs where no rollout says otherwise."""

    namespace: str
    name: str
    created_at: float
    salt: int
    settings: ModelSettings
    baseline: int | None = None


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A publication. `good`: it has been a baseline, so devices may go back to it."""

    namespace: str
    model: str
    serial: int
    version: str
    semantic_version: str
    build_hash: str
    created_at: float
    size_bytes: int
    retired: bool = False
    good: bool = False


class Comparison(Protocol):
    """What rollouts and experiments have in common: devices in two roles, which report, are counted and are judged.

    A `stage` is a rollout's stage, or the place of an experiment's treated arm.
    """

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def hour_s(self) -> float: ...
    @property
    def created_at(self) -> float: ...
    @property
    def title(self) -> str: ...
    @property
    def range(self) -> Range: ...
    @property
    def salt(self) -> int | None: ...
    @property
    def bucket_label(self) -> str | None: ...
    @property
    def guard_plans(self) -> tuple[Plan, ...]: ...
    @property
    def compared_metrics(self) -> tuple[str, ...]: ...
    @property
    def control_stage(self) -> int: ...
    @property
    def delays(self) -> tuple[float, ...]: ...
    @property
    def delays_by_class(self) -> dict[str, tuple[float, ...]]: ...
    @property
    def window_s(self) -> float: ...
    @property
    def learns_delays(self) -> bool: ...
    def window_at(self, at: float) -> int: ...
    def serial_of(self, role: Role, stage: int) -> int | None: ...
    def shadow_serial(self, stage: int) -> int | None: ...
    def has_arm(self, stage: int) -> bool: ...
    def holds(self, bucket: int, *, stage: int, role: Role) -> bool: ...


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A plan's progress. `shares`: the bucket where each stage's share ends, for those entered so far.

    `ended_at`: when it lost its say in the policy, or was taken back after that. `state_since`: when its state became
    what it is. `override`: a person's reason to offer a version again that was taken back. `baseline` None: nothing ran
    before, so that devices which are not treated run no version, and nobody is a control. `lead`: the rollout of the
    set that it moves with, "" where it moves itself; `members`: the rollouts that move with it; `salt`: of its layer,
    where that is its lead's. `started_by`: the account that wrote it down; "" where it is older than accounts.
    """

    namespace: str
    id: str
    model: str
    baseline: int | None
    target: int
    plan: Plan
    state: State
    stage: int
    shares: tuple[int, ...]
    hour_s: float
    created_at: float
    stage_since: float
    because: str
    ended_at: float | None = None
    without: tuple[str, ...] = ()  # slices that went back
    delays: tuple[float, ...] = ()  # seconds that treated devices take, as told to the controls
    delays_by_class: dict[str, tuple[float, ...]] = {}  # the same of hardware classes that take their own time
    state_since: float = 0.0
    override: str = ""
    lead: str = ""
    members: tuple[str, ...] = ()
    salt: int | None = None
    started_by: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ENDED

    @property
    def live(self) -> bool:
        """Whether it still has a say in the policy."""
        return self.state in LIVE

    @property
    def title(self) -> str:
        """Its kind and name, as a sentence says them."""
        return f"rollout {self.id}"

    @property
    def range(self) -> Range:
        """Its buckets of the model's layer; all of them, where it divides the devices by its lead's salt."""
        return self.plan.range if self.salt is None else Range()

    @property
    def bucket_label(self) -> str | None:
        """None: each device falls into a bucket for itself."""
        return None

    @property
    def guard_plans(self) -> tuple[Plan, ...]:
        """The plans by which a gate judges its treated devices."""
        return (self.plan,)

    @property
    def compared_metrics(self) -> tuple[str, ...]:
        """Metrics of which each device has one value, compared between the arms: only experiments have some."""
        return ()

    @property
    def control_stage(self) -> int:
        """A stage in which every control device is counted."""
        return self.stage

    @property
    def learns_delays(self) -> bool:
        """Whether its treated devices fetch a version, so that its controls must wait as long."""
        return True

    @property
    def window_s(self) -> float:
        """The seconds of a tally window, shortened where it is a rehearsal."""
        return rehearsed_s(self.plan.window_s(), hour_s=self.hour_s)

    def window_at(self, at: float) -> int:
        """The number of the tally window that is open at `at`."""
        return max(0, int((at - self.created_at) // self.window_s))

    def serial_of(self, role: Role, stage: int) -> int | None:  # noqa: ARG002 (an experiment's depends on it)
        """The version that the devices in `role` run; None: none."""
        return self.target if role == "treated" else self.baseline

    def shadow_serial(self, stage: int) -> int | None:
        """The version that treated devices of `stage` try in the shadow; None where they run what they are in."""
        return self.target if self.plan.stages[stage].shadow is not None else None

    def has_arm(self, stage: int) -> bool:
        """Whether it has entered this stage."""
        return stage < len(self.shares)

    def holds(self, bucket: int, *, stage: int, role: Role) -> bool:
        """Whether a device in `bucket` may say that it is in this arm."""
        if not self.has_arm(stage):
            return False
        if role == "control" and self.baseline is None:
            return False
        if role == "control":
            # A device that has just moved from control to treated may still report as the control it was.
            return self.shares[stage] <= bucket < self.plan.range.end
        # The first match among the treated arms has it: an earlier stage for everyone leaves it to no later one.
        first = self.plan.shadows if self.plan.stages[stage].shadow is None else stage
        earlier = [self.shares[n] for n in range(first, stage) if self.plan.stages[n].selector.everyone]
        return max(earlier, default=self.plan.range.start) <= bucket < self.shares[stage]


class ApprovalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A person agreed that a stage begins."""

    rollout: str
    stage: int
    by: str
    note: str
    at: float


class ExperimentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment's progress.

    `serials`: by variant; `stopped`: arms that ended before, and why; `without`: by arm, the slices in which it was
    stopped; `winner`: shipped.
    """

    namespace: str
    id: str
    model: str
    plan: Experiment
    phase: Phase
    serials: dict[str, int]
    hour_s: float
    created_at: float
    because: str
    stopped: dict[str, str] = {}
    without: dict[str, tuple[str, ...]] = {}
    delays: tuple[float, ...] = ()  # seconds that treated devices take, as told to the controls
    delays_by_class: dict[str, tuple[float, ...]] = {}  # the same of hardware classes that take their own time
    winner: str | None = None
    ended_at: float | None = None
    started_by: str = ""  # the account; "" where it is older than accounts

    @property
    def live(self) -> bool:
        """Whether it still has a say in the policy."""
        return self.phase is Phase.RUNNING

    @property
    def arms(self) -> list[tuple[int, ExperimentVariant]]:
        """The treated arms that were not stopped, with their places: the stages of their tallies."""
        return [(place, each) for place, each in enumerate(self.plan.treated) if each.id not in self.stopped]

    @property
    def title(self) -> str:
        """Its kind and name, as a sentence says them."""
        return f"experiment {self.id}"

    @property
    def range(self) -> Range:
        """The buckets of the model's layer that nothing else may have."""
        return self.plan.taken

    @property
    def salt(self) -> int | None:
        """None: it divides the devices by the model's own salt."""
        return None

    @property
    def bucket_label(self) -> str | None:
        """The label by whose value devices fall into its arms: the server does not know the values."""
        return self.plan.bucket_label

    @property
    def guard_plans(self) -> tuple[Plan, ...]:
        """The plans by which a gate watches its live arms."""
        return tuple(self.plan.guard_plan(variant) for _, variant in self.arms)

    @property
    def compared_metrics(self) -> tuple[str, ...]:
        """Metrics of which each device has one value, compared between the arms."""
        return self.plan.compared

    @property
    def control_stage(self) -> int:
        """A stage in which every control device is counted: that of any live arm."""
        return self.arms[0][0] if self.arms else 0

    @property
    def learns_delays(self) -> bool:
        """Whether its treated devices fetch a version: in an A/A experiment, which has no delays, none does."""
        return bool(self.delays)

    @property
    def window_s(self) -> float:
        """The seconds of a tally window, shortened where it is a rehearsal."""
        return rehearsed_s(self.plan.window_s(), hour_s=self.hour_s)

    def window_at(self, at: float) -> int:
        """The number of the tally window that is open at `at`."""
        return max(0, int((at - self.created_at) // self.window_s))

    def serial_of(self, role: Role, stage: int) -> int:
        """The version that the devices in `role` run."""
        return self.serials[self.plan.treated[stage].id if role == "treated" else self.plan.control_id]

    def shadow_serial(self, stage: int) -> int | None:  # noqa: ARG002 (a rollout's depends on it)
        """None: an experiment tries nothing in the shadow."""
        return None

    def has_arm(self, stage: int) -> bool:
        """Whether a treated arm has this place."""
        return stage < len(self.plan.treated)

    def holds(self, bucket: int, *, stage: int, role: Role) -> bool:
        """Whether a device in `bucket` may say that it is in this arm."""
        if not self.has_arm(stage):
            return False
        arm = self.plan.treated[stage].id if role == "treated" else self.plan.control_id
        own = self.plan.ranges()[arm]
        return own.start <= bucket < min(own.end, BUCKETS)


class QuarantineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the fleet (or the devices of `selector`) refuses, until a person lifts it."""

    namespace: str
    model: str
    serial: int
    at: float
    because: str
    selector: Selector = EVERYONE


class VerdictRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said of a rollout or experiment, and its input, so that anyone can ask it again.

    `window`: the first that was open. `situation`: the gate's input, encoded, without the cells: these are the
    comparison's before `window`.
    """

    rollout: str
    at: float
    window: int
    situation: bytes
    move: str
    because: str
    sha256: str  # of the whole verdict, encoded


class SignedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and when it was signed first."""

    policy: Policy
    at: float


class RoleExpiry(msgspec.Struct, frozen=True, kw_only=True):
    """When an offline role's newest version expires. `warned_s`: how long before that was warned last; -1: not yet."""

    role: str
    version: int
    expires: float  # POSIX seconds
    warned_s: float = -1.0


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, why, and on what evidence."""

    namespace: str
    at: float
    actor: str
    action: str
    because: str
    model: str | None = None
    rollout: str | None = None
    device: str | None = None
    evidence: dict[str, Any] = {}
