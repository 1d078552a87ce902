"""What will happen to how many devices? A plan explained before anything begins, in words that need no statistics.

1. Devices are counted as the rollout would: those that follow the model and that a variant fits, by stage, selector,
   range, blast radius and holdback.
   With `devices`, a fleet of that size is imagined with the labels of the one that is enrolled. Only labels that
   devices tell are known: a selector on another one is warned of.
2. Traffic is that of the model's newest rollouts, from the stored tallies; else an assumption, which is said.
3. A warning is about a plan that is pointless or dangerous; nothing here refuses one.
"""

import math
from collections.abc import Sequence

import msgspec

from whimbrel.errors import Refused
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import VersionRecord
from whimbrel.flows.reports.usage import usage_of
from whimbrel.flows.rollouts.blue_green import blue_green_sentences, blue_green_warnings
from whimbrel.flows.rollouts.one_word import asking_others, one_word
from whimbrel.flows.rollouts.rollout_set import Member, find_members
from whimbrel.flows.rollouts.shares import DevicePlace, Devices, cap, runs_all, share_among, share_percent, stage_of
from whimbrel.flows.rollouts.small_fleet import protection_sentences, protection_warnings
from whimbrel.flows.rollouts.start import find_refusal
from whimbrel.flows.version_fit import VersionFit, fit_of_version
from whimbrel.flows.versions import find_version
from whimbrel.flows.wording import condition_words, devices_words, duration_words, percent_words, time_words
from whimbrel.gate.power import DetectableHarm, Usage, detectable_harm
from whimbrel.plan.plan import Plan, Stage, VersionName
from whimbrel.plan.schedule import frozen_until
from whimbrel.plan.selector_words import selector_words
from whimbrel.policy.bucket import BUCKETS

_IMAGINED = 100_000  # places that stand for a larger fleet


class StageCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: how many devices, what it could see, and the sentences that say so."""

    name: str
    share_percent: float  # of the rollout's range
    devices: int  # on the new version when it is entered, with those of the stages before
    new_devices: int
    control: int
    shadow: bool  # its devices hold the version, and are served by the old one
    hours: float
    earliest: float | None  # when it may be entered at the soonest, POSIX seconds; None: its freezes never end
    sight: DetectableHarm
    sentences: tuple[str, ...]


class PlanCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The whole plan."""

    model: str
    target: str
    baseline: str | None
    fleet: int
    imagined: bool
    fit: VersionFit  # of the fleet that there is
    traffic: Usage
    stages: tuple[StageCheck, ...]
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def check_plan(
    registry: RegistryPort, fleet: FleetPort, plan: Plan, *, now: float, devices: int | None = None
) -> PlanCheck:
    """Explain `plan`. Raises `NotFound` or `Refused` where it names no version of a known model."""
    try:
        name = VersionName.parse(plan.model_version)
    except ValueError as error:
        raise Refused(str(error)) from error
    model = registry.model(name.model)
    versions = registry.versions(name.model)
    target = find_version(versions, name)
    fit = fit_of_version(registry, fleet, model.name, target.serial)
    following, stands_for = _fleet(list(Devices(fleet, model.name, salt=model.salt).places()), devices)
    members = _members(registry, target)
    can_run = runs_all(
        registry, {model.name: target.serial, **{each.version.model: each.version.serial for each in members}}
    )
    places = [(place, labels) for place, labels in following if can_run is None or can_run(labels)]
    plan = msgspec.structs.replace(plan, alpha=plan.alpha / (1 + len(members)))  # as the rollout has it
    usage = usage_of(registry, fleet, model.name)
    first = model.baseline is None
    if first:
        plan = plan.without_holdback
    word = one_word(registry, [model.name, *(each.version.model for each in members)])
    ends = _ends(plan, places, stands_for=stands_for) if word is not None else []
    plan = asking_others(plan, word, ends=ends)
    stages = _stages(plan, places, stands_for=stands_for, usage=usage, first=first, now=now)
    count = devices if devices is not None else len(following)
    baseline = next((v for v in versions if v.serial == model.baseline), None)
    refusal = find_refusal(registry, plan, model, target)
    refused = [f"it would be refused now: {refusal}"] if refusal else []
    untold = [*_unfit(fit, target), *_undeclared(fleet), *_untold_labels(plan, told=model.settings.report_labels)]
    return PlanCheck(
        model=model.name,
        target=_named(target),
        baseline=_named(baseline) if baseline else None,
        fleet=count,
        imagined=devices is not None,
        fit=fit,
        traffic=usage,
        stages=stages,
        sentences=(
            *_set_sentences(members),
            *_sentences(plan, stages, baseline=baseline.semantic_version if baseline else None, first=first),
        ),
        warnings=(*refused, *untold, *_warnings(plan, stages, count, first=first, now=now)),
    )


