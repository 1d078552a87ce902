"""Which models of a device must be swapped at one moment, so that no app ever opens a mixed set? Pure.

From the model that is ready to change, the group grows until nothing is added:
1. A version changes together with every version that it requires and that does not run yet, whatever is decided there.
2. It waits for each model that is decided to change to a version that requires this one. So a member that requires
   nothing itself does not go before its lead, and a fresh device gets all of a set or none.
3. What belongs together leaves together: where one active version requires another, and both are decided to change,
   they change at one moment. Versions of a set that goes back require nothing, and would be mixed otherwise.
4. Rules 2 and 3 make nobody wait whose active version may run no longer: a version that is taken back goes at once.
   They wait for no model that stays: a version that is refused, unfit or in quarantine here is not decided.
5. Where a model will change and its release cannot be read yet, it may require this version: that is waited for,
   for at most `limits.UNREAD_RELEASE_S`.

Two models that wait for each other do not hold each other up: each becomes ready by itself, and the last one that does
swaps them all. Called by `agent/swaps.py`.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from whimbrel.device.conditions import Wait
from whimbrel.model.release import Requirement


class Standing(msgspec.Struct, frozen=True):
    """What a swap must know of one model. `active`, `ready`, `changes_to`: the serial that runs, the one that could be
    swapped in now, and the one that the model is decided to change to; None where there is none. `next_requires`: None
    while the release of `changes_to` cannot be read. `must_leave`: whether the active version may run no longer.
    """

    active: int | None = None
    ready: int | None = None
    changes_to: int | None = None
    active_requires: tuple[Requirement, ...] = ()
    next_requires: tuple[Requirement, ...] | None = ()
    must_leave: bool = False
    waits_for: str = ""


def swap_group(model: str, models: Mapping[str, Standing], *, waits_for_unread: bool) -> tuple[str, ...] | Wait:
    """The models that change together with `model`, itself first, all of them ready; or which one is not.

    `models`: all of this device. `model` is ready, and `changes_to` is what is ready.
    """
    group, queue = [model], [model]
    while queue:
        name = queue.pop()
        for required in models[name].next_requires or ():
            other = models.get(required.model)
            if other is None:  # the agent was opened again without it
                return Wait(
                    f"{required.model} at serial {required.serial}, which serial {models[name].changes_to} requires"
                )
            if required.model in group or other.active == required.serial:
                continue
            if other.ready != required.serial:
                return _wait_for(required.model, other, required.serial)
            group.append(required.model)
            queue.append(required.model)
        for each in _tied(name, models):
            other = models[each]
            if each in group:
                continue
            if other.ready != other.changes_to:
                if any(models[member].must_leave for member in group):
                    continue
                return _wait_for(each, other, other.changes_to)
            group.append(each)
            queue.append(each)
    return _unread(group, models) if waits_for_unread and not models[model].must_leave else tuple(group)


def _tied(name: str, models: Mapping[str, Standing]) -> Iterator[str]:
    """The models that are decided to change, and whose version, of now or then, belongs to that of `name`."""
    own = models[name]
    for each, other in models.items():
        if each == name or other.changes_to is None:
            continue
        comes_with = _requires(other.next_requires or (), name, own.changes_to)
        leaves_with = _requires(own.active_requires, each, other.active) or (
            any(required.model == name for required in other.active_requires)
            if own.active is None  # it left already, since it failed and had nothing to go back to
            else _requires(other.active_requires, name, own.active)
        )
        if comes_with or leaves_with:
            yield each


def _requires(requires: Iterable[Requirement], model: str, serial: int | None) -> bool:
    return any((each.model, each.serial) == (model, serial) for each in requires)


def _unread(group: list[str], models: Mapping[str, Standing]) -> tuple[str, ...] | Wait:
    for name, other in models.items():
        if name not in group and other.changes_to is not None and other.next_requires is None:
            return Wait(f"the release of {name} at serial {other.changes_to}, which may belong to a set with this one")
    return tuple(group)


def _wait_for(name: str, other: Standing, serial: int | None) -> Wait:
    because = f"{name} to be ready at serial {serial}: both change together"
    return Wait(f"{because}; {name} waits for {other.waits_for}" if other.waits_for else because)
