"""When must another person agree? Persons are compared, never tokens: two tokens of one person are one.

1. A model may name a share (`second_person_above_percent`): the first stage of a rollout that passes it asks for the
   approval of one person, as if its plan said so. The rollout keeps what it asked for when it was written down. What
   counts towards the share says `flows/rollouts/one_word`.
2. Whoever wrote a rollout down, or started it, is none of the persons who approve a stage that asks for approval.
3. What a machine wrote down nobody has started: the person who sets the draft going has, and approves no later stage.
   Where a machine begins a rollout itself, two must approve.
4. To finish a rollout by hand skips its stages, and makes its version everybody's: it takes a person who could approve
   all that is skipped, and where the model names a share, two of those who started it, agreed before, and finish it.
5. A machine is no second person. Where people sign in with a provider, neither is an account whose token the provider
   does not vouch for: who has such a token may have signed in as well (`Caller.counts_as_person`).

`check_other_person` is for everything else that needs two: changes of keys are proposed by one and agreed by another.
"""

from collections.abc import Collection, Sequence

import msgspec

from whimbrel.errors import Refused
from whimbrel.plan.governance import Approval
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS

_NO_PERSON = "{what} needs the approval of a person who signed in as such, and {actor} did not; see: whimbrel login"
_ROUNDING = 1e-9  # percents of several rollouts that fill the share exactly do not pass it


def with_second_person(
    plan: Plan,
    *,
    above_percent: float | None,
    taken_percent: float = 0.0,
    reached_percents: Sequence[float] = (),
    first: int = 1,
    later: int = 1,
) -> Plan:
    """The plan, whose first stage that serves more than `above_percent` of the devices asks for a person's approval.

    `taken_percent`: what other rollouts and experiments of the model serve already. `reached_percents`: what each stage
    would serve, where `min_devices` raises it. `first`, `later`: how many must approve, where that is the first stage,
    and where it is a later one: two where no person's word is in it before.
    """
    if above_percent is None:
        return plan
    for index, stage in enumerate(plan.stages):
        reached = stage.target_percent * plan.range.buckets / BUCKETS
        if index < len(reached_percents):
            reached = max(reached, reached_percents[index])
        if stage.shadow is not None or reached + taken_percent <= above_percent + _ROUNDING:
            continue
        if stage.approval is not None:
            return plan
        note = f"this model needs a second person above {above_percent:g}%"
        if taken_percent:
            note += f", and other rollouts and experiments have {taken_percent:.3g}%"
        asking = msgspec.structs.replace(stage, approval=Approval(count=later if index else first, note=note))
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
    counts: bool,
    above_percent: float | None,
) -> None:
    """Raise `Refused` where `actor` would skip what others must agree to.

    `next_stage`: the first that is skipped; `agreed`: who approved any stage; `counts`: whether the actor counts as a
    person; `above_percent`: of the model, now.
    """
    skipped = [(each.name, each.approval.count) for each in plan.stages[next_stage:] if each.approval is not None]
    if skipped:
        what = f"stage {skipped[0][0]}, which finishing skips,"
        check_other_person(started_by, actor, what=what)
        if not counts:
            raise Refused(_NO_PERSON.format(actor=actor, what=what))
        name, most = max(skipped, key=lambda each: each[1])
        if most > 1:
            raise Refused(
                f"stage {name}, which finishing skips, needs the approval of {most} people; let the rollout come to it"
            )
    persons = {started_by, *agreed, actor if counts else ""} - {""}
    if above_percent is not None and above_percent < 100 and len(persons) < 2:
        what = f"what passes {above_percent:g}% of this model's devices"
        check_other_person(started_by, actor, what=what)
        if not counts:
            raise Refused(_NO_PERSON.format(actor=actor, what=what))
        raise Refused(f"{actor} would be the only person, and {what} needs two; let another one finish it")
