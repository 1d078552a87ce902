"""Rollouts move by themselves: with time, with what was published, and with what devices reported.

Compares: the state of every rollout that has not ended with what has happened since: its time has come, its policy is
published, its first device has reported, people have approved, its last device is off the version.
Does: at most one move a rollout and call, each in a transaction of its own (`flows/rollouts/progress`). Where a move
needs a new policy, the round publishes and calls once more.
Killed: each move is all or nothing. The moves that are missing are made in the next round, and none is made twice,
because each one leaves the state that it starts from.

What can go wrong, and what happens then:
1. A person moved the rollout meanwhile (`Conflict`): the next round looks again.
2. A rollout may not begin when its turn comes: it ends, with the reason in its row and in the audit log.
3. The policy was signed, and its files were not copied: the rollout waits, since `is_published` looks at the copies.
"""

import logging
from collections.abc import Callable

from whimbrel.errors import Conflict
from whimbrel.flows.rollouts.progress import MOVES_BY_ITSELF, follow
from whimbrel.flows.rollouts.rollout_set import set_of
from whimbrel.plan.rollout_states import State
from whimbrel.server.controllers.leader import Leader
from whimbrel.server.controllers.publishing import is_published
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import transaction

log = logging.getLogger(__name__)

_WAITS_FOR_POLICY = frozenset({State.ADVANCING, State.ROLLING_BACK})


class Progress:
    """The controller of what happens to rollouts by itself."""

    def __init__(self, leader: Leader, database: Database, *, clock: Callable[[], float]) -> None:
        self._leader, self._database, self._clock = leader, database, clock

    def follow_rollouts(self, namespace: str) -> bool:
        """Make the moves that are due. Returns whether a policy has to be published for one of them."""
        now = self._clock()
        with transaction(self._database, namespace) as stores:
            unended = stores.registry.rollouts(unended=True)
        policy_changes = False
        for listed in unended:
            if listed.state not in MOVES_BY_ITSELF:
                continue
            with self._leader.transaction(namespace) as stores:
                rollout = stores.registry.rollout(listed.id)  # as it is now: another may have begun meanwhile
                published = rollout.state in _WAITS_FOR_POLICY and all(
                    is_published(stores, each.model, now=now) for each in set_of(stores.registry, rollout)
                )
                try:
                    after = follow(stores.registry, stores.fleet, rollout, published=published, now=now)
                except Conflict:
                    continue  # a person moved it meanwhile; the next round looks again
            if after.state is not rollout.state:
                log.info("rollout %s is %s: %s", after.id, after.state.value, after.because)
                policy_changes |= after.state is State.ADVANCING
        return policy_changes
