"""What must a swap know of one model? `device/swap_group` decides from it who changes together."""

from collections.abc import Callable

from whimbrel.agent.model_state import ModelState
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.intent import change_to
from whimbrel.device.states import State
from whimbrel.device.swap_group import Standing
from whimbrel.model.release import Requirement
from whimbrel.policy.decide import Decision, Profile, objection


def standing_of(
    state: ModelState,
    trust: TrustClient,
    decision: Decision | None,
    profile: Profile,
    *,
    requires: Callable[[int], tuple[Requirement, ...] | None],
    waits_for: str,
) -> Standing:
    """The standing of one model. `requires`: what a serial of it requires; None while its release cannot be read."""
    policy, line = trust.policies.get(state.model), trust.lines.get(state.model)
    active, candidate = state.pointer.serial, state.journal.candidate
    is_ready = state.journal.state is State.READY
    swaps_in = candidate if is_ready and candidate is not None and candidate.shadow is None else None
    comes = change_to(state.journal, active, decision, policy)
    must_leave = False
    if active is not None and policy is not None and line is not None:
        must_leave = objection(policy, line, profile, active) is not None
    return Standing(
        active=active,
        ready=swaps_in.serial if swaps_in is not None else None,
        changes_to=comes,
        active_requires=(requires(active) or ()) if active is not None else (),
        next_requires=requires(comes) if comes is not None else (),
        must_leave=must_leave,
        waits_for="" if is_ready else waits_for,
    )
