"""What may the next top-level targets role change? The keys of roles, or the delegations of one model; never both.

A change of keys is shown to people, verified as a whole, and asks for two people where the repository says so
(`stores/key_changes`). So a targets role that comes with a new model, or with a floor, changes the keys of no other
role: else it would be a way around all of that.

Pure. Called by the stores that accept a targets role.
"""

from collections.abc import Collection, Mapping

from tuf.api.metadata import DelegatedRole, Targets

from whimbrel.errors import Refused
from whimbrel.trust import roles


def check_keys_alone(before: Targets, after: Targets) -> None:
    """Raise `Refused` where anything but the keys of delegated roles differs. New roles may come, and floors go."""
    old, new = roles_in(before), roles_in(after)
    lost = [name for name in old if name not in new and roles.model_of_floor(name) is None]
    if lost:
        raise Refused(f"the new targets role drops {', '.join(lost[:3])}; devices would lose these models")
    _check_documents(before, after)
    for name, delegated in old.items():
        if name in new and _paths(new[name]) != _paths(delegated):
            raise Refused(f"the new targets role lets {name} sign other paths; a change of keys changes keys alone")


def check_delegations_alone(before: Targets, after: Targets, *, of: Collection[str]) -> None:
    """Raise `Refused` where anything differs but that roles `of` come, or go: with other keys they may not stay."""
    _check_documents(before, after)
    old, new = roles_in(before), roles_in(after)
    for name in sorted({*old, *new}):
        was, comes = old.get(name), new.get(name)
        if was is None or comes is None:
            if name in of:
                continue
        elif _rule(was) == _rule(comes):
            continue
        raise Refused(
            f"the new targets role also changes {name}, and {', '.join(sorted(of))} alone may come or go with it; keys "
            "are changed with: whimbrel keys"
        )


def delegations_beyond_their_own(targets: Targets) -> list[str]:
    """What a targets role delegates that is not a model's own, a sentence each: nothing, in an honest one.

    The first role whose paths match a document is asked for it, so a further role could shadow a publisher.
    """
    words = []
    delegations = targets.delegations
    if delegations is not None and delegations.succinct_roles is not None:
        words.append("targets delegates to a row of roles by hashes, which no model has")
    for name, delegated in ((delegations.roles if delegations else None) or {}).items():
        try:
            own = roles.paths_of(name)
        except ValueError:
            own = None
        if own is None or delegated.paths != own or not delegated.terminating:
            shown = ", ".join((delegated.paths or delegated.path_hash_prefixes or ())[:3])
            words.append(f"{name} may sign {shown}, which is not what a role of that name signs")
    return words


def roles_in(targets: Targets) -> Mapping[str, DelegatedRole]:
    """The delegated roles, by their names."""
    return (targets.delegations.roles or {}) if targets.delegations else {}


def _check_documents(before: Targets, after: Targets) -> None:
    if after.targets != before.targets:
        raise Refused("the new targets role lists other documents; it delegates, and lists none")


def _paths(role: DelegatedRole) -> tuple[object, ...]:
    return role.paths, role.path_hash_prefixes, role.terminating


def _rule(role: DelegatedRole) -> tuple[object, ...]:
    return (*_paths(role), sorted(role.keyids), role.threshold)
