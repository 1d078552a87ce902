"""Which versions of other models go back with a model? What rolled out as one goes back as one. (docs/adr/0075)

1. The completed rollout that brought a version is undone with its set: each model of it that still runs its target
   returns to the baseline from before. Those versions ran together. This is repeated until the model is where it goes.
2. What still runs and requires a version that is left is undone too. A version that is gone back to and requires one
   of a model that did not move takes that model to it.
3. A member that had no version before the set stays as it is, as long as it requires nothing that is left.
4. Where no such versions exist the answer is the reason.

Called by `roll_back_model`. Nothing is changed here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.rollout_set import set_of
from whimbrel.flows.versions import required_by
from whimbrel.model.release import Requirement
from whimbrel.plan.rollout_states import State


def versions_together(registry: RegistryPort, model: str, to: int, *, runs: Mapping[str, int]) -> dict[str, int] | str:
    """The serial of every model that moves where `model` goes back to `to`; or why there are none that go together.

    `runs`: the serial that devices run of every model that has a baseline.
    """

    @cache
    def requires(name: str, serial: int) -> tuple[Requirement, ...]:
        return required_by(registry, name, serial)

    serials, undone = dict(runs), set[str]()
    while serials[model] != to and _undo(registry, model, serials, undone):
        pass
    if serials[model] != to:  # no chain of rollouts leads there
        others = [name for name in sorted(serials) if name != model and serials[name] != runs[name]]
        if others:
            return f"no completed rollout says which version of {' and '.join(others)} ran with it"
        serials = {**runs, model: to}
    while lacking := _lacking(model, serials, runs=runs, requires=requires):
        name, required = lacking
        needed = required.model
        unmoved = needed in runs and serials[needed] == runs[needed]
        if serials[name] != runs[name] and unmoved:
            serials[needed] = required.serial
        elif name == model or not _undo(registry, name, serials, undone):
            return (
                f"{name} at serial {serials[name]} requires {needed} at serial {required.serial}, and no completed "
                "rollout says what ran before"
            )
        if serials[model] != to:
            return f"what goes with it leads {model} back to serial {serials[model]}"
    return {name: serial for name, serial in serials.items() if serial != runs[name]}


def rollout_that_brought(registry: RegistryPort, model: str, serial: int) -> RolloutRecord | None:
    """The newest completed rollout of a version."""
    completed = [
        rollout
        for rollout in registry.rollouts(model=model)
        if rollout.state is State.COMPLETED and rollout.target == serial
    ]
    return completed[-1] if completed else None


def _undo(registry: RegistryPort, model: str, serials: dict[str, int], undone: set[str]) -> bool:
    """Undo the rollout that brought what `model` runs, with its set. False where there is none that is not `undone`."""
    rollout = rollout_that_brought(registry, model, serials[model])
    if rollout is None or rollout.baseline is None or rollout.id in undone:
        return False
    for each in set_of(registry, rollout):
        undone.add(each.id)
        if serials.get(each.model) == each.target and each.baseline is not None:
            serials[each.model] = each.baseline
    return True


def _lacking(
    model: str,
    serials: Mapping[str, int],
    *,
    runs: Mapping[str, int],
    requires: Callable[[str, int], Sequence[Requirement]],
) -> tuple[str, Requirement] | None:
    """A version that moved or requires one that moved, and does not get what it requires; `model`'s own first."""
    moved = {name for name, serial in serials.items() if serial != runs[name]}
    for name in [model, *sorted(serials.keys() - {model})]:
        for each in requires(name, serials[name]):
            if (name in moved or each.model in moved) and serials.get(each.model) != each.serial:
                return name, each
    return None
