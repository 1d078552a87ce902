"""A plan: the staged rollout that a person asks for, in the field's published YAML form (and a few words of our own).

    rollout:
      model_version: "detector-v3.2"
      stages:
        - {name: canary, target_percent: 5, duration_hours: 24, success_criteria: {accuracy_drop_max: 0.02}}
        - {name: general, target_percent: 100}
      rollback: {auto_rollback: true, health_check_interval_sec: 300}

1. A plan that cannot be understood is refused; an unknown key or criterion is never read as "no limit".
2. A share only grows. Criteria hold for the later stages too, until a stage replaces them.
3. `regions` and `user_segments` select devices by their labels `region` and `user_segment`; a `selector` selects more
   finely, and all of them must hold.
4. A plan that contradicts itself is refused with the reason. It is never resolved by a guess.
5. A blue-green plan has one stage that serves: all of its devices at once, behind shadow stages if it has some.
6. Shadow stages come first. Their shares grow among themselves: they bound neither the share of a stage that serves,
   nor the blast radius.

The whole form: docs/reference/plan.md; for editors: docs/reference/plan.schema.json.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document
from whimbrel.model.ids import END, CalendarVersion, LabelValue, check_name, semantic_key
from whimbrel.model.patterns import matching
from whimbrel.model.selector import EVERYONE, Expression, Selector
from whimbrel.plan.criteria import Guardrail, SuccessCriteria, check_guardrails
from whimbrel.plan.governance import AlertRule, Approval, BlastRadius, OnFailure, OnSuccess
from whimbrel.plan.ranges import Range
from whimbrel.plan.schedule import Freeze, Schedule
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.policy import Conditions
from whimbrel.policy.shadow import ShadowStage

Hours = Annotated[float, Meta(ge=0, le=24 * 365)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Strategy = Literal["staged", "blue_green"]
HOLDBACK_PERCENT = 10.0  # of a staged plan that says nothing; a blue-green one has none then


class Rollback(Document, frozen=True):
    """What happens on proven harm."""

    auto_rollback: bool = True
    health_check_interval_sec: Annotated[float, Meta(ge=0.5, le=86400)] | None = None


class Stage(Document, frozen=True):
    """A share of the devices on the new version, for a time. With `shadow` the devices are served as before."""

    name: Annotated[
        str,
        matching(
            r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}" + END,
            "letters, digits, spaces and . _ -, at most 64, a letter or digit first",
        ),
    ]
    target_percent: Annotated[float, Meta(gt=0, le=100)]  # of the rollout's range: of all devices, unless it says less
    duration_hours: Hours = 0.0  # the least time it soaks
    soak_hours: Hours | None = None  # our word for the same
    max_hours: Hours | None = None  # the longest bake: a doubt waits until then, and holds from then on
    approval: Approval | None = None  # before this stage begins
    success_criteria: SuccessCriteria = msgspec.field(default_factory=SuccessCriteria)
    rollback: Rollback | None = None
    regions: Annotated[tuple[LabelValue, ...], Meta(max_length=256)] = ()
    user_segments: Annotated[tuple[LabelValue, ...], Meta(max_length=256)] = ()
    only: Selector = msgspec.field(name="selector", default=EVERYONE)
    shadow: ShadowStage | None = None
    conditions: Conditions | None = None  # when its devices may fetch and activate; else the model's

    def __post_init__(self) -> None:
        if self.soak_hours is not None:
            if self.duration_hours not in {0.0, self.soak_hours}:
                raise ValueError(
                    f"soak_hours: {self.soak_hours:g} and duration_hours {self.duration_hours:g} mean the same and "
                    "differ; keep one of them"
                )
            msgspec.structs.force_setattr(self, "duration_hours", self.soak_hours)
        if self.max_hours is not None and self.max_hours < self.duration_hours:
            raise ValueError(
                f"max_hours: {self.max_hours:g} is the longest bake, and the least is {self.duration_hours:g} h"
            )

    @property
    def selector(self) -> Selector:
        """The devices that belong to this stage."""
        terms = list(self.only.match_expressions)
        if self.regions:
            terms.append(Expression(key="region", operator="In", values=self.regions))
        if self.user_segments:
            terms.append(Expression(key="user_segment", operator="In", values=self.user_segments))
        return Selector(match_labels=self.only.match_labels, match_expressions=tuple(terms))


class Plan(Document, frozen=True):
    """A whole rollout. `alpha` is its false-alarm budget, over all guardrails, stages and looks.

    It bounds the chance of a false alarm at the very edge of what is tolerated, in every guardrail at once. Where
    nothing is wrong, false alarms are far rarer: at the default, about one rollout in 200 (bench/harm.py).
    """

    model_version: Annotated[str, Meta(min_length=1, max_length=256)]
    stages: Annotated[tuple[Stage, ...], Meta(min_length=1, max_length=limits.STAGES)]
    strategy: Strategy = "staged"
    rollback: Rollback = msgspec.field(default_factory=Rollback)
    guardrails: Annotated[tuple[Guardrail, ...], Meta(max_length=limits.GUARDRAILS)] = ()
    promote: Literal["when_no_harm", "when_proven"] = "when_no_harm"
    on_small_harm: Literal["rollback", "hold"] = "rollback"
    holdback_percent: Annotated[float, Meta(ge=0, le=50)] | None = None  # None: as the strategy has it, see `holdback`
    min_devices: Annotated[int, Meta(ge=1, le=10**9)] = 1
    min_reports: Annotated[int, Meta(ge=1, le=10**9)] = 1
    alpha: Annotated[float, Meta(gt=0, le=0.2)] = 0.1
    blast_radius: BlastRadius | None = None
    range_percent: tuple[Percent, Percent] = (0.0, 100.0)  # the part of the layer's buckets that it may use
    on_running: Literal["refuse", "queue"] = "refuse"  # when another rollout is in its way
    schedule: Schedule | None = None
    freeze: Annotated[tuple[Freeze, ...], Meta(max_length=limits.FREEZES)] = ()
    on_success: OnSuccess = msgspec.field(default_factory=OnSuccess)
    on_failure: OnFailure = msgspec.field(default_factory=OnFailure)
    alerts: Annotated[tuple[AlertRule, ...], Meta(max_length=limits.ALERT_RULES)] = ()

    def __post_init__(self) -> None:
        check_guardrails(self.guardrails)
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"two stages share a name: {', '.join(names)}")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if after.shadow is not None and before.shadow is None:
                raise ValueError(f"shadow stage {after.name!r} comes after {before.name!r}, which serves: shadow first")
            if before.shadow is not None and after.shadow is None:
                continue  # a shadow stage bounds no stage that serves
            if after.target_percent < before.target_percent:
                raise ValueError(
                    f"stage {after.name!r} has target_percent {after.target_percent:g}, below the "
                    f"{before.target_percent:g} of {before.name!r}: a share only grows"
                )
        if self.stages and self.stages[-1].shadow is not None:
            raise ValueError(f"the last stage, {self.stages[-1].name!r}, is a shadow stage: add one that serves")
        for index, stage in enumerate(self.stages):
            try:
                self.criteria(index)
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}, with the criteria of the stages before it: {error}") from error
        low, high = self.range_percent
        if self.range.buckets < 1:
            raise ValueError(f"range_percent: from {low:g} to {high:g} is no stretch of devices")
        self._check_radius()
        self._check_colours()

    def _check_radius(self) -> None:
        radius = self.blast_radius
        if radius is None:
            return
        if len(self.stages) == 1:
            raise ValueError("blast_radius: it caps every stage but the last, and there is one only; add one before it")
        if radius.devices is not None and radius.devices < self.min_devices:
            raise ValueError(
                f"blast_radius: at most {radius.devices} devices, and min_devices asks for {self.min_devices} in each "
                "stage; lower one or raise the other"
            )

    def _check_colours(self) -> None:
        """A blue-green plan switches once."""
        if not self.is_blue_green:
            return
        serving = self.stages[self.shadows :]
        if len(serving) > 1:
            names = ", ".join(stage.name for stage in serving)
            raise ValueError(
                f"strategy: blue_green puts all of its devices on the new version at once, and {len(serving)} stages "
                f"serve it ({names}): keep one, or take strategy: staged"
            )
        if serving[0].target_percent < 100:
            raise ValueError(
                f"strategy: blue_green puts all of its devices on the new version at once, and stage "
                f"{serving[0].name!r} has target_percent {serving[0].target_percent:g}: write 100, and choose fewer "
                "devices by a selector; or take strategy: staged"
            )
        if self.blast_radius is not None:
            raise ValueError(
                "blast_radius: it caps every stage but the last, and strategy: blue_green serves in one only"
            )

    @property
    def is_blue_green(self) -> bool:
        """Whether all of its devices get the version at once, and keep the one before in the other slot."""
        return self.strategy == "blue_green"

    @property
    def holdback(self) -> float:
        """The percent of its devices that stay on the version before until the last soak ends."""
        if self.holdback_percent is not None:
            return self.holdback_percent
        return 0.0 if self.is_blue_green else HOLDBACK_PERCENT

    @property
    def shadows(self) -> int:
        """The number of shadow stages, which are the first ones."""
        return sum(stage.shadow is not None for stage in self.stages)

    def criteria(self, stage: int) -> SuccessCriteria:
        """The limits in force at a stage: its own, and those of earlier stages where it has none."""
        criteria = self.stages[0].success_criteria
        for each in self.stages[1 : stage + 1]:
            criteria = each.success_criteria.over(criteria)
        return criteria

    def rollback_at(self, stage: int) -> Rollback:
        """The rollback rule in force at a stage."""
        return self.stages[stage].rollback or self.rollback

    def window_s(self) -> float:
        """The seconds of a tally window: the plan's health-check interval (default 300)."""
        return self.rollback.health_check_interval_sec or 300.0

    @property
    def reaches_everyone(self) -> bool:
        """Whether its last stage reaches all devices. Only then its target may become the baseline."""
        last = self.stages[-1]
        return last.target_percent >= 100 and last.selector.everyone and self.range.whole

    @property
    def range(self) -> Range:
        """The buckets of the layer that it may use. Shares grow from the start of this range."""
        return Range.of_percent(*self.range_percent)

    @property
    def ceiling(self) -> int:
        """The bucket where the holdback begins. Treated devices never lie beyond it."""
        return self.range.end - round(self.holdback / 100 * self.range.buckets)

    @property
    def without_holdback(self) -> "Plan":
        """The plan of a first version: a device that is kept from it would have none, and be compared with nothing."""
        return msgspec.structs.replace(self, holdback_percent=0.0)

    def share_buckets(self, stage: int) -> int:
        """How many buckets are on the new version at a stage."""
        return self.share_end(stage) - self.range.start

    def share_end(self, stage: int) -> int:
        """The bucket where a stage's share ends: its part of the range, less the holdback from 90% up.

        A blast radius in percent caps it, except in the last stage.
        """
        own = self.range
        percent = self.stages[stage].target_percent
        end = own.start + round(percent / 100 * own.buckets)
        if end >= own.start + round(0.9 * own.buckets):
            end = min(end, self.ceiling)
        radius = self.blast_radius
        capped = stage < len(self.stages) - 1 and self.stages[stage].shadow is None
        if radius is not None and radius.percent is not None and capped:
            end = min(end, own.start + round(radius.percent / 100 * BUCKETS))
        return end


