"""The A/B/n experiment that a person asks for, in the field's published form (and a few words of our own).

    experiment:
      name: "A larger encoder"
      variants:
        - {id: control, model_version: "wake@1.0.0", description: "today's"}
        - {id: large, model_version: "wake@2.0.0", description: "twice the width"}
      allocation: {control: 0.5, large: 0.5}
      primary_metric: accuracy
      guardrail_metrics: [false_positive_rate, inference_latency, error_rate]

1. An experiment that cannot be understood is refused; an unknown key or metric is never read as "no limit". Of a plain
   name, plan/known_metrics.py tells which way is worse; of any other metric the file says it.
2. A share is a number from 0 to 1, or a percent with its sign ("5%"). 5 alone is refused, because it is ambiguous.
3. All variants are versions of one model: a device runs one version of it at a time.
4. The budget `alpha` is split evenly over the arms (Bonferroni): all intervals hold at once.
5. With `bucket_by: label:user_id` the devices of one person are in one arm. The server does not know who they are, so
   all evidence counts as if they were all alike: that of `devices_per_value` devices as that of one.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.document_errors import sentence
from whimbrel.model.documents import Document
from whimbrel.model.ids import Label, Name
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.known_metrics import KNOWN_METRICS, Better
from whimbrel.plan.plan import Percent, Plan, Rollback, Stage, VersionName
from whimbrel.plan.ranges import Range
from whimbrel.policy.bucket import BUCKETS

CRASH_RATE = "crash_rate"  # crashes a device and window: a ratio against the control's
_PERCENT = re.compile(r"^(\d{1,3}(?:\.\d{1,6})?)%\Z")
_CONTROLS = ("control", "baseline")
_BY_LABEL = re.compile(r"^label:([A-Za-z0-9](?:[A-Za-z0-9_./-]{0,62}[A-Za-z0-9])?)\Z")
DEVICES_PER_VALUE = 2.0  # where a file does not say it: a phone and a tablet
# Labels that name a kind of device, as agents find them: all devices of a kind would be in one arm.
KINDS_OF_DEVICES = frozenset({"os", "os_version", "arch", "cpu", "ram_mb", "hardware"})

Days = Annotated[float, Meta(gt=0, le=365)]
VariantId = Name


class ExperimentVariant(Document, frozen=True):
    """One arm: a version and its description."""

    id: VariantId
    model_version: Annotated[str, Meta(min_length=1, max_length=256)]
    description: Annotated[str, Meta(max_length=2000)] = ""


class PrimaryMetric(Document, frozen=True):
    """The metric that decides. `error_rate`, `crash_rate`, or any metric that the app records.

    `minimum_effect`: the smallest difference worth shipping, in units of the metric (of `crash_rate`: a share of the
    control's rate). `spread`: the standard deviation between devices, where it is known, for `experiment check`.
    """

    name: Label
    direction: Better | None = None
    minimum_effect: Annotated[float, Meta(gt=0, le=1e12)] | None = None
    spread: Annotated[float, Meta(gt=0, le=1e12)] | None = None

    @property
    def rises(self) -> bool:
        """Whether a greater value is better."""
        return (self.direction or better_direction(self.name)) == "increase"

    @property
    def is_ratio(self) -> bool:
        """Whether arms are compared by a ratio of rates, not by a difference of means."""
        return self.name == CRASH_RATE


class GuardrailMetric(Document, frozen=True):
    """A metric of the app that must not get worse by more than `margin`, in its units.

    A file says both, or names a metric that is known (plan/known_metrics.py).
    """

    name: Label
    direction: Better | None = None
    margin: Annotated[float, Meta(ge=0, le=1e12)] = 0.0

    @classmethod
    def of(cls, name: str) -> "GuardrailMetric":
        """The guardrail that a plain name means. Records of earlier versions hold names that are not known, too."""
        known = KNOWN_METRICS.get(name)
        return cls(name=name) if known is None else cls(name=name, direction=known.better, margin=known.margin or 0.0)

    @property
    def rises(self) -> bool:
        """Whether a greater value is better."""
        return (self.direction or better_direction(self.name)) == "increase"


Share = float | Annotated[str, Meta(max_length=16)]


class Experiment(Document, frozen=True):
    """A whole experiment. For rehearsals `hour_s` of its record may shorten its days."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    variants: Annotated[tuple[ExperimentVariant, ...], Meta(min_length=2, max_length=limits.EXPERIMENT_VARIANTS)]
    allocation: Annotated[dict[VariantId, Share], Meta(max_length=limits.EXPERIMENT_VARIANTS)]
    primary_metric: Label | PrimaryMetric
    guardrail_metrics: Annotated[tuple[Label | GuardrailMetric, ...], Meta(max_length=limits.GUARDRAILS)] = ()
    id: Name | None = None
    control: VariantId | None = None
    minimum_sample_size: Annotated[int, Meta(ge=2, le=10**9)] = 10_000  # devices that reported, of all arms
    duration_days: Days = 7.0
    minimum_days: Annotated[float, Meta(ge=0, le=365)] = 0.0
    range_percent: tuple[Percent, Percent] = (0.0, 100.0)
    reshuffle: bool = True
    selector: Selector = EVERYONE
    bucket_by: Annotated[str, Meta(max_length=256)] = "device"  # or label:<name>
    devices_per_value: Annotated[float, Meta(ge=1, le=1000)] | None = None  # with a label: as the average device has it
    alpha: Annotated[float, Meta(gt=0, le=0.2)] = 0.05
    guardrail_alpha: Annotated[float, Meta(gt=0, le=0.2)] = 0.1
    check_interval_sec: Annotated[float, Meta(ge=0.5, le=86400)] = 300.0
    on_decision: Literal["record", "baseline", "rollout"] = "record"
    rollout: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        low, high = self.range_percent
        if low >= high:
            raise ValueError(f"range_percent is [{low:g}, {high:g}]; expected [from, to] with from below to")
        _check_variants(self)
        _check_shares(self)
        _check_metrics(self)
        _check_bucket_by(self)
        if self.minimum_days > self.duration_days:
            raise ValueError(f"minimum_days {self.minimum_days:g} is more than duration_days {self.duration_days:g}")
        if (self.on_decision == "rollout") != (self.rollout is not None):
            raise ValueError("on_decision: rollout and the key `rollout` (a plan without model_version) go together")
        if self.rollout is not None:
            self.follow_up(self.treated[0].model_version)

    # --- who is compared ---

    @property
    def model(self) -> str:
        """The model that all variants are versions of."""
        return VersionName.parse(self.variants[0].model_version).model

    @property
    def control_id(self) -> str:
        """The variant that the others are compared with."""
        if self.control is not None:
            return self.control
        ids = [variant.id for variant in self.variants]
        return next((name for name in _CONTROLS if name in ids), ids[0])

    @property
    def treated(self) -> tuple[ExperimentVariant, ...]:
        """The other variants, in the file's order. A variant's place here is its arm's stage in tallies."""
        return tuple(variant for variant in self.variants if variant.id != self.control_id)

    @property
    def range(self) -> Range:
        """Its buckets of the model's layer."""
        return Range.of_percent(*self.range_percent)

    @property
    def bucket_label(self) -> Label | None:
        """The label by whose value devices fall into the arms; None: each device for itself."""
        match = _BY_LABEL.match(self.bucket_by)
        return match[1] if match else None

    @property
    def taken(self) -> Range:
        """The buckets of the model's layer that nothing else may have: its own; by a label all of them.

        The bucket of a device says nothing of the bucket of its label, so no two ranges of them are apart.
        """
        return self.range if self.bucket_label is None else Range()

    @property
    def cluster(self) -> float:
        """How many devices count as one, in all that is proven."""
        if self.bucket_label is None:
            return 1.0
        return DEVICES_PER_VALUE if self.devices_per_value is None else self.devices_per_value

    def share(self, variant: str) -> float:
        """The share of the devices in its range."""
        return _share_of(self.allocation[variant])

    def ranges(self) -> dict[str, Range]:
        """The buckets of every variant, one after the other from the start of the range. The rest is in no variant."""
        own, start, before = self.range, self.range.start, 0.0
        ranges = {}
        for variant in self.variants:
            before += self.share(variant.id)
            end = own.start + round(before * own.buckets)
            ranges[variant.id] = Range(start, end)
            start = end
        return ranges

    # --- what is measured ---

    @property
    def primary(self) -> PrimaryMetric:
        """The metric that decides."""
        primary = self.primary_metric
        return primary if isinstance(primary, PrimaryMetric) else PrimaryMetric(name=primary)

    @property
    def own_guardrails(self) -> tuple[GuardrailMetric, ...]:
        """Guardrails of the app's own metrics. All others are watched in any case."""
        return tuple(
            each if isinstance(each, GuardrailMetric) else GuardrailMetric.of(each)
            for each in self.guardrail_metrics
            if isinstance(each, GuardrailMetric) or not _measures(each)
        )

    @property
    def watched_guardrails(self) -> dict[str, tuple[str, ...]]:
        """Guardrails that are watched as in a rollout: by their names, the measures that they mean."""
        names = [each for each in self.guardrail_metrics if isinstance(each, str)]
        return {name: _measures(name) for name in names if _measures(name)}

    @property
    def compared(self) -> tuple[str, ...]:
        """Metrics of which a device has one value: the primary metric, unless it is a ratio, and own guardrails."""
        primary = () if self.primary.is_ratio else (self.primary.name,)
        return tuple(dict.fromkeys((*primary, *(guard.name for guard in self.own_guardrails))))

    @property
    def arm_alpha(self) -> float:
        """An arm's part of `alpha`."""
        return self.alpha / len(self.treated)

    def window_s(self) -> float:
        """The seconds of a tally window."""
        return self.check_interval_sec

    def guard_plan(self, variant: ExperimentVariant) -> Plan:
        """The plan by which the gate watches an arm: one stage that is never promoted."""
        battery = any("battery" in measures for measures in self.watched_guardrails.values())
        criteria = SuccessCriteria(battery_increase_max=0.2) if battery else SuccessCriteria()
        stage = Stage(
            name=variant.id,
            target_percent=100,
            duration_hours=24 * 365,
            success_criteria=criteria,
        )
        return Plan(
            model_version=variant.model_version,
            stages=(stage,),
            rollback=Rollback(health_check_interval_sec=self.check_interval_sec),
            alpha=self.guardrail_alpha / len(self.treated) / (1 + bool(self.own_guardrails)),
        )

    def own_guard_alpha(self) -> float:
        """The part of `guardrail_alpha` that one own guardrail of one arm has."""
        return self.guardrail_alpha / len(self.treated) / 2 / max(1, len(self.own_guardrails))

    def follow_up(self, model_version: str) -> Plan:
        """The rollout that follows when `model_version` is to be shipped. Raises `ValueError`."""
        plan = dict(self.rollout or {})
        if "model_version" in plan:
            raise ValueError("rollout: leave model_version out: it is the version that won")
        try:
            return msgspec.convert(plan | {"model_version": model_version}, type=Plan, strict=True)
        except msgspec.ValidationError as error:
            words = sentence(str(error), plan, kind=Plan)
            raise ValueError(f"rollout: {words}") from error


class ExperimentFile(Document, frozen=True):
    """The experiment's file, with one key: `experiment`."""

    experiment: Experiment


def _check_variants(experiment: Experiment) -> None:
    ids = [variant.id for variant in experiment.variants]
    if len(set(ids)) != len(ids):
        raise ValueError(f"two variants share an id: {', '.join(ids)}")
    models = sorted({VersionName.parse(variant.model_version).model for variant in experiment.variants})
    if len(models) > 1:
        raise ValueError(f"the variants are versions of {' and '.join(models)}; an experiment is about one model")
    if experiment.control is not None and experiment.control not in ids:
        raise ValueError(f"control is {experiment.control!r}; the variants are {', '.join(ids)}")


def _check_shares(experiment: Experiment) -> None:
    ids = [variant.id for variant in experiment.variants]
    if sorted(experiment.allocation) != sorted(ids):
        raise ValueError(
            f"allocation is of {', '.join(sorted(experiment.allocation))}; the variants are {', '.join(ids)}"
        )
    total = sum(experiment.share(name) for name in ids)
    if total > 1 + 1e-9:
        raise ValueError(f"the allocation adds up to {100 * total:g}%; at most 100% can be given")
    empty = [name for name, own in experiment.ranges().items() if own.buckets < 1]
    if empty:
        raise ValueError(f"the share of {', '.join(empty)} is below one in {BUCKETS:,} devices")


def _check_bucket_by(experiment: Experiment) -> None:
    text, label = experiment.bucket_by, experiment.bucket_label
    if label is None:
        if text != "device":
            raise ValueError(f"bucket_by: expected device, or label:<name> such as label:user_id; found {text[:80]!r}")
        if experiment.devices_per_value is not None:
            raise ValueError("devices_per_value: it says how many devices share a value, and bucket_by names no label")
        return
    if label in KINDS_OF_DEVICES or label.startswith("runtime."):
        raise ValueError(
            f"bucket_by: {label} names a kind of device, so all devices of a kind would be in one arm; name a label "
            "with thousands of values, such as user_id, or leave bucket_by out"
        )
    if label in experiment.selector.labels:
        raise ValueError(
            f"selector: it asks for {label}, by which devices are divided. Policies are public, so no value may be "
            f"in one, and devices without {label} are in no arm anyway; leave it out of the selector"
        )


def _check_metrics(experiment: Experiment) -> None:
    name = experiment.primary.name
    if name.startswith("latency") or name in {"silence", "install_failures", "crash", "error"}:
        raise ValueError(
            f"primary_metric {name!r} is watched as a guardrail and cannot decide; use error_rate, crash_rate, or a "
            "metric that the app records (say, its latency in ms under a name of its own)"
        )
    for each in experiment.guardrail_metrics:
        known = KNOWN_METRICS.get(each.name) if isinstance(each, GuardrailMetric) else None
        if known is not None and known.reserved:
            raise ValueError(
                f"guardrail {known.name!r} is watched as in a rollout; name it without direction and margin"
            )
    names = [_name(each) for each in experiment.guardrail_metrics]
    if len(set(names)) != len(names):
        raise ValueError(f"two guardrails share a name: {', '.join(names)}")


def better_direction(name: str) -> Better:
    """Which way a metric improves, where nobody said it: as it is known, and else more is better."""
    known = KNOWN_METRICS.get(name)
    return "increase" if known is None else known.better


def _measures(name: str) -> tuple[str, ...]:
    known = KNOWN_METRICS.get(name)
    return () if known is None else known.measures


def _name(guardrail: str | GuardrailMetric) -> str:
    return guardrail if isinstance(guardrail, str) else guardrail.name


def _share_of(text: float | str) -> float:
    match = _PERCENT.match(text) if isinstance(text, str) else None
    share = float(match[1]) / 100 if match else text if isinstance(text, float) else 0.0
    if not 0 < share <= 1:
        shown = text if isinstance(text, str) else f"{text:g}"
        raise ValueError(f"allocation {shown}: a share is a number from 0 to 1, or a percent with its sign, such as 5%")
    return share
