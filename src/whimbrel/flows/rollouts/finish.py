"""What follows when a rollout is complete or was taken back, in the same transaction as the move itself.

1. Complete: its target is the baseline, good to go back to, and `champion`; then what the plan's `on_success` says.
2. Taken back: what the plan's `on_failure` says. The quarantine is not here: it belongs to the move.
3. What cannot be done is left, and the audit log says why: a follow-up never stops the move that it follows.
"""

import msgspec

from whimbrel.flows.audit import audit
from whimbrel.flows.ports import RegistryPort
from whimbrel.flows.records import RolloutRecord
from whimbrel.plan.rollout_states import Event, State, transition


def after_success(registry: RegistryPort, rollout: RolloutRecord, *, now: float) -> None:
    """The target becomes the baseline."""
    model, on_success = rollout.model, rollout.plan.on_success
    before = registry.model(model).baseline
    registry.change_model(model, baseline=rollout.target)
    registry.change_version(model, rollout.target, good=True)
    registry.set_alias(model, "champion", rollout.target)
    if on_success.alias is not None:
        registry.set_alias(model, on_success.alias, rollout.target)
        _audit_follow_up(registry, rollout, "alias", f"{on_success.alias} names the new baseline", now=now)
    if on_success.retire_previous and before is not None and before != rollout.target:
        rollouts = _rollouts_with(registry, model, before, but=rollout.id)
        if rollouts:
            _audit_follow_up(
                registry, rollout, "not retired", f"serial {before} is part of rollout {rollouts[0]}", now=now
            )
        else:
            registry.change_version(model, before, retired=True)
            _audit_follow_up(registry, rollout, "retire", f"serial {before}, the baseline before", now=now)


def after_failure(registry: RegistryPort, rollout: RolloutRecord, *, now: float) -> None:
    """What the plan wants after it was taken back."""
    model, on_failure = rollout.model, rollout.plan.on_failure
    if on_failure.alias is not None:
        registry.set_alias(model, on_failure.alias, rollout.target)
        _audit_follow_up(
            registry, rollout, "alias", f"{on_failure.alias} names the version that was taken back", now=now
        )
    if on_failure.retire_target:
        rollouts = _rollouts_with(registry, model, rollout.target, but=rollout.id)
        if rollouts or registry.model(model).baseline == rollout.target:
            because = f"rollout {rollouts[0]}" if rollouts else "the baseline"
            _audit_follow_up(registry, rollout, "not retired", f"serial {rollout.target} is part of {because}", now=now)
        else:
            registry.change_version(model, rollout.target, retired=True)
            _audit_follow_up(registry, rollout, "retire", f"serial {rollout.target}, which was taken back", now=now)
    if on_failure.abort_queued:
        for other in registry.rollouts(model=model, unended=True):
            if other.state is State.QUEUED:
                because = f"{rollout.id} was taken back, and its plan says that what queues behind it ends"
                ended = msgspec.structs.replace(
                    other, state=transition(other.state, Event.ABORT), state_since=now, because=because, ended_at=now
                )
                registry.save_rollout(ended, before=other)
                audit(registry, ended, actor=f"rollout {rollout.id}", action="abort", because=because, now=now)


def _rollouts_with(registry: RegistryPort, model: str, serial: int, *, but: str) -> list[str]:
    live = registry.rollouts(model=model, live=True)
    return [each.id for each in live if each.id != but and serial in {each.baseline, each.target}]


def _audit_follow_up(registry: RegistryPort, rollout: RolloutRecord, action: str, because: str, *, now: float) -> None:
    audit(registry, rollout, actor=f"rollout {rollout.id}"[:128], action=action, because=because, now=now)
