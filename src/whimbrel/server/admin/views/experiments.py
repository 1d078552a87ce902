"""What the admin API takes and answers about experiments.

A check is an `ExperimentCheck`, and a point of the history an `IntervalPoint`, as the flows make them.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whimbrel import limits
from whimbrel.flows.experiments.trace import IntervalPoint
from whimbrel.gate.verdict import Counts, ExperimentMove
from whimbrel.model.documents import Document
from whimbrel.plan.experiment import GuardrailMetric
from whimbrel.plan.experiment_states import Phase
from whimbrel.plan.known_metrics import Better


class NewExperiment(Document, frozen=True):
    """POST experiments: the file as it was written. `hour_s`: seconds that an hour of it lasts."""

    plan: Annotated[str, Meta(max_length=limits.PLAN_BYTES)]
    file_name: Annotated[str, Meta(max_length=1024)] = "experiment.yaml"
    hour_s: Annotated[float, Meta(gt=0, le=3600)] = 3600.0


class ExperimentAct(Document, frozen=True):
    """POST experiments/<id>/<act>: why an experiment is ended by hand, and which arm is shipped."""

    because: Annotated[str, Meta(max_length=2000)] = ""
    arm: Annotated[str, Meta(max_length=limits.NAME_CHARS)] | None = None


class LookView(msgspec.Struct, frozen=True, kw_only=True):
    """An arm against the control: an estimate and its interval. An end without a bound is None."""

    estimate: float | None
    low: float | None
    high: float | None


class ArmEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one treated arm.

    `deciding`: the interval that decides; `plain`: without the past of devices. `guardrails`, `log_e`: of the gate
    that watches the arm.
    """

    live: bool
    counts: Counts
    devices: int
    devices_control: int
    with_before: int  # devices an arm whose past is known
    deciding: LookView | None
    plain: LookView | None
    theta: float
    explained: float  # the share of the variance between devices that their past explains
    own_guardrails: dict[str, LookView]
    rates: tuple[float | None, float | None] | UnsetType = UNSET  # of crashes: the arm's and the control's
    guardrails: dict[str, float] | UnsetType = UNSET
    log_e: float | UnsetType = UNSET
    log_e_needed: float | UnsetType = UNSET
    without: list[str] | UnsetType = UNSET  # slices in which it was stopped, whose devices are in none of the figures
    slices: dict[str, float] | UnsetType = UNSET  # ln E by slice of the label that explains the harm best


class SampleView(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices reported, and how many must before anything is decided."""

    reported: int
    needed: int


class ExperimentEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The figures behind a verdict on an experiment. A key is there where it was looked at that far."""

    primary: str
    arms: dict[str, ArmEvidence]
    days: float
    windows: int
    mismatch: str | UnsetType = UNSET  # the step at which the arms are not split as their buckets say
    sample_ratio: dict[str, float] | UnsetType = UNSET  # ln of the Bayes factor against the expected split, by step
    sample: SampleView | UnsetType = UNSET
    stopped_slices: list[str] | UnsetType = UNSET  # in which the verdict stops the arm


class ExperimentVerdictView(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of an experiment by now. `arm`: which one is stopped or shipped."""

    move: ExperimentMove
    because: str
    evidence: ExperimentEvidence
    arm: str | None


class PrimaryView(msgspec.Struct, frozen=True, kw_only=True):
    """The metric that decides, with its direction also where the file leaves it out."""

    name: str
    minimum_effect: float | UnsetType = UNSET
    spread: float | UnsetType = UNSET  # the standard deviation between devices
    direction: Better


class ArmView(msgspec.Struct, frozen=True, kw_only=True):
    """One variant, and its devices by how far they came. `stopped`: why, if it was; `without`: in which slices."""

    id: str
    role: Literal["control", "treated"]
    version: str | None
    description: str
    share: float
    stopped: str | None
    without: list[str]
    assigned: int
    active: int
    reported: int
    failed: int


class ActView(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to an experiment, and whose act it was."""

    at: float
    actor: str
    action: str
    because: str


class ExperimentView(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment. Times are POSIX seconds.

    `warnings`: of one that was started just now: metrics whose direction is against what their name means.
    `verdict`: of one that is asked for alone. `history` and `acts`: where the history was asked for, oldest first.
    """

    id: str
    name: str
    model: str
    phase: Phase
    because: str
    winner: str | None
    arms: list[ArmView]
    primary: PrimaryView
    guardrails: list[str | GuardrailMetric]
    alpha: float
    arm_alpha: float
    minimum_sample_size: int
    duration_days: float
    range_percent: tuple[float, float]
    bucket_by: str  # device, or label:<name>
    devices_per_value: float  # that count as one
    on_decision: Literal["record", "baseline", "rollout"]
    created_at: float
    ended_at: float | None
    hour_s: float
    warnings: list[str] = []
    verdict: ExperimentVerdictView | UnsetType = UNSET
    history: list[IntervalPoint] | UnsetType = UNSET
    acts: list[ActView] | UnsetType = UNSET