class PlanFile(Document, frozen=True):
    """The plan's file, with one key: `rollout`."""

    rollout: Plan


_AT = re.compile(r"^([a-z0-9][a-z0-9_-]*)@(.+)\Z")
# The last "-v<number>" begins the version: a model may well be called yolo-v8.
_DASH = re.compile(r"^([a-z0-9][a-z0-9_-]*)-v([0-9]+(?:\.[0-9]+){0,2}(?:[-+].*)?)\Z")


class VersionName(msgspec.Struct, frozen=True):
    """A version as a person names it: a model, and a calendar version, semantic version, or prefix of one."""

    model: str
    text: str
    prefix: bool

    @classmethod
    def parse(cls, text: str) -> "VersionName":
        """Read `<model>@<version>` or `<model>-v<semantic version or its unique prefix>`. Raises `ValueError`."""
        if match := _AT.match(text):
            return cls(check_name(match[1], kind="model"), match[2], prefix=False)
        if match := _DASH.match(text):
            return cls(check_name(match[1], kind="model"), match[2], prefix=True)
        raise ValueError(
            f"{text!r} names no version; expected <model>@<version>, or <model>-v<semantic version> as in detector-v3.2"
        )

    def matches(self, *, calendar: str, semantic: str) -> bool:
        """Whether a version with these two names matches."""
        if not self.prefix:
            return self.text in {calendar, semantic}
        return semantic == self.text or semantic.startswith((f"{self.text}.", f"{self.text}-"))


def version_order(calendar: str, semantic: str) -> tuple[object, ...]:
    """A key that sorts versions without their serials. Version strings are never compared as text."""
    return semantic_key(semantic), CalendarVersion.parse(calendar)
