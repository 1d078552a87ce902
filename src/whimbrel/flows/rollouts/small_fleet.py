"""What protects a fleet that is too small for a control, and when does its rollout complete? For `plan check`.

1. A stage in which no device is left as a control compares no two versions at one time. The probe, the trial, the kill
   switch and absolute limits go on; relative limits are compared with the past (`gate/limit_checks`).
2. What can never be fulfilled by so few devices is warned of before it holds.
"""

from collections.abc import Sequence

from whimbrel.gate.kill_switch import least_that_stop
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import LIMITS
from whimbrel.plan.plan import Plan


def protection_sentences(
    plan: Plan, *, without_control: Sequence[int], baseline: str | None, why: str
) -> tuple[str, ...]:
    """What protects the devices of the stages that have no control; nothing where every stage has one.

    `why`: why there is none.
    """
    if not without_control:
        return ()
    criteria = [plan.criteria(index) for index in without_control]
    absolute, relative = _limits_of(criteria, relative=False), _limits_of(criteria, relative=True)
    names = ", ".join(plan.stages[index].name for index in without_control)
    limits = f"absolute limits ({', '.join(absolute)})" if absolute else "no absolute limit, since the plan sets none"
    few = f"{least_that_stop(2)} of two, {least_that_stop(10)} of ten, or {least_that_stop(100)} of a hundred"
    sentences = [
        f"No device is left as a control in {names}: {why}. What protects it there: the probe, before "
        "the version is used; the trial, in which a device goes back by itself; the kill switch, which takes it back "
        f"when the only device went back, or {few}; {limits}."
    ]
    if relative:
        sentences.append(
            f"Without a control, {', '.join(relative)} {_is(relative)} compared with what the same devices told while "
            f"they ran {baseline or 'the version before'}, else with the figure that was published with it. What no "
            "figure is known of compares nothing, and the verdict says so."
        )
    if metrics := [*absolute, *relative]:
        sentences.append(f"It holds where devices report nothing about {', '.join(metrics)}.")
    return tuple(sentences)


def protection_warnings(plan: Plan, *, without_control: Sequence[int], devices: Sequence[int]) -> list[str]:
    """What so few devices can never fulfil. `devices`: those that each stage puts on the version or finds on it."""
    warnings: list[str] = []
    least, most = max(plan.min_devices, plan.min_reports), max(devices, default=0)
    if 0 < most < least:
        asked = "min_devices" if plan.min_devices >= plan.min_reports else "min_reports"
        warnings.append(f"{asked}: {least} devices must report in a stage, and there are {most}: it holds for ever")
    if without_control and plan.promote == "when_proven":
        names = ", ".join(plan.stages[index].name for index in without_control)
        warnings.append(
            f"promote: when_proven needs a control, and {names} has none: it holds there until a person says rollout "
            "finish; when_no_harm would complete"
        )
    return warnings


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _limits_of(every: Sequence[SuccessCriteria], *, relative: bool) -> list[str]:
    """The limits that any of these criteria set, by the names that the plan gives them."""
    named = [
        limit.criterion
        for limit in LIMITS
        if (limit.compared != "value") is relative and any(criteria.sets(limit.criterion) for criteria in every)
    ]
    if not relative:
        for criteria in every:
            named += [criteria.name_of(metric, floor=True) for metric in criteria.floors]
            named += [criteria.name_of(metric, floor=False) for metric in criteria.ceilings]
    return list(dict.fromkeys(named))
