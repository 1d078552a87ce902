"""Which versions roll out as one, and how do the rollouts of a set stay one? (docs/adr/0075)

1. The set of a version is what its release requires, what these require in turn, and so on. Those that are their
   model's baseline already are there; the others are members, which the lead's rollout carries.
2. Each member has a rollout of its own, with the reports, delays, tally and gate of its model. It has the lead's salt,
   shares, stage and state: a device is in the same arm of all of them, and a move is one of all, in one transaction.
3. A set that contradicts itself, or a version that devices run beside it, is refused before anything begins.

Called wherever a rollout begins, is judged, moves or is shown.
"""

from collections.abc import Sequence

import msgspec

from whimbrel import limits
from whimbrel.errors import Refused
from whimbrel.flows.ports import ModelsPort, RegistryPort
from whimbrel.flows.records import RolloutRecord, VersionRecord
from whimbrel.flows.versions import required_by
from whimbrel.model.release import Requirement


class Member(msgspec.Struct, frozen=True):
    """A version that a set carries beside its lead, and what its model runs now."""

    version: VersionRecord
    baseline: int | None

    @property
    def title(self) -> str:
        """The model and the version, as a sentence names them."""
        return f"{self.version.model} {self.version.version} ({self.version.semantic_version})"


def find_members(registry: ModelsPort, target: VersionRecord) -> list[Member]:
    """The members of the set that `target` leads, by model; none where it requires nothing that is not there.

    Raises `Refused` where the set contradicts itself or what devices run.
    """
    serials = _closure(registry, target)
    known = {record.name: record for record in registry.models()}
    members = [
        Member(_version(registry, name, serial), known[name].baseline)
        for name, serial in sorted(serials.items())
        if name != target.model and known[name].baseline != serial
    ]
    moved = {target.model, *(each.version.model for each in members)}
    for name, record in sorted(known.items()):
        if record.baseline is None or name in moved:
            continue
        for each in required_by(registry, name, record.baseline):
            if each.model in moved and serials[each.model] != each.serial:
                raise Refused(
                    f"{name} at serial {record.baseline}, which devices run, requires {each.model} at serial "
                    f"{each.serial}; publish a version of {name} that goes with serial {serials[each.model]} of "
                    f"{each.model}, and roll out that one: it takes what it requires along"
                )
    return members


def _closure(registry: ModelsPort, target: VersionRecord) -> dict[str, int]:
    """The serial of every model of the set."""
    serials = {target.model: target.serial}
    to_read = [Requirement(model=target.model, serial=target.serial)]
    known = {record.name for record in registry.models()}
    while to_read:
        version = to_read.pop()
        for each in required_by(registry, version.model, version.serial):
            who = f"{version.model} at serial {version.serial} requires {each.model} at serial {each.serial}"
            if each.model not in known:
                raise Refused(f"{who}, and there is no model {each.model!r}; add and publish it first")
            _version(registry, each.model, each.serial, who=who)
            if serials.setdefault(each.model, each.serial) != each.serial:
                raise Refused(
                    f"{who}, and the set of {target.model} {target.version} has serial {serials[each.model]} of it; "
                    "publish versions that agree"
                )
            if each not in to_read and each.model not in {target.model, version.model}:
                to_read.append(each)
            if len(serials) > limits.SET_MODELS:
                raise Refused(f"{target.model} {target.version} is a set of more than {limits.SET_MODELS} models")
    return serials


def _version(registry: ModelsPort, model: str, serial: int, *, who: str = "") -> VersionRecord:
    version = next((each for each in registry.versions(model) if each.serial == serial), None)
    if version is None:
        raise Refused(f"{who}, and {model} has no version with that serial; publish it first")
    return version


# --- the rollouts of a set ---


def members_of(registry: RegistryPort, lead: RolloutRecord) -> list[RolloutRecord]:
    """The rollouts that a lead carries, as they are stored now."""
    return [registry.rollout(identifier) for identifier in lead.members]


def lead_of(registry: RegistryPort, rollout: RolloutRecord) -> RolloutRecord:
    """The rollout that moves for `rollout`: its lead, or itself."""
    return registry.rollout(rollout.lead) if rollout.lead else rollout


def set_of(registry: RegistryPort, rollout: RolloutRecord) -> list[RolloutRecord]:
    """All rollouts of the set that `rollout` is in, the lead first; itself alone, where it is in none."""
    if not rollout.lead and not rollout.members:
        return [rollout]
    lead = lead_of(registry, rollout)
    return [lead, *members_of(registry, lead)]


def save_set(registry: RegistryPort, after: RolloutRecord, *, before: RolloutRecord) -> list[RolloutRecord]:
    """Write a rollout's new state, and the same of all that it carries. Returns all of them, the lead first.

    Raises `Conflict` where somebody moved it meanwhile.
    """
    registry.save_rollout(after, before=before)
    members = []
    for member in members_of(registry, after):
        mirrored = _mirrored(member, after)
        registry.save_rollout(mirrored, before=member)
        members.append(mirrored)
    return [after, *members]


def _mirrored(member: RolloutRecord, lead: RolloutRecord) -> RolloutRecord:
    """The member where the lead is."""
    return msgspec.structs.replace(
        member,
        state=lead.state,
        state_since=lead.state_since,
        stage=lead.stage,
        stage_since=lead.stage_since,
        shares=lead.shares,
        without=lead.without,
        because=f"with {lead.id}: {lead.because}",
        ended_at=lead.ended_at,
    )


def carry(
    registry: RegistryPort, lead: RolloutRecord, members: Sequence[Member], *, ids: Sequence[str], now: float
) -> None:
    """Write the rollouts of the members of a lead that begins, under `ids`."""
    salt = registry.model(lead.model).salt
    for member, identifier in zip(members, ids, strict=True):
        version = member.version
        record = RolloutRecord(
            namespace=lead.namespace,
            id=identifier,
            model=version.model,
            baseline=member.baseline,
            target=version.serial,
            plan=msgspec.structs.replace(lead.plan, model_version=f"{version.model}@{version.version}"),
            state=lead.state,
            stage=lead.stage,
            shares=lead.shares,
            hour_s=lead.hour_s,
            created_at=now,
            stage_since=lead.stage_since,
            because="",
            delays=lead.delays,
            state_since=lead.state_since,
            override=lead.override,
            lead=lead.id,
            salt=salt,
            started_by=lead.started_by,
        )
        registry.add_rollout(_mirrored(record, lead), plan_text=f"# carried by rollout {lead.id}\n")


def member_ids(members: Sequence[Member], *, tag: str) -> tuple[str, ...]:
    """The ids of the members' rollouts. `tag`: the end of the lead's id."""
    return tuple(f"{each.version.model[:40]}-{each.version.serial}-{tag}" for each in members)
