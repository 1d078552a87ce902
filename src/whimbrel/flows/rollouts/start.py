"""A rollout begins, or waits until it may: its version is found, refusals are made, the first share is set. (Step 6.)

1. A version is named by calendar or semantic version; an ambiguous name is refused with the candidates.
2. Refused: a version that is retired, quarantined, over the plan's `size_bytes_max`, without the reference that its
   plan judges drift by, or the baseline already; a shadow stage of a model without a baseline. The same is asked again
   of one that waited, when its turn comes.
3. In its way is a live rollout or experiment of the model whose range meets its own, or an older rollout that queues
   for such a range.
   The plan says whether it is then refused, or queues and begins by itself.
4. A draft begins when people approved it, and a rollout past the share that its model names waits for another person.
   Nothing begins before its time, or in a freeze.
5. What waits has no say in the policy: baseline and shares are those of the moment in which it begins.
6. A model without a baseline has a first version to roll out: devices that the plan does not reach run none, and there
   is no holdback.
7. What its version requires of other models begins with it, as one set (rollout_set). Each version of a set is judged
   with its part of the plan's false-alarm budget, and anything live of any of its models is in its way.
"""

import msgspec

from whimbrel.errors import Conflict, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.records import ModelRecord, RolloutRecord, VersionRecord
from whimbrel.flows.rollouts.approvals import approvals_wanted
from whimbrel.flows.rollouts.one_word import asking_others, bounded_end, one_word
from whimbrel.flows.rollouts.rollout_set import Member, carry, find_members, member_ids
from whimbrel.flows.rollouts.shares import Devices, over_the_cap, share_ends, share_for
from whimbrel.flows.versions import find_version, reference_of
from whimbrel.flows.wording import people_words, percent_words, time_words
from whimbrel.gate.guardrails import drift_limits
from whimbrel.plan.plan import Plan, VersionName
from whimbrel.plan.ranges import Range, in_the_way
from whimbrel.plan.rollout_states import Event, State, transition
from whimbrel.plan.schedule import frozen_until
from whimbrel.policy.bucket import BUCKETS
from whimbrel.policy.delays import longest_wait_s


def start_rollout(
    registry: RegistryPort,
    fleet: FleetPort,
    plan: Plan,
    *,
    plan_text: str,
    tag: str,
    hour_s: float,
    actor: str,
    now: float,
    override: str = "",
    draft: bool = False,
    started_by: str | None = None,
) -> RolloutRecord:
    """Write the rollout, and begin it where it may; the controller publishes. `tag` (random) ends its id.

    `override`: a person's reason to offer a version again that was taken back; it is logged. `draft`: it waits for an
    approval, as one does whose first stage asks for one. `started_by`: the account whose wish it is, where that is not
    the actor: whoever started the experiment that it follows; "" where a machine writes it down.
    """
    try:
        name = VersionName.parse(plan.model_version)
    except ValueError as error:
        raise Refused(str(error)) from error
    model = registry.model(name.model, lock=True)  # two starts at once: one of them finds the other
    target = find_version(registry.versions(name.model), name)
    baseline = _baseline_for(registry, plan, model, target, override=override)
    alone = started_by == ""  # no person's word is in it yet; who sets a draft going adds his
    plan = _asking_others(registry, fleet, plan, target, first=1 + alone, later=1 + (alone and not draft))
    rollout = RolloutRecord(
        namespace=registry.namespace,
        id=f"{model.name[:40]}-{target.serial}-{tag}",
        model=model.name,
        baseline=baseline,
        target=target.serial,
        plan=plan,
        state=State.DRAFT,
        stage=0,
        shares=(),
        hour_s=hour_s,
        created_at=now,
        stage_since=now,
        because=f"written down by {actor}",
        state_since=now,
        override=override,
        started_by=actor if started_by is None else started_by,
    )
    waits = draft or plan.stages[0].approval is not None
    following = None if waits else _next_event(registry, fleet, rollout, model=model, baseline=baseline, now=now)
    registry.add_rollout(rollout, plan_text=plan_text)
    if following is not None:
        return _apply(registry, rollout, following, actor=actor, now=now)
    approvals = approvals_wanted(plan, stage=0)
    because = f"written down by {actor}; it begins when {people_words(approvals)} approved"
    rollout = _save(registry, msgspec.structs.replace(rollout, because=because), before=rollout)
    audit(registry, rollout, actor=actor, action="draft", because=because, now=now, evidence={"approvals": approvals})
    return rollout


def _asking_others(
    registry: RegistryPort, fleet: FleetPort, plan: Plan, target: VersionRecord, *, first: int, later: int
) -> Plan:
    """The plan, which asks for another person's approval where one person's word does not reach so far."""
    members = find_members(registry, target)
    word = one_word(registry, [target.model, *(each.version.model for each in members)])
    if word is None:
        return plan
    versions = {target.model: target.serial, **{each.version.model: each.version.serial for each in members}}
    ends = share_ends(Devices.of_versions(registry, fleet, target.model, versions), plan)
    return asking_others(plan, word, ends=ends, first=first, later=later)


