"""A rollout moves: its row, what follows from the move, and the audit entry, in one transaction. (Step 17.)

1. The gate's moves and a person's go the same way; the actor says whose it was. The policy follows from the rows.
   A move is one of all rollouts of a set, whichever of them a person names.
2. What went back is quarantined, the fleet's or the slice's: it is never tried again by itself.
3. Nobody finishes a rollout in a freeze, or past what others must agree to (accounts/second_person). Going back waits
   for nothing.
"""

from typing import Literal

import msgspec

from whimbrel.errors import Refused
from whimbrel.flows.accounts.second_person import check_finish
from whimbrel.flows.audit import audit
from whimbrel.flows.ports import FleetPort, RegistryPort
from whimbrel.flows.quarantine import quarantine, selector_of
from whimbrel.flows.records import RolloutRecord
from whimbrel.flows.rollouts.finish import after_failure, after_success
from whimbrel.flows.rollouts.one_word import strictest_percent
from whimbrel.flows.rollouts.rollout_set import lead_of, save_set, set_of
from whimbrel.flows.rollouts.shares import next_share
from whimbrel.flows.wording import time_words
from whimbrel.model.selector import EVERYONE
from whimbrel.plan.rollout_states import Event, transition
from whimbrel.plan.schedule import frozen_until
from whimbrel.policy.bucket import BUCKETS

PersonMove = Literal["pause", "resume", "finish", "abort", "rollback"]

BACK = frozenset({Event.ROLL_BACK, Event.SLICE_BACK})
_EVENT_OF_PERSON: dict[PersonMove, Event] = {
    "pause": Event.PAUSE,
    "resume": Event.RESUME,
    "finish": Event.FINISH,
    "abort": Event.ABORT,
    "rollback": Event.ROLL_BACK,
}


def move_by_person(
    registry: RegistryPort,
    fleet: FleetPort,
    identifier: str,
    person_move: PersonMove,
    *,
    because: str,
    actor: str,
    now: float,
    counts: bool = True,
) -> RolloutRecord:
    """Pause, resume, finish, abort or roll back. Without a reason, `because` says who did it.

    `counts`: whether the actor counts as a person where two must agree.

    Raises `IllegalTransition` where its state does not allow it.
    """
    because = because or f"{person_move} by {actor}"
    rollout = lead_of(registry, registry.rollout(identifier))
    if person_move == "finish" and (until := frozen_until(rollout.plan.freeze, now)) is not None and rollout.live:
        raise Refused(
            f"a freeze holds until {time_words(until)}; until then there are rollout pause, abort and rollback"
        )
    if person_move == "finish" and rollout.live:
        check_finish(
            rollout.plan,
            next_stage=rollout.stage + 1,
            started_by=rollout.started_by,
            agreed={each.by for each in registry.approvals(rollout.id)},
            actor=actor,
            counts=counts,
            above_percent=strictest_percent(registry, [each.model for each in set_of(registry, rollout)]),
        )
    event = _EVENT_OF_PERSON[person_move]
    return move(registry, fleet, rollout, event, because=because, actor=actor, evidence={}, now=now)


def move(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    event: Event,
    *,
    because: str,
    actor: str,
    evidence: dict[str, object],
    now: float,
    slices: tuple[str, ...] = (),
) -> RolloutRecord:
    """One move of a rollout and of all that it carries. `slices`: those that go back without the rest.

    Raises `IllegalTransition`, and changes nothing then.
    """
    after = _after(registry, fleet, rollout, event, because=because, slices=slices, now=now)
    moved = save_set(registry, after, before=rollout)
    for each in moved if event in BACK else ():
        hardware = registry.model(each.model).settings.hardware_label
        selector = selector_of(slices, hardware=hardware) if slices else EVERYONE
        quarantine(registry, each.model, each.target, because=because, now=now, selector=selector)
    share = (after.shares[-1] - after.plan.range.start) / BUCKETS if after.shares else 0.0
    with_stage = {"stage": after.stage, "share": share, **evidence}
    audit(registry, after, actor=actor, action=event.value, because=because, now=now, evidence=with_stage)
    for member in moved[1:]:  # an action of its own: receivers of alerts hear of the set once, of its lead
        with_lead = f"{event.value} with {after.id}: {because}"
        audit(registry, member, actor=actor, action="move_with_set", because=with_lead, now=now)
    for each in moved:
        if event is Event.FINISH:
            after_success(registry, each, now=now)
        if event is Event.ROLL_BACK:
            after_failure(registry, each, now=now)
    return after


def _after(
    registry: RegistryPort,
    fleet: FleetPort,
    rollout: RolloutRecord,
    event: Event,
    *,
    because: str,
    slices: tuple[str, ...],
    now: float,
) -> RolloutRecord:
    """The rollout's row after the move."""
    state = transition(rollout.state, event)
    since = rollout.state_since if state is rollout.state else now
    after = msgspec.structs.replace(rollout, state=state, state_since=since, because=because)
    if event is Event.SLICE_BACK:
        after = msgspec.structs.replace(after, without=tuple(sorted({*rollout.without, *slices})))
    if event is Event.ADVANCE:
        share = next_share(registry, fleet, rollout)
        after = msgspec.structs.replace(
            after, stage=rollout.stage + 1, stage_since=now, shares=(*rollout.shares, share)
        )
    if not after.live and after.ended_at is None:
        after = msgspec.structs.replace(after, ended_at=now)
    return after