def _members(registry: RegistryPort, target: VersionRecord) -> list[Member]:
    try:
        return find_members(registry, target)
    except Refused:
        return []  # the check says that it would be refused, and why


def _set_sentences(members: Sequence[Member]) -> tuple[str, ...]:
    if not members:
        return ()
    return (
        f"It is one of a set, and carries what it requires: {', '.join(each.title for each in members)}. A device "
        "takes all of them or none, and harm in any of them takes all back.",
    )


def _named(version: VersionRecord) -> str:
    return f"{version.version} ({version.semantic_version})"


def _fleet(places: list[DevicePlace], devices: int | None) -> tuple[list[DevicePlace], float]:
    if devices is None:
        return places, 1.0
    shown = min(devices, _IMAGINED)
    labels = [each for _, each in places] or [{}]
    step = BUCKETS / shown
    # A stride that shares no factor with the number of labels keeps labels and buckets apart.
    imagined = [(int(n * step), labels[(n * 7919) % len(labels)]) for n in range(shown)]
    return imagined, devices / shown


def _ends(plan: Plan, places: Sequence[DevicePlace], *, stands_for: float) -> list[int]:
    """The buckets where the shares of the stages end."""
    ends: list[int] = []
    for index in range(len(plan.stages)):
        ends.append(share_among(places, plan, stage=index, shares=ends, stands_for=stands_for))
    return ends


def _stages(
    plan: Plan, places: Sequence[DevicePlace], *, stands_for: float, usage: Usage, first: bool, now: float
) -> tuple[StageCheck, ...]:
    shares: list[int] = []
    checks: list[StageCheck] = []
    begins = max(now, plan.schedule.at()) if plan.schedule is not None else now
    before = 0
    for index, stage in enumerate(plan.stages):
        begins = frozen_until(plan.freeze, begins) or begins
        shares.append(share_among(places, plan, stage=index, shares=shares, stands_for=stands_for))
        stages_of_devices = [stage_of(plan, shares, place, labels) for place, labels in places]
        if stage.shadow is not None:  # they hold it, and are served as before
            stages_of_devices = [
                index if plan.range.start <= place < shares[-1] and stage.selector.matches(labels) else None
                for place, labels in places
            ]
        treated = round(sum(each is not None for each in stages_of_devices) * stands_for)
        own = round(sum(each == index for each in stages_of_devices) * stands_for)
        control = sum(
            not first and each is None and shares[-1] <= place < plan.range.end and stage.selector.matches(labels)
            for each, (place, labels) in zip(stages_of_devices, places, strict=True)
        )
        hours = max(stage.duration_hours, 0.0)
        sight = detectable_harm(plan, stage=index, treated=own, control=control * stands_for, hours=hours, usage=usage)
        check = StageCheck(
            name=stage.name,
            share_percent=share_percent(plan, shares[-1]),
            devices=treated,
            new_devices=treated - before,
            shadow=stage.shadow is not None,
            control=round(control * stands_for),
            hours=hours,
            earliest=begins if math.isfinite(begins) else None,
            sight=sight,
            sentences=(),
        )
        checks.append(msgspec.structs.replace(check, sentences=_stage_words(plan, index, check, first=first)))
        before, begins = treated if stage.shadow is None else 0, begins + 3600 * hours
    return tuple(checks)


def _stage_words(plan: Plan, index: int, check: StageCheck, *, first: bool) -> tuple[str, ...]:
    stage = plan.stages[index]
    whom, share = selector_words(stage.selector), percent_words(check.share_percent)
    only = f", of devices whose {whom}" if whom else ""
    sentences = [
        f"{share} of the buckets{only}: {_do(check.new_devices, 'gets', 'get')} the new version, "
        f"{_do(check.devices, 'has', 'have')} it then, and {_do(check.control, 'stays', 'stay')} on the old one as "
        "control."
        if not check.shadow
        else f"{share} of the buckets{only}: {_do(check.devices, 'tries', 'try')} the new version in the "
        "shadow of the old one, which goes on serving them. Nobody gets its answers."
    ]
    if first:
        sentences = [
            f"{share} of the buckets{only}: {_do(check.new_devices, 'gets', 'get')} the version, "
            f"{_do(check.devices, 'has', 'have')} it then. All others have no version of the model."
        ]
    if (most := cap(plan, stage=index)) is not None:
        sentences.append(
            f"The blast radius keeps it at {devices_words(most)} at most, as they are enrolled when it begins."
        )
    elif plan.blast_radius is not None and index < len(plan.stages) - 1 and not check.shadow:
        sentences.append(f"The blast radius keeps it at {plan.blast_radius.percent:g}% of all devices at most.")
    if stage.approval is not None:
        who = "one person" if stage.approval.count == 1 else f"{stage.approval.count} people"
        note = f" ({stage.approval.note})" if stage.approval.note else ""
        sentences.append(f"It begins when {who} approved{note}, not counting who started the rollout.")
    if stage.conditions is not None:
        wanted = "; ".join(condition_words(stage.conditions)) or "whenever they like"
        sentences.append(f"Its devices fetch and activate only: {wanted}; others wait.")
    most_hours = f" A doubt bakes on until {stage.max_hours:g} h, then it holds." if stage.max_hours is not None else ""
    sentences.append(f"It soaks for at least {check.hours:g} h.{most_hours}")
    if not check.shadow and not first:
        sentences.append(_sight_words(check))
    return tuple(sentences)


