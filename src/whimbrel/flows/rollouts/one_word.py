"""How many of a model's devices may one person's word bring to a new version? (`second_person_above_percent`)

1. Of a set the strictest rule of its models holds: what moves together is agreed to together.
2. All rollouts and experiments of a model count together, whoever began them: ten of 10% are everybody. A rollout
   counts with what it reaches before its first stage that asks for approval; what follows is no one person's word.
3. A share that `min_devices` raises counts as raised. What it would be is asked when a plan is written down; later a
   share is raised no further than the rule, unless its stage asks for approval.

Called where rollouts and experiments begin or are checked, and where the share of a stage is set.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from whimbrel.flows.accounts.second_person import with_second_person
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.plan.plan import Plan
from whimbrel.policy.bucket import BUCKETS


class OneWord(msgspec.Struct, frozen=True):
    """A model's rule, and what others of it reach by one person's word already; percent of all devices."""

    above_percent: float
    taken_percent: float

    @property
    def room_percent(self) -> float:
        """What is left."""
        return max(0.0, self.above_percent - self.taken_percent)


def one_word(registry: RegistryPort, models: Iterable[str], *, but: Collection[str] = ()) -> OneWord | None:
    """The strictest rule of `models`, the one that leaves least room; None where no model has one.

    `but`: the rollouts that are asked about, which do not count.
    """
    rules = []
    for name in models:
        above = registry.model(name).settings.second_person_above_percent
        if above is not None:
            rules.append(OneWord(above, _taken_percent(registry, name, but=but)))
    return min(rules, key=lambda each: each.room_percent, default=None)


def strictest_percent(registry: RegistryPort, models: Iterable[str]) -> float | None:
    """The least share of the rules of `models`; None where no model has one."""
    rules = [registry.model(name).settings.second_person_above_percent for name in models]
    return min((rule for rule in rules if rule is not None), default=None)


def asking_others(
    plan: Plan, word: OneWord | None, *, ends: Sequence[int] = (), first: int = 1, later: int = 1
) -> Plan:
    """The plan, whose first stage past the rule asks for a person's approval. `ends`: where its shares would end.

    `first`, `later`: how many people must approve where that is the first stage, and where it is a later one.
    """
    if word is None:
        return plan
    return with_second_person(
        plan,
        above_percent=word.above_percent,
        taken_percent=word.taken_percent,
        reached_percents=[percent_of_all(plan, end) for end in ends],
        first=first,
        later=later,
    )


def bounded_end(plan: Plan, end: int, *, stage: int, before: Sequence[int], word: OneWord | None) -> int:
    """The bucket where a share ends, raised no further than one person's word reaches. `before`: of earlier stages.

    A stage that asks for approval is not bounded, and none after one that passed the rule: another person agreed.
    """
    if word is None or plan.stages[stage].shadow is not None or plan.stages[stage].approval is not None:
        return end
    lasting = before[plan.shadows :]
    if lasting and percent_of_all(plan, max(lasting)) > word.room_percent:
        return end
    room = plan.range.start + int(word.room_percent / 100 * BUCKETS)
    return max([min(end, max(plan.share_end(stage), room)), *lasting])


def percent_of_all(plan: Plan, end: int) -> float:
    """How much of all devices a share is that ends at a bucket of the plan's range."""
    return 100 * (end - plan.range.start) / BUCKETS


def _taken_percent(registry: RegistryPort, model: str, *, but: Collection[str]) -> float:
    rollouts = [each for each in registry.rollouts(model=model, unended=True) if each.id not in but]
    experiments = [each.buckets for _, each in registry.experiment_ranges(model)]
    return sum(map(_reach_percent, rollouts)) + 100 * sum(experiments) / BUCKETS


def _reach_percent(rollout: RolloutRecord) -> float:
    """What a rollout reaches by one person's word: planned until a stage asks for approval, or raised to already."""
    plan, reach = rollout.plan, 0.0
    for index, stage in enumerate(plan.stages):
        if stage.approval is not None:
            break
        if stage.shadow is None:
            raised = percent_of_all(plan, rollout.shares[index]) if index < len(rollout.shares) else 0.0
            reach = max(reach, stage.target_percent * plan.range.buckets / BUCKETS, raised)
    return reach
