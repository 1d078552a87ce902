"""Who must agree before a rollout begins or enters its next stage, who did, and how many are missing.

1. A draft waits for the first stage's approvals, or for one.
2. Whoever started a rollout does not count among those whose approval a stage asks for.
3. An approval holds for the evidence that it was given on: what was approved before a doubt does not count.
"""

import msgspec

from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.wording import time_words
from whimbrel.plan.plan import Plan
from whimbrel.plan.rollout_states import State
from whimbrel.plan.schedule import frozen_until


class PendingApproval(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout waits for: approvals of one stage. `frozen_until`: in words; None where no freeze holds."""

    stage: str
    wanted: int
    missing: int
    by: tuple[str, ...]
    note: str
    frozen_until: str | None


def stage_to_approve(rollout: RolloutRecord) -> int:
    """The stage that people are asked about: the first, or the next."""
    return rollout.stage + 1 if rollout.shares else 0


def approvals_wanted(plan: Plan, *, stage: int) -> int:
    """How many people must agree that a stage begins; a draft waits for one at least."""
    approval = plan.stages[stage].approval
    return approval.count if approval is not None else int(stage == 0)


def approved_by(registry: RegistryPort, rollout: RolloutRecord, *, stage: int) -> set[str]:
    """Who agreed to the next stage since the rollout waits for it."""
    if rollout.state not in {State.DRAFT, State.WAITING_FOR_APPROVAL}:
        return set()
    approvals = registry.approvals(rollout.id)
    agreed = {each.by for each in approvals if each.stage == stage and each.at >= rollout.state_since}
    return agreed - {rollout.started_by} if needs_another_person(rollout, stage=stage) else agreed


def needs_another_person(rollout: RolloutRecord, *, stage: int) -> bool:
    """Whether whoever started it may not approve: a stage asks for it. A plain draft may be approved by its author."""
    return rollout.plan.stages[stage].approval is not None


def approvals_missing(registry: RegistryPort, rollout: RolloutRecord) -> int:
    """How many people must still agree before the next stage begins; 0 where there is no next stage."""
    stage = stage_to_approve(rollout)
    if stage >= len(rollout.plan.stages):
        return 0
    return max(0, approvals_wanted(rollout.plan, stage=stage) - len(approved_by(registry, rollout, stage=stage)))


def pending_approval(registry: RegistryPort, rollout: RolloutRecord, *, now: float) -> PendingApproval | None:
    """Who agreed and who is missing, for a rollout that waits for people; None for others."""
    if rollout.state not in {State.DRAFT, State.WAITING_FOR_APPROVAL}:
        return None
    stage = stage_to_approve(rollout)
    approval = rollout.plan.stages[stage].approval
    until = frozen_until(rollout.plan.freeze, now)
    return PendingApproval(
        stage=rollout.plan.stages[stage].name,
        wanted=approvals_wanted(rollout.plan, stage=stage),
        missing=approvals_missing(registry, rollout),
        by=tuple(sorted(approved_by(registry, rollout, stage=stage))),
        note=approval.note if approval is not None else "",
        frozen_until=time_words(until) if until is not None else None,
    )
