"""When must another person agree? Persons are compared, never tokens: two tokens of one person are one.

1. A model may name a share (`second_person_above_percent`): the first stage of a rollout that passes it asks for the
   approval of one person, as if its plan said so. The rollout keeps what it asked for when it was written down.
2. Whoever wrote a rollout down, or started it, is none of the persons who approve a stage that asks for approval.
3. What a machine wrote down nobody has started: the person who sets the draft going has, and approves no later stage.
4. To finish a rollout by hand skips its stages, and makes its version everybody's: it takes a person who could approve
   all that is skipped, and where the model names a share, one who did not start it, or that another agreed before.

`check_other_person` is for everything else that needs two: changes of keys are proposed by one and agreed by another.
"""

from collections.abc import Collection

import msgspec

from whimbrel.errors import Refused
from whimbrel.plan.governance import Approval
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS


def with_second_person(plan: Plan, *, above_percent: float | None, started: bool = True) -> Plan:
    """The plan, whose first stage that serves more than `above_percent` of the devices asks for a person's approval.

    `started`: a person starts it; where a machine wrote it down, and it is to begin past that share, two must approve.
    """
    if above_percent is None:
        return plan
    for index, stage in enumerate(plan.stages):
        if stage.shadow is not None or stage.target_percent * plan.range.buckets / BUCKETS <= above_percent:
            continue
        if stage.approval is not None:
            return plan
        note = f"this model needs a second person above {above_percent:g}%"
        asking = msgspec.structs.replace(stage, approval=Approval(count=1 if started or index else 2, note=note))
        stages = (*plan.stages[:index], asking, *plan.stages[index + 1 :])
        return msgspec.structs.replace(plan, stages=stages)
    return plan


def check_other_person(started_by: str, approver: str, *, what: str) -> None:
    """Raise `Refused` where who agrees is who started. `what`: what they agree to, in words."""
    if started_by and started_by == approver:
        raise Refused(f"{approver} started it, and {what} needs the approval of another person")


def check_finish(
    plan: Plan,
    *,
    next_stage: int,
    started_by: str,
    agreed: Collection[str],
    actor: str,
    above_percent: float | None,
) -> None:
    """Raise `Refused` where `actor` would skip what others must agree to.

    `next_stage`: the first that is skipped; `agreed`: who approved any stage; `above_percent`: of the model, now.
    """
    skipped = [(each.name, each.approval.count) for each in plan.stages[next_stage:] if each.approval is not None]
    if skipped:
        check_other_person(started_by, actor, what=f"stage {skipped[0][0]}, which finishing skips,")
        name, most = max(skipped, key=lambda each: each[1])
        if most > 1:
            raise Refused(
                f"stage {name}, which finishing skips, needs the approval of {most} people; let the rollout come to it"
            )
    if above_percent is not None and above_percent < 100 and not {*agreed} - {started_by}:
        check_other_person(started_by, actor, what=f"what passes {above_percent:g}% of this model's devices")
