"""People hear of signed roles before they expire: once a minute the leader looks. (flows/publishing/warn_of_expiry)

Compares: the newest version of each role that people sign with what is known of it, and its end with the time.
Does: notes new versions, and writes a warning into the audit log when the next step towards the end is reached.
Killed: a look is one transaction, so a warning is written once, or by the next look.
"""

from collections.abc import Callable

from whimbrel import limits
from whimbrel.flows.publishing.warn_of_expiry import warn_of_expiry
from whimbrel.server.controllers.leader import Leader


class Expiry:
    """The controller that warns of what expires."""

    def __init__(self, leader: Leader, *, clock: Callable[[], float]) -> None:
        self._leader, self._clock = leader, clock
        self._looked_at: dict[str, float] = {}

    def warn(self, namespace: str) -> None:
        """Look at a namespace, where the last look is a minute ago."""
        now = self._clock()
        if 0 <= now - self._looked_at.get(namespace, -limits.EXPIRY_LOOK_S) < limits.EXPIRY_LOOK_S:
            return
        with self._leader.transaction(namespace) as stores:
            warn_of_expiry(stores.registry, stores.roles, stores.role_expiries, now=now)
        self._looked_at[namespace] = now
