"""A model goes back to an earlier version, at any time: also long after its rollout was complete. (Promise 10.)

1. One transaction, one new policy document. Its devices are those of a selector, or all.
2. It goes back to a version that has been the baseline: the one that is named, or else the first of those to which
   devices fall back by themselves. Each device finds the same one by `decide`, so the policy names no device.
3. What those devices leave is quarantined for them. So is what they pass over on the way: a device whose fallbacks are
   tried in order would else stop there. Only a person's word lifts it (`lift_quarantine`).
4. Where all devices go back, the version that they go back to is the baseline and the champion, and the completed
   rollout that brought the other one goes back with it: it says how many devices are not off it yet.
5. What rolled out as one goes back as one: the other models of its set, and those that require what is left, each to
   the version that goes with the others (`versions_together`).
6. Refused, with what to do instead: no earlier version; one that is revoked, below the floor, retired or quarantined;
   one that no version of another model goes with; a live rollout or experiment of any of the models, whose devices are
   assigned by another rule.

Called by the admin API for people, and by standing monitors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from whimbrel.errors import Conflict, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.quarantine import quarantine
from whimbrel.flows.records import ModelRecord, QuarantineRecord, RolloutRecord, VersionRecord
from whimbrel.flows.render_policy import known_good
from whimbrel.flows.rollouts.finish import after_failure
from whimbrel.flows.rollouts.rollout_set import save_set
from whimbrel.flows.rollouts.versions_together import rollout_that_brought, versions_together
from whimbrel.flows.wording import selector_words
from whimbrel.model.release import Line
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.plan.rollout_states import Event, State, transition


class WayBack(msgspec.Struct, frozen=True, kw_only=True):
    """How a model goes back. The devices of `selector` leave `leaves` and run `to`.

    `passes`: good versions between the two, which are quarantined as well. `rollout`: the completed one that brought
    `leaves`, where there is one. `others`: the models that go back with it, by name.
    """

    model: str
    leaves: VersionRecord
    to: VersionRecord
    passes: tuple[VersionRecord, ...] = ()
    selector: Selector = EVERYONE
    rollout: str | None = None
    others: tuple["WayBack", ...] = ()

    @property
    def quarantined(self) -> tuple[VersionRecord, ...]:
        """What its devices refuse from then on."""
        return (self.leaves, *self.passes)


def roll_back_model(
    registry: RegistryPort,
    model: str,
    *,
    lines: Callable[[str], Line],
    to: int | None = None,
    selector: Selector = EVERYONE,
    because: str,
    actor: str,
    now: float,
    leaves: int | None = None,
    evidence: Mapping[str, object] = {},
) -> WayBack:
    """Take the version that the devices of `selector` run back. Returns what was done. `now`: POSIX seconds.

    `lines`: a model's, as its publisher signed it last. `to`: the serial to go back to; None: the newest one that they
    may run. `leaves`: the serial that the caller saw them run. `evidence` goes into the audit log.

    Raises `Refused` where it cannot be, with what to do instead; `Conflict` where they do not run `leaves` any more;
    `NotFound` for a model that is not there. Nothing is changed then.
    """
    way = find_way_back(registry, model, lines=lines, to=to, selector=selector)
    locked = sorted([model, *(other.model for other in way.others)])
    for name in locked:  # a rollout that starts now finds the new baselines
        registry.model(name, lock=True)
    way = find_way_back(registry, model, lines=lines, to=to, selector=selector)
    if sorted([model, *(other.model for other in way.others)]) != locked:
        raise Conflict(f"what goes back with {model} is something else meanwhile; look again, then repeat it")
    if leaves is not None and leaves != way.leaves.serial:
        raise Conflict(
            f"{model} is at {_name(way.leaves)} meanwhile, and not at serial {leaves}; look again, then repeat it"
        )
    action = Event.ROLL_BACK if selector.everyone else Event.SLICE_BACK
    rollouts = [None if each.rollout is None else registry.rollout(each.rollout) for each in (way, *way.others)]
    for each, rollout in zip((way, *way.others), rollouts, strict=True):
        _change_model(registry, each, rollout, because=because, now=now)
    for each, rollout in zip((way, *way.others), rollouts, strict=True):
        after = rollout
        if selector.everyone and rollout is not None:
            after = _take_back(registry, rollout, because=because, now=now)
        what = _evidence(each) | ({} if rollout is None else {"stage": rollout.stage})
        if each is way:
            what |= {"others": {other.model: _evidence(other) for other in way.others}} if way.others else {}
            what |= dict(evidence)
            name, why = action.value, because
        else:  # an action of its own: receivers of alerts hear of it once
            name, why = "move_with_set", f"{action.value} with {model}: {because}"
        audit(registry, after, model=each.model, actor=actor, action=name, because=why, now=now, evidence=what)
        if selector.everyone and after is not None:
            after_failure(registry, after, now=now)
    return way


def roll_back_completed(
    registry: RegistryPort, identifier: str, *, lines: Callable[[str], Line], because: str, actor: str, now: float
) -> RolloutRecord:
    """Take a completed rollout back: its model goes back to the baseline from before it. Returns its row.

    Raises `Refused` where its target is not the baseline any more, or where the model cannot go back.
    """
    rollout = completed_rollout(registry, identifier)
    model, target = rollout.model, rollout.target
    because, to = because or f"rollback by {actor}", rollout.baseline
    roll_back_model(registry, model, lines=lines, to=to, leaves=target, because=because, actor=actor, now=now)
    return registry.rollout(identifier)


def completed_rollout(registry: RegistryPort, identifier: str) -> RolloutRecord:
    """A completed rollout whose target is the baseline still. Raises `Refused` where it is not."""
    rollout = registry.rollout(identifier)
    model, target = rollout.model, rollout.target
    if rollout.state is not State.COMPLETED or registry.model(model).baseline != target:
        raise Refused(
            f"rollout {rollout.id} is {rollout.state.value.replace('_', ' ')}, and its version is not the baseline of "
            f"{model} any more; to take back what devices run now: whimbrel model rollback {model}"
        )
    return rollout


def find_way_back(
    registry: RegistryPort,
    model: str,
    *,
    lines: Callable[[str], Line],
    to: int | None = None,
    selector: Selector = EVERYONE,
) -> WayBack:
    """How the devices of `selector` would go back; nothing is changed. Raises `Refused`, as `roll_back_model` does."""
    registry.model(model)
    refuse_while_others_decide(registry, model)
    own = _choices(registry, model, line=lines(model), selector=selector)
    if own is None:
        raise Refused(
            f"{model} has no baseline, so there is nothing to take back; a version is brought to devices with: "
            "whimbrel rollout start"
        )
    if to is None and not own.earlier:
        raise Refused(own.nowhere_to_go())
    if to is not None and (objection := own.objection(to)):
        named = _name(own.versions[to]) if to in own.versions else f"serial {to}"
        candidates = ", ".join(_name(own.versions[serial]) for serial in own.earlier[:5]) or "none"
        raise Refused(f"{model} cannot go back: {named} {objection}. What it can go back to: {candidates}")
    runs = {model: own.leaves}
    for record in registry.models():
        serial = _runs(registry, record, lines=lines, selector=selector)
        if serial is not None:
            runs[record.name] = serial
    reasons = []
    for serial in [to] if to is not None else own.earlier:
        answer = _ways_to(registry, model, serial, runs=runs, lines=lines, selector=selector)
        if not isinstance(answer, str):
            return answer
        reasons.append(f"{_name(own.versions[serial])}: {answer}")
    raise Refused(
        f"{model} cannot go back to a version that goes with those of the other models. {'; '.join(reasons[:5])}. "
        "Publish repaired versions that go together and roll them out, or name an older version: "
        f"whimbrel model rollback {model} --to VERSION"
    )


class _Choices(msgspec.Struct, frozen=True):
    """What the devices of a selector run of one model, and the serials that they can go back to, the next one first.

    `order`: the baseline and the good versions; `refused`: those that these devices refuse, with the reasons.
    """

    versions: Mapping[int, VersionRecord]
    leaves: int
    earlier: Sequence[int]
    order: Sequence[int]
    refused: Mapping[int, str]
    line: Line

    def objection(self, serial: int) -> str:
        """Why devices cannot go back to a version; "" where they can."""
        return _objection(
            self.versions.get(serial),
            serial,
            leaves=self.leaves,
            refused=self.refused,
            line=self.line,
            order=self.order,
        )

    def nowhere_to_go(self) -> str:
        """The sentence of a model without an earlier version."""
        return _nowhere_to_go(self.versions, self.leaves, refused=self.refused, line=self.line)


def _choices(registry: RegistryPort, model: str, *, line: Line, selector: Selector) -> _Choices | None:
    """None where the model has no baseline."""
    baseline = registry.model(model).baseline
    if baseline is None:
        return None
    versions = {each.serial: each for each in registry.versions(model)}
    quarantines = registry.quarantines(model)
    refused = {each.serial: each.because for each in quarantines if _covers(each, selector)}
    order = [baseline, *known_good(list(versions.values()), quarantines)]
    candidates = [serial for serial in dict.fromkeys(order) if serial not in refused and line.allows(serial)]
    # Some devices may have left the baseline before: they run the first version that is left to them.
    left = not selector.everyone and baseline in refused and candidates
    leaves = candidates[0] if left else baseline
    earlier = [serial for serial in candidates if serial != leaves]
    return _Choices(versions, leaves, earlier, order, refused, line)


def _runs(
    registry: RegistryPort, record: ModelRecord, *, lines: Callable[[str], Line], selector: Selector
) -> int | None:
    """What the devices of a selector run of a model; None where it has no baseline."""
    refused = {each.serial for each in registry.quarantines(record.name) if _covers(each, selector)}
    if selector.everyone or record.baseline not in refused:
        return record.baseline
    choices = _choices(registry, record.name, line=lines(record.name), selector=selector)
    return None if choices is None else choices.leaves


def _ways_to(
    registry: RegistryPort,
    model: str,
    to: int,
    *,
    runs: Mapping[str, int],
    lines: Callable[[str], Line],
    selector: Selector,
) -> WayBack | str:
    """How `model` goes back to `to`, and the others with it; or why no versions of them go with it."""
    together = versions_together(registry, model, to, runs=runs)
    if isinstance(together, str):
        return together
    choices = {}
    for name, serial in together.items():
        refuse_while_others_decide(registry, name)
        own = _choices(registry, name, line=lines(name), selector=selector)
        if own is None:
            return f"{name} has no baseline"
        if objection := own.objection(serial):
            named = _name(own.versions[serial]) if serial in own.versions else f"serial {serial}"
            return f"{name} {named} {objection}"
        choices[name] = own

    def way(name: str, serial: int, others: tuple[WayBack, ...] = ()) -> WayBack:
        own = choices[name]
        return WayBack(
            model=name,
            leaves=own.versions[own.leaves],
            to=own.versions[serial],
            passes=tuple(own.versions[each] for each in own.earlier[: own.earlier.index(serial)]),
            selector=selector,
            rollout=brought.id if (brought := rollout_that_brought(registry, name, own.leaves)) else None,
            others=others,
        )

    return way(model, to, tuple(way(name, serial) for name, serial in sorted(together.items()) if name != model))


def _change_model(
    registry: RegistryPort, way: WayBack, rollout: RolloutRecord | None, *, because: str, now: float
) -> None:
    """Quarantine what is left; where all devices go back, the baseline and the names follow."""
    for version in way.quarantined:
        quarantine(registry, way.model, version.serial, because=because, now=now, selector=way.selector)
    if way.selector.everyone:
        registry.change_model(way.model, baseline=way.to.serial)
        for version in way.quarantined:  # also when the quarantine is lifted: only a rollout makes it good again
            registry.change_version(way.model, version.serial, good=False)
        _move_aliases(registry, way, rollout)


def refuse_while_others_decide(registry: RegistryPort, model: str) -> None:
    """Raises `Refused` while a rollout or an experiment assigns versions to devices of the model."""
    for rollout in registry.rollouts(model=model, live=True):
        raise Refused(
            f"rollout {rollout.id} of {model} is {rollout.state.value.replace('_', ' ')}: it compares a new version "
            f"with the one that is to be left. To take its new version back: whimbrel rollout rollback {rollout.id}. "
            f"To leave the older one too, end it first (whimbrel rollout abort {rollout.id}), then repeat this"
        )
    for name, _ in registry.experiment_ranges(model):
        raise Refused(f"{name} of {model} assigns versions to devices; stop it first, then repeat this")


def _covers(entry: QuarantineRecord, selector: Selector) -> bool:
    """Whether a quarantine is known to hold for all devices of `selector`."""
    return entry.selector.everyone or entry.selector == selector


def _nowhere_to_go(
    versions: Mapping[int, VersionRecord], leaves: int, *, refused: Mapping[int, str], line: Line
) -> str:
    """The sentence of a model without an earlier version, with the reason for each that there is."""
    reasons = [
        f"{_name(version)} {_objection(version, serial, leaves=leaves, refused=refused, line=line, order=())}"
        for serial, version in sorted(versions.items(), reverse=True)
        if serial != leaves
    ]
    model = versions[leaves].model
    why = f" ({'; '.join(reasons[:5])})" if reasons else ""
    return (
        f"{model} has no earlier version than {_name(versions[leaves])} to go back to{why}. Publish a repaired version "
        f"and roll it out, or forbid this one: whimbrel version revoke {versions[leaves].version} --model {model}"
    )


def _objection(
    version: VersionRecord | None,
    serial: int,
    *,
    leaves: int,
    refused: Mapping[int, str],
    line: Line,
    order: Sequence[int],
) -> str:
    """Why devices cannot go back to a version; "" where they can. `order`: the baseline and those that are good."""
    if version is None:
        return "was never published"
    if serial == leaves:
        return "is what its devices run"
    if serial in line.revoked:
        return "is revoked by its publisher"
    if serial < line.minimum_serial:
        return f"is below the line's floor, serial {line.minimum_serial}"
    if serial in refused:
        return f"was taken back itself ({refused[serial]})"
    if version.retired:
        return "is retired"
    if not version.good:
        return "never was the baseline, or was taken back from every device; a rollout brings it to devices"
    return "" if serial in order else "is older than all that a policy names"


def _take_back(registry: RegistryPort, rollout: RolloutRecord, *, because: str, now: float) -> RolloutRecord:
    """A completed rollout goes back, and all of its set with it: none of them has a state of its own."""
    lead = registry.rollout(rollout.lead or rollout.id)  # as it is now: another model of the set may have moved it
    if lead.state is State.COMPLETED:
        state = transition(lead.state, Event.TAKE_BACK)
        after = msgspec.structs.replace(lead, state=state, state_since=now, ended_at=now, because=because)
        save_set(registry, after, before=lead)
    return registry.rollout(rollout.id)


def _move_aliases(registry: RegistryPort, way: WayBack, rollout: RolloutRecord | None) -> None:
    """The names that a completed rollout gives its version follow the baseline."""
    registry.set_alias(way.model, "champion", way.to.serial)
    alias = rollout.plan.on_success.alias if rollout is not None else None
    if alias is not None and registry.aliases(way.model).get(alias) == way.leaves.serial:
        registry.set_alias(way.model, alias, way.to.serial)


def _evidence(way: WayBack) -> dict[str, Any]:
    return {
        "leaves": way.leaves.serial,
        "to": way.to.serial,
        "quarantined": [version.serial for version in way.quarantined],
        "devices": selector_words(way.selector),
    }


def _name(version: VersionRecord) -> str:
    return f"{version.version} ({version.semantic_version})"
