"""A model goes back to an earlier version, at any time: also long after its rollout was complete. (Promise 10.)

1. One transaction, one new policy document. Its devices are those of a selector, or all.
2. It goes back to a version that has been the baseline: the one that is named, or else the first of those to which
   devices fall back by themselves. Each device finds the same one by `decide`, so the policy names no device.
3. What those devices leave is quarantined for them. So is what they pass over on the way: a device whose fallbacks are
   tried in order would else stop there. Only a person's word lifts it (`lift_quarantine`).
4. Where all devices go back, the version that they go back to is the baseline and the champion, and the completed
   rollout that brought the other one goes back with it: it says how many devices are not off it yet.
5. Refused, with what to do instead: no earlier version; one that is revoked, below the floor, retired or quarantined;
   a live rollout or experiment, whose devices are assigned by another rule.

Called by the admin API for people, and by standing monitors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from whimbrel.errors import Conflict, Refused
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.quarantine import quarantine
from whimbrel.flows.records import QuarantineRecord, RolloutRecord, VersionRecord
from whimbrel.flows.render_policy import known_good
from whimbrel.flows.rollouts.finish import after_failure
from whimbrel.flows.wording import selector_words
from whimbrel.model.release import Line
from whimbrel.model.selector import EVERYONE, Selector
from whimbrel.plan.rollout_states import Event, State, transition


class WayBack(msgspec.Struct, frozen=True, kw_only=True):
    """How a model goes back. The devices of `selector` leave `leaves` and run `to`.

    `passes`: good versions between the two, which are quarantined as well. `rollout`: the completed one that brought
    `leaves`, where there is one.
    """

    model: str
    leaves: VersionRecord
    to: VersionRecord
    passes: tuple[VersionRecord, ...] = ()
    selector: Selector = EVERYONE
    rollout: str | None = None

    @property
    def quarantined(self) -> tuple[VersionRecord, ...]:
        """What its devices refuse from then on."""
        return (self.leaves, *self.passes)


def roll_back_model(
    registry: RegistryPort,
    model: str,
    *,
    line: Line,
    to: int | None = None,
    selector: Selector = EVERYONE,
    because: str,
    actor: str,
    now: float,
    leaves: int | None = None,
    evidence: Mapping[str, object] = {},
) -> WayBack:
    """Take the version that the devices of `selector` run back. Returns what was done. `now`: POSIX seconds.

    `line`: the model's, as its publisher signed it last. `to`: the serial to go back to; None: the newest one that they
    may run. `leaves`: the serial that the caller saw them run. `evidence` goes into the audit log.

    Raises `Refused` where it cannot be, with what to do instead; `Conflict` where they do not run `leaves` any more;
    `NotFound` for a model that is not there. Nothing is changed then.
    """
    registry.model(model, lock=True)  # a rollout that starts now finds the new baseline
    way = find_way_back(registry, model, line=line, to=to, selector=selector)
    if leaves is not None and leaves != way.leaves.serial:
        raise Conflict(
            f"{model} is at {_name(way.leaves)} meanwhile, and not at serial {leaves}; look again, then repeat it"
        )
    for version in way.quarantined:
        quarantine(registry, model, version.serial, because=because, now=now, selector=selector)
    rollout = None if way.rollout is None else registry.rollout(way.rollout)
    if selector.everyone:
        registry.change_model(model, baseline=way.to.serial)
        for version in way.quarantined:  # also when the quarantine is lifted: only a rollout makes it good again
            registry.change_version(model, version.serial, good=False)
        _move_aliases(registry, way, rollout)
    what = _evidence(way) | ({} if rollout is None else {"stage": rollout.stage}) | dict(evidence)
    if selector.everyone and rollout is not None:
        rollout = _take_back(registry, rollout, because=because, now=now)
    action = Event.ROLL_BACK if selector.everyone else Event.SLICE_BACK
    audit(registry, rollout, model=model, actor=actor, action=action.value, because=because, now=now, evidence=what)
    if selector.everyone and rollout is not None:
        after_failure(registry, rollout, now=now)
    return way


def roll_back_completed(
    registry: RegistryPort, identifier: str, *, line: Line, because: str, actor: str, now: float
) -> RolloutRecord:
    """Take a completed rollout back: its model goes back to the baseline from before it. Returns its row.

    Raises `Refused` where its target is not the baseline any more, or where the model cannot go back.
    """
    rollout = registry.rollout(identifier)
    model = registry.model(rollout.model, lock=True)
    if rollout.state is not State.COMPLETED or model.baseline != rollout.target:
        raise Refused(
            f"rollout {rollout.id} is {rollout.state.value.replace('_', ' ')}, and its version is not the baseline of "
            f"{rollout.model} any more; to take back what devices run now: whimbrel model rollback {rollout.model}"
        )
    because = because or f"rollback by {actor}"
    roll_back_model(registry, model.name, line=line, to=rollout.baseline, because=because, actor=actor, now=now)
    return registry.rollout(identifier)


def find_way_back(
    registry: RegistryPort, model: str, *, line: Line, to: int | None = None, selector: Selector = EVERYONE
) -> WayBack:
    """How the devices of `selector` would go back; nothing is changed. Raises `Refused`, as `roll_back_model` does."""
    record = registry.model(model)
    _refuse_while_others_decide(registry, model)
    versions = {each.serial: each for each in registry.versions(model)}
    quarantines = registry.quarantines(model)
    refused = {each.serial: each.because for each in quarantines if _covers(each, selector)}
    order = [*([record.baseline] if record.baseline else []), *known_good(list(versions.values()), quarantines)]
    candidates = [serial for serial in dict.fromkeys(order) if serial not in refused and line.allows(serial)]
    if record.baseline is None:
        raise Refused(
            f"{model} has no baseline, so there is nothing to take back; a version is brought to devices with: "
            "whimbrel rollout start"
        )
    # Some devices may have left the baseline before: they run the first version that is left to them.
    leaves = record.baseline if selector.everyone or record.baseline not in refused else candidates[0]
    earlier = [serial for serial in candidates if serial != leaves]
    if to is None:
        if not earlier:
            raise Refused(_nowhere_to_go(versions, leaves, refused=refused, line=line))
        to = earlier[0]
    elif objection := _objection(versions.get(to), to, leaves=leaves, refused=refused, line=line, order=order):
        named = _name(versions[to]) if to in versions else f"serial {to}"
        others = ", ".join(_name(versions[serial]) for serial in earlier[:5]) or "none"
        raise Refused(f"{model} cannot go back: {named} {objection}. What it can go back to: {others}")
    return WayBack(
        model=model,
        leaves=versions[leaves],
        to=versions[to],
        passes=tuple(versions[serial] for serial in earlier[: earlier.index(to)]),
        selector=selector,
        rollout=_rollout_that_brought(registry, model, leaves),
    )


def _refuse_while_others_decide(registry: RegistryPort, model: str) -> None:
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


def _rollout_that_brought(registry: RegistryPort, model: str, serial: int) -> str | None:
    """The newest completed rollout of a version."""
    completed = [
        rollout.id
        for rollout in registry.rollouts(model=model)
        if rollout.state is State.COMPLETED and rollout.target == serial
    ]
    return completed[-1] if completed else None


def _take_back(registry: RegistryPort, rollout: RolloutRecord, *, because: str, now: float) -> RolloutRecord:
    after = msgspec.structs.replace(
        rollout, state=transition(rollout.state, Event.TAKE_BACK), state_since=now, ended_at=now, because=because
    )
    registry.save_rollout(after, before=rollout)
    return after


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