def begin_or_wait(
    registry: RegistryPort, fleet: FleetPort, rollout: RolloutRecord, *, actor: str, now: float
) -> RolloutRecord:
    """Begin a rollout that has not begun, or say what it waits for.

    Raises `Refused` (`Conflict`, where another is in its way) when it cannot: nothing is changed then.
    """
    model = registry.model(rollout.model, lock=True)
    target = _version(registry, rollout)
    baseline = _baseline_for(registry, rollout.plan, model, target, override=rollout.override)
    following = _next_event(registry, fleet, rollout, model=model, baseline=baseline, now=now)
    return _apply(registry, rollout, following, actor=actor, now=now)


class _NextEvent(msgspec.Struct, frozen=True):
    """What comes next for a rollout that has not begun: it begins, or waits for its time or the way."""

    event: Event
    because: str
    baseline: int | None
    plan: Plan
    shares: tuple[int, ...] = ()
    members: tuple[Member, ...] = ()


def _next_event(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    *,
    model: ModelRecord,
    baseline: int | None,
    now: float,
) -> _NextEvent:
    plan = rollout.plan if baseline is not None else rollout.plan.without_holdback
    members = find_members(registry, _version(registry, rollout))
    names = [rollout.model, *(each.version.model for each in members)]
    if plan.schedule is not None and (at := plan.schedule.at()) > now:
        return _NextEvent(Event.SCHEDULE, f"it begins at {time_words(at)}", baseline, plan)
    if blocking := [other for name in names for other in _in_its_way(registry, rollout, model=name)]:
        what = f"rollout {blocking[0].id} of {blocking[0].model} is {blocking[0].state.value.replace('_', ' ')}"
        if plan.on_running == "refuse":
            raise Conflict(
                f"{what}; end that one first (rollout finish, abort or rollback), or let this one wait for it "
                "(on_running: queue)"
            )
        return _NextEvent(Event.QUEUE, f"{what}; it begins when the way is free", baseline, plan)
    taken = [(name, each) for name in names for each in _experiments_in_its_way(registry, rollout, model=name)]
    if taken:
        what = (
            f"{' and '.join(each for _, each in taken)} of {taken[0][0]} has devices in its range, and a device runs "
            "one version at a time"
        )
        if plan.on_running == "refuse":
            raise Conflict(f"{what}; stop it first, or let this one wait for it (on_running: queue)")
        return _NextEvent(Event.QUEUE, f"{what}; it begins when the way is free", baseline, plan)
    if (until := frozen_until(plan.freeze, now)) is not None:
        return _NextEvent(Event.SCHEDULE, f"a freeze holds until {time_words(until)}; it begins then", baseline, plan)
    versions = {model.name: rollout.target, **{each.version.model: each.version.serial for each in members}}
    devices = Devices.of_versions(registry, fleet, model.name, versions)
    word = one_word(registry, names, but={rollout.id})
    shares = (bounded_end(plan, share_for(devices, plan, stage=0), stage=0, before=(), word=word),)
    if refused := over_the_cap(devices, plan, shares=shares):
        raise Refused(f"{refused}; raise it, or begin with fewer devices")
    plan = msgspec.structs.replace(plan, alpha=plan.alpha / len(names))
    return _NextEvent(Event.BEGIN, "", baseline, plan, shares, tuple(members))


def _apply(
    registry: RegistryPort, rollout: RolloutRecord, following: _NextEvent, *, actor: str, now: float
) -> RolloutRecord:
    if following.event is not Event.BEGIN:
        return _wait(registry, rollout, following.event, following.because, actor=actor, now=now)
    after = msgspec.structs.replace(
        rollout,
        state=transition(rollout.state, Event.BEGIN),
        state_since=now,
        baseline=following.baseline,
        plan=following.plan,
        shares=following.shares,
        stage_since=now,
        because=f"started by {actor}",
        delays=(longest_wait_s(rollout.hour_s),),
        members=member_ids(following.members, tag=rollout.id.rpartition("-")[2]),
    )
    _save(registry, after, before=rollout)
    carry(registry, after, following.members, ids=after.members, now=now)
    model, target = registry.model(rollout.model), _version(registry, rollout)
    for version in (target, *(member.version for member in following.members)):
        _lift_quarantine(registry, after, version, actor=actor, now=now)
    share = (following.shares[0] - rollout.plan.range.start) / BUCKETS
    audit(
        registry,
        after,
        actor=actor,
        action=Event.BEGIN.value,
        because=f"{target.version} ({target.semantic_version})"
        f"{''.join(f' with {member.title}' for member in following.members)} "
        f"to {percent_words(100 * share)} of the devices",
        now=now,
        evidence={"shares": list(following.shares), "salt": model.salt, "baseline": following.baseline}
        | ({"members": list(after.members)} if after.members else {}),
    )
    return after