def _do(count: int, one: str, several: str) -> str:
    return f"{devices_words(count)} {several if count > 1 else one}"


def _sight_words(check: StageCheck) -> str:
    sight = check.sight
    waits = [(f"a crash rate of {ratio}x", hours) for ratio, hours in sight.hours_to_see.items()]
    waits.append(("accuracy 2 points lower", sight.hours_to_see_drop))
    durations = [f"{what} in about {duration_words(hours)}" for what, hours in waits if hours is not None]
    if not check.new_devices or not check.control:
        if not check.devices:
            return "It can compare nothing: no device is on the new version."
        if not check.control:
            return "It compares no two versions at one time: no device is left as a control."
        return "It adds no device: those of the stages before go on being compared."
    if sight.crash_ratio is None or check.hours <= 0:
        first = "With no soak time there is no harm that it would prove for certain."
    else:
        first = f"With 80% chance it proves a crash rate of {sight.crash_ratio:.1f}x the control's, or more."
    return (
        f"{first} It needs, as a rule: {'; '.join(durations)}."
        if durations
        else f"{first} It will not prove less in ten years."
    )


def _sentences(plan: Plan, stages: Sequence[StageCheck], *, baseline: str | None, first: bool) -> tuple[str, ...]:
    without = [] if first else [n for n, each in enumerate(stages) if each.devices and not each.control]
    compares = not plan.is_blue_green or plan.shadows or plan.holdback
    sentences = [
        "It is the first version, so there is nothing to compare it with: probes, trials, the kill switch and absolute "
        "limits protect its devices. Taken back, it leaves them without a version."
        if first
        else "It compares no two versions at one time."
        if not compares
        else f"{'Every stage' if not without else 'A stage with a control'} is compared with devices that stay on the "
        "old version, at the same time. Crashes, errors, silence, latency and accuracy are watched where devices "
        "report them.",
        *(blue_green_sentences(plan) if plan.is_blue_green and not first else ()),
        *protection_sentences(
            plan,
            without_control=without,
            baseline=baseline,
            why="all of its devices change at once" if plan.is_blue_green else "the fleet is too small",
        ),
        "A limit that is proven to be broken takes it back by itself."
        if first
        else "Proven harm goes back by itself, also harm that is smaller than the plan's limits: a limit decides the "
        "label, and what is promoted."
        if plan.on_small_harm == "rollback"
        else "Proven harm beyond the plan's limits goes back by itself; smaller harm holds, and a person decides.",
        "It is promoted when every guardrail is proven to be within its margin; until then it holds."
        if plan.promote == "when_proven"
        else "It is promoted when it soaked, nothing was proven and every estimate keeps its limit. That proves no "
        "more than what the stage could have seen.",
    ]
    last = stages[-1]
    if plan.holdback:
        kept = last.control
        sentences.append(
            f"A holdback of {plan.holdback:g}% ({devices_words(kept)}) stays on the old version until the last "
            "soak ends; then everybody gets the new one."
            if kept or not last.devices
            else f"The holdback of {plan.holdback:g}% is empty: no device is in it."
        )
    elif not first and not plan.is_blue_green:
        sentences.append(
            "Without a holdback, from 100% on only absolute limits and silence are judged: nothing is left to compare."
        )
    every = [plan.criteria(index) for index in range(len(plan.stages))]
    unseen = [
        name
        for name, asked in (
            ("battery", any(each.battery_increase_max or each.battery_max for each in every)),
            ("drift of predictions", any(each.drift_psi_max for each in every)),
            ("user reports", any(each.user_reports_ratio_max for each in every)),
        )
        if not asked
    ]
    if unseen:
        sentences.append(f"Not judged, since the plan asks for no limit: {', '.join(unseen)}.")
    sentences += [f"Nothing begins or advances {each.words()}; going back never waits." for each in plan.freeze]
    if plan.schedule is not None:
        sentences.append(f"It begins by itself at {time_words(plan.schedule.at())}.")
    if last.earliest is not None and any(each.devices for each in stages):
        sentences.append(f"At the soonest it is complete at {time_words(last.earliest + 3600 * last.hours)}.")
    return tuple(sentences)


