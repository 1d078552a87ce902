"""What the admin API takes and answers about rollouts and plans.

A check of a plan is a `PlanCheck`, and a point of the evidence is a `Point`, as the flows make them.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whimbrel import limits
from whimbrel.flows.monitors.show_health import ClassFigures
from whimbrel.flows.rollouts.approvals import PendingApproval
from whimbrel.flows.rollouts.builds_running import BuildRunning
from whimbrel.gate.verdict import Counts
from whimbrel.model.documents import Document
from whimbrel.plan.rollout_states import State
from whimbrel.policy.shadow import ShadowStage
from whimbrel.server.admin.views.reason import Because
from whimbrel.server.admin.views.verdicts import VerdictView


class NewRollout(Document, frozen=True):
    """POST rollouts: a plan as it was written. `hour_s`: seconds that an hour of the plan lasts."""

    plan: Annotated[str, Meta(max_length=limits.PLAN_BYTES)]
    file_name: Annotated[str, Meta(max_length=1024)] = "plan.yaml"
    hour_s: Annotated[float, Meta(gt=0, le=3600)] = 3600.0
    override: Because = ""
    draft: bool = False


class PlanToCheck(Document, frozen=True):
    """POST plans/check: a plan as it was written. `devices`: imagine a fleet of that size."""

    plan: Annotated[str, Meta(max_length=limits.PLAN_BYTES)]
    file_name: Annotated[str, Meta(max_length=1024)] = "plan.yaml"
    devices: Annotated[int, Meta(ge=1, le=10**10)] | None = None


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of a rollout's plan. `share_percent`: of the rollout's range, None until it is entered."""

    name: str
    target_percent: float
    share_percent: float | None
    duration_hours: float
    shadow: ShadowStage | None
    approvals: int  # how many people must agree before it begins


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the rollout's set that moves with it, by a rollout of its own."""

    rollout: str
    model: str
    baseline: str | None
    target: str | None


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout. Times are POSIX seconds.

    `approval`: what it waits for, if for people. `devices_left`: of one that goes back, how many are not off its
    target. `lead`: the rollout of a set that it moves with, "" where it moves itself. `members`: what moves with it.
    `counts`: by stage; `unproven`: the same of devices that are not counted, since a shared token let them in
    later. `devices`: by version, of the whole model. Of one that is asked for alone: `verdict`, where it is live,
    `classes`, the figures of both versions by hardware class, and `builds`, which builds of the target run where it
    has several.
    """

    id: str
    model: str
    state: State
    state_since: float
    ended: bool
    range_percent: tuple[float, float]
    approval: PendingApproval | None
    devices_left: int | None
    stage: int
    stage_name: str
    stages: list[StageView]
    baseline: str | None
    target: str | None
    because: str
    created_at: float
    stage_since: float
    ended_at: float | None
    hour_s: float
    without: list[str]  # slices that went back
    counts: dict[str, Counts]
    devices: dict[str, int]
    unproven: dict[str, Counts] = {}
    lead: str = ""
    members: list[MemberView] = []
    verdict: VerdictView | UnsetType = UNSET
    classes: list[ClassFigures] | UnsetType = UNSET
    builds: list[BuildRunning] | UnsetType = UNSET