def _lift_quarantine(
    registry: RegistryPort, rollout: RolloutRecord, version: VersionRecord, *, actor: str, now: float
) -> None:
    """A version that was taken back before is offered again, since a person gave a reason."""
    quarantined = [entry for entry in registry.quarantines(version.model) if entry.serial == version.serial]
    if quarantined:
        registry.lift_quarantines(version.model, version.serial, at=now)
        evidence = {"serial": version.serial, "taken_back": [entry.because for entry in quarantined]}
        audit(registry, rollout, actor=actor, action="override", because=rollout.override, now=now, evidence=evidence)


def _version(registry: RegistryPort, rollout: RolloutRecord) -> VersionRecord:
    return next(v for v in registry.versions(rollout.model) if v.serial == rollout.target)


def _baseline_for(
    registry: RegistryPort, plan: Plan, model: ModelRecord, target: VersionRecord, *, override: str
) -> int | None:
    """The baseline to compare with; None for a first version. Raises `Refused` where it may not be rolled out now."""
    if refusal := find_refusal(registry, plan, model, target, override=override):
        raise Refused(refusal)
    return model.baseline


def find_refusal(
    registry: RegistryPort, plan: Plan, model: ModelRecord, target: VersionRecord, *, override: str = ""
) -> str | None:
    """Why this version may not be rolled out now, with its set; None where nothing speaks against it."""
    if refusal := _refusal_of_one(registry, plan, model, target, override=override):
        return refusal
    try:
        members = find_members(registry, target)
    except Refused as error:
        return str(error)
    for member in members:
        version = member.version
        refusal = _refusal_of_one(registry, plan, registry.model(version.model), version, override=override)
        if refusal:
            return f"{target.model} {target.version} requires {member.title}: {refusal}"
    return None


def _refusal_of_one(
    registry: RegistryPort, plan: Plan, model: ModelRecord, target: VersionRecord, *, override: str
) -> str | None:
    quarantined = [entry for entry in registry.quarantines(model.name) if entry.serial == target.serial]
    if target.retired:
        return f"{target.model} {target.version} is retired; publish a new version"
    if quarantined and not override:
        return (
            f"{target.model} {target.version} was taken back before ({quarantined[-1].because}); publish a new "
            "version, or offer it again with a reason (--override)"
        )
    if (limit := _size_limit(plan)) is not None and target.size_bytes > limit:
        return (
            f"the largest variant of {target.model} {target.version} has {target.size_bytes} bytes, and the plan's "
            f"size_bytes_max is {limit}; publish a smaller build, or raise the limit"
        )
    if drift_limits(plan) and reference_of(registry, model.name, target.serial) is None:
        return (
            f"the plan watches drift, and {target.model} {target.version} was published without a reference of its "
            "predictions; publish it with one in its card (reference: ...), or take drift out of the plan"
        )
    if model.baseline is None and plan.shadows:
        return (
            f"stage {plan.stages[0].name} tries the version beside the one that serves, and no version of {model.name} "
            "serves yet; begin with a stage that serves"
        )
    if model.baseline == target.serial:
        return f"{target.model} {target.version} is the baseline already: every device is meant to run it"
    return None


def _in_its_way(registry: RegistryPort, rollout: RolloutRecord, *, model: str) -> list[RolloutRecord]:
    others = [
        other
        for other in registry.rollouts(model=model, unended=True)
        if other.id != rollout.id and (other.live or (other.state is State.QUEUED and _older(other, rollout)))
    ]
    # A member's model divides its devices by another salt: whatever range is taken there may have any of them.
    return [other for other in others if model != rollout.model or other.range.meets(rollout.range)]


def _experiments_in_its_way(registry: RegistryPort, rollout: RolloutRecord, *, model: str) -> list[str]:
    own = rollout.range if model == rollout.model else Range()
    return in_the_way(own, registry.experiment_ranges(model))


def _older(other: RolloutRecord, rollout: RolloutRecord) -> bool:
    return rollout.state is not State.QUEUED or (other.created_at, other.id) < (rollout.created_at, rollout.id)


def _wait(
    registry: RegistryPort, rollout: RolloutRecord, event: Event, because: str, *, actor: str, now: float
) -> RolloutRecord:
    waits = {Event.SCHEDULE: State.SCHEDULED, Event.QUEUE: State.QUEUED}[event]
    if rollout.state is waits:
        changed = msgspec.structs.replace(rollout, because=because)
        return rollout if changed == rollout else _save(registry, changed, before=rollout)
    after = msgspec.structs.replace(rollout, state=transition(rollout.state, event), state_since=now, because=because)
    after = _save(registry, after, before=rollout)
    audit(registry, after, actor=actor, action=event.value, because=because, now=now)
    return after


def _save(registry: RegistryPort, after: RolloutRecord, *, before: RolloutRecord) -> RolloutRecord:
    registry.save_rollout(after, before=before)
    return after


def _size_limit(plan: Plan) -> int | None:
    """The least `size_bytes_max` of any stage: a file does not shrink on its way."""
    every = (plan.criteria(index).size_bytes_max for index in range(len(plan.stages)))
    return min((limit for limit in every if limit is not None), default=None)