def _warnings(plan: Plan, stages: Sequence[StageCheck], fleet: int, *, first: bool, now: float) -> list[str]:
    warnings: list[str] = []
    begin, last = stages[0], stages[-1]
    if not fleet:
        warnings.append("no device follows the model, so nothing can be counted; imagine a fleet with --devices N")
    if plan.is_blue_green:
        warnings += blue_green_warnings(plan, first=first)
    elif len(stages) == 1:
        warnings.append("one stage: there is no canary, and all of its devices are at stake at once")
    elif begin.share_percent >= 50 and not begin.shadow:
        warnings.append(
            f"the first stage is {percent_words(begin.share_percent)} already: most devices have it before anything is "
            "known"
        )
    if not plan.holdback and not first and not plan.is_blue_green:
        warnings.append("no holdback: at 100% nothing is left to compare with")
    for index, (stage, check) in enumerate(zip(plan.stages, stages, strict=True)):
        before = any(each.devices for each in stages[:index] if not each.shadow)
        warnings += _stage_warnings(plan, index, stage, check, fleet=fleet, before=before)
    without = [n for n, each in enumerate(stages) if each.devices and not each.control]
    warnings += protection_warnings(plan, without_control=without, devices=[each.devices for each in stages])
    if not plan.reaches_everyone:
        warnings.append("it ends before it reaches every device: it holds at its end, and a person decides")
    if not plan.rollback.auto_rollback:
        warnings.append("auto_rollback is off: proven harm waits for a person")
    if plan.on_success.retire_previous:
        warnings.append("retire_previous: after it is complete there is no way back to the version before")
    if last.earliest is None:
        warnings.append("its freezes never end, so it can never begin or advance")
    elif plan.schedule is not None and plan.schedule.at() < now:
        warnings.append("its schedule is in the past: it begins at once")
    return warnings


def _unfit(fit: VersionFit, target: VersionRecord) -> list[str]:
    """The devices that no variant of the target fits: they take part in no stage."""
    if not fit.none:
        return []
    why = f"`whimbrel version devices {target.version} --model {fit.model}` says why"
    if fit.none == fit.fleet:
        return [f"no device that follows {fit.model} can run it: no variant fits, and nobody gets it; {why}"]
    return [f"{fit.none:,} of {fit.fleet:,} devices can run no variant of it, and are in no stage's count; {why}"]


def _undeclared(fleet: FleetPort) -> list[str]:
    """The devices that count for every model, since they never said which ones they follow."""
    count = fleet.count_undeclared()
    if not count:
        return []
    who = "1 enrolled device has" if count == 1 else f"{count:,} enrolled devices have"
    follow, count_as = ("it follows", "is counted as one") if count == 1 else ("they follow", "are counted as ones")
    return [
        f"{who} not said which models {follow}, and {count_as} of this model's; a device says it with its next report"
    ]


def _untold_labels(plan: Plan, *, told: Sequence[str]) -> list[str]:
    """The labels that stages select by and devices do not tell: their devices cannot be counted here."""
    asked = {label for stage in plan.stages for label in stage.selector.labels}
    model = VersionName.parse(plan.model_version).model
    return [
        f"stages select by the label {label!r}, which devices are not asked to tell: a device that never told it is "
        f"counted as one without it, here and by the blast radius; whimbrel model set {model} --report-label {label}"
        for label in sorted(asked.difference(told))
    ]


def _stage_warnings(plan: Plan, index: int, stage: Stage, check: StageCheck, *, fleet: int, before: bool) -> list[str]:
    """`before`: whether a stage before it has devices."""
    warnings: list[str] = []
    asked_percent = 100 * (plan.share_end(index) - plan.range.start) / plan.range.buckets
    if fleet and not check.devices:
        warnings.append(
            f"stage {stage.name}: no device is in it; "
            + ("it is passed by what the devices of the stages before report" if before else "it holds until one is")
        )
    if check.share_percent > asked_percent + 1e-9 and fleet:
        before_and_after = f"from {percent_words(asked_percent)} to {percent_words(check.share_percent)}"
        warnings.append(f"stage {stage.name}: raised {before_and_after}, so that a device is in it")
    if index and check.devices and not check.new_devices:
        warnings.append(f"stage {stage.name}: it adds no device to those of the stages before")
    final = index == len(plan.stages) - 1
    twice = check.sight.hours_to_see.get("2")
    if not final and check.new_devices and not check.hours:
        warnings.append(f"stage {stage.name}: it does not soak, so it goes on with the first report")
    elif (
        not final
        and not check.shadow
        and check.new_devices
        and check.control
        and (twice is None or twice > check.hours)
    ):
        needs = f"that takes about {duration_words(twice)}" if twice is not None else "it never would"
        warnings.append(f"stage {stage.name}: {check.hours:g} h are too short to see a doubled crash rate; {needs}")
    return warnings
