"""What should a device of several models run, where versions require each other? `decide` for a whole device: pure.

1. Each model is decided by its own policy. Where every decided version gets what it requires, that is the answer.
   A version that came in a set requires the version that led it, too, though its release may not say so (`wanted`).
2. A version that does not get what it requires is no answer for this device. First the versions of arms and pins are
   left out, all of them that lack something, and then baselines one by one, since the baselines of a set belong
   together. So a device takes a set as a whole, or stays as a whole on what it had; a fresh device gets one of both.
3. A model that keeps what it runs counts as it runs. But nothing is kept only for a set's sake: a version that the
   policy takes back takes its set along.
4. Where no combination is found within `limits.SET_TRIES` tries, each model is decided alone, and the swap waits for
   the others of its set as it always does: nothing is mixed then either.

Called by the device agent and by the thin check.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from whimbrel import limits
from whimbrel.model.release import Line, Requirement
from whimbrel.policy.decide import Decision, Profile, decide
from whimbrel.policy.policy import Policy

Requires = Callable[[str, int], Sequence[Requirement]]


class ModelToDecide(msgspec.Struct, frozen=True):
    """What is known of one model of a device. Without a policy or line it keeps `active`, the serial that it runs."""

    policy: Policy | None
    line: Line | None
    profile: Profile
    active: int | None = None


class Lacking(msgspec.Struct, frozen=True):
    """A version that does not get what it requires: no model of this device will run `required`."""

    model: str
    serial: int
    required: Requirement

    @property
    def words(self) -> str:
        """What is missing, as a sentence says it."""
        return f"{self.required.model} at serial {self.required.serial}"


class SetDecisions(msgspec.Struct, frozen=True):
    """The decision of every model that has a policy, and the versions that were left out for their sets."""

    decisions: dict[str, Decision]
    left_out: frozenset[Lacking] = frozenset()

    def lacking(self, model: str) -> Lacking | None:
        """What keeps the newest version of `model` that was left out from this device."""
        return max((each for each in self.left_out if each.model == model), key=lambda each: each.serial, default=None)


def wanted(
    models: Mapping[str, ModelToDecide], model: str, serial: int, requires: Sequence[Requirement]
) -> tuple[Requirement, ...]:
    """What a serial of a model wants of the others of this device: what it requires, and the leads of its sets.

    A lead is not wanted where the device has, or is offered, a later version of its model, or none at all.
    """
    policy = models[model].policy
    leads = [
        Requirement(model=each.model, serial=each.lead_serial)
        for each in (policy.set_leads if policy is not None else ())
        if each.serial == serial and each.model in models and _may_mix(models[each.model], each.lead_serial)
    ]
    named = {each.model for each in requires}
    return (*requires, *(each for each in leads if each.model not in named))


def _may_mix(lead: ModelToDecide, serial: int) -> bool:
    """Whether the device runs, or is offered, versions of the lead's model, and none that is later than `serial`."""
    if lead.policy is None or lead.line is None:
        return False
    offered = decide(lead.policy, lead.line, lead.profile).serial
    return 0 < max(offered or 0, lead.active or 0) <= serial


def decide_set(models: Mapping[str, ModelToDecide], requires: Requires) -> SetDecisions:
    """Decide for all models of a device. `requires`: what a serial of a model requires, as far as it is known."""
    tries: deque[frozenset[Lacking]] = deque([frozenset()])
    for _ in range(limits.SET_TRIES):
        if not tries:
            break
        left_out = tries.popleft()
        decisions = _decide_all(models, left_out)
        if any(_is_kept(decisions[each.model]) for each in left_out):
            continue
        lacking = list(_lacking(models, decisions, requires))
        if not lacking:
            return SetDecisions(decisions, left_out)
        offered = [each for each in lacking if not _is_baseline(models, each)]
        tries.extend(left_out | set(together) for together in ([offered] if offered else [[one] for one in lacking]))
    return SetDecisions(_decide_all(models, frozenset()))


def _decide_all(models: Mapping[str, ModelToDecide], left_out: frozenset[Lacking]) -> dict[str, Decision]:
    decisions = {}
    for name, model in models.items():
        if model.policy is not None and model.line is not None:
            unmet = {each.serial: each.words for each in left_out if each.model == name}
            profile = msgspec.structs.replace(model.profile, unmet=unmet) if unmet else model.profile
            decisions[name] = decide(model.policy, model.line, profile)
    return decisions


def _lacking(
    models: Mapping[str, ModelToDecide], decisions: Mapping[str, Decision], requires: Requires
) -> Iterator[Lacking]:
    runs = {name: _serial_after(model, decisions.get(name)) for name, model in models.items()}
    for name, decision in sorted(decisions.items()):
        if decision.serial is None:
            continue
        required = wanted(models, name, decision.serial, requires(name, decision.serial))
        missing = [each for each in required if runs.get(each.model) != each.serial]
        if missing:
            yield Lacking(name, decision.serial, missing[0])


def _serial_after(model: ModelToDecide, decision: Decision | None) -> int | None:
    if decision is None or _is_kept(decision):
        return model.active
    return decision.serial


def _is_kept(decision: Decision) -> bool:
    return decision.serial is None and decision.offer == "keep"


def _is_baseline(models: Mapping[str, ModelToDecide], lacking: Lacking) -> bool:
    policy = models[lacking.model].policy
    return policy is not None and policy.baseline == lacking.serial
