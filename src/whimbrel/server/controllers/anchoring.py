"""Anchors of the audit log leave the machine by themselves: once a period, for receivers that ask for `audit_anchor`.

Compares: the last anchor that the log holds with the time.
Does: writes an entry whose evidence is an anchor of the log as it was before, signed; the alert loop sends it.
Killed: an entry is one transaction, so an anchor is written once, or by the next look. It is sent as every alert is: at
least once, again and again for a day where the receiver does not answer.

1. Where nobody asks, nothing is written.
2. The first one is written when a receiver has asked, so that a person sees at once that it arrives.
"""

from collections.abc import Callable, Collection

import msgspec

from whimbrel import limits
from whimbrel.flows.audit import audit
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.anchors import newest_anchor
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.transaction import Stores

ANCHORED = "anchor_audit_log"


class Anchoring:
    """The controller that writes anchors. `asking`: the names of the receivers that ask for them, now."""

    def __init__(
        self,
        leader: Leader,
        signers: OnlineSigners,
        *,
        asking: Callable[[], Collection[str]],
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._leader, self._signers, self._asking = leader, signers, asking
        self._period_s, self._clock = period_s, clock
        self._looked_at: dict[str, float] = {}

    def anchor(self, namespace: str) -> None:
        """Look at a namespace, where the last look is some time ago. Raises `Unavailable` where no key signs."""
        now, names = self._clock(), self._asking()
        if not names or 0 <= now - self._looked_at.get(namespace, -limits.AUDIT_ANCHOR_LOOK_S) < (
            limits.AUDIT_ANCHOR_LOOK_S
        ):
            return
        with self._leader.transaction(namespace) as stores:
            self._write(stores, namespace, names, now=now)
        self._looked_at[namespace] = now

    def _write(self, stores: Stores, namespace: str, names: Collection[str], *, now: float) -> None:
        since = stores.alerts.since()
        if not any(since.get(name, now + 1) <= now for name in names):
            return  # the alert loop does not know them yet, and would not send it
        last = stores.audit.newest(action=ANCHORED, limit=1)
        if last and 0 <= now - last[0].at < self._period_s:
            return
        anchor = newest_anchor(stores.audit, stores.roles, self._signers, namespace=namespace, now=now)
        audit(
            stores.registry,
            actor="controller",
            action=ANCHORED,
            because=f"entry {anchor.sequence} has the hash {anchor.hash}; keep this where nobody can write who can "
            "write the database",
            now=now,
            evidence=msgspec.to_builtins(anchor),
        )
