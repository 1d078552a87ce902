"""One server leads: it alone tallies, judges and signs. A lease in the database says which one.

Compares: the lease's row (its holder, and until when) with this process, which is ready to lead.
Does: takes the lease for `_LEASE_LIFE_S` where it is free, over, or this process's own. Every transaction of the leader
renews it (`hold`), and a leader with nothing to write renews it when half of its life is over (`take`).
Killed: the lease runs out, and another server leads after at most `_LEASE_LIFE_S`. A server that stops in good order
drops the lease (`resign`), and another server leads at once.

What can go wrong, and what happens then:
1. A leader is so slow (it was suspended, or its disk was) that its lease is over, and another server leads. Each of its
   transactions asks for the lease before it writes, is refused, and is rolled back (`LeadLost`): it changes nothing.
2. Two servers lead at once, for a moment. The renewal is an update in the same transaction as the work, so the
   transaction holds the lease's row until it ends. The other server waits for the row, and then reads the new time.
3. The clocks of two servers differ. The one that is ahead takes the lease early, and the other one loses it as in 1.
4. The database does not answer: nobody leads, and devices go on with the files that were copied last.

Called by every controller; alerts and the building of deltas ask `leads_now`.
"""

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection

from whimbrel.errors import Unavailable, WhimbrelError
from whimbrel.stores.database import Database
from whimbrel.stores.registry import drop_lease, take_lease
from whimbrel.stores.transaction import Stores, transaction

_LEASE = "leader"
_LEASE_LIFE_S = 10.0


class LeadLost(Unavailable):
    """Another server took over."""


class Leader:
    """This process as a candidate for the lead, in all namespaces of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self._holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._leads_until = 0.0

    def leads_now(self) -> bool:
        """Whether this process is the leader, as far as it knows. Nothing is asked of the database."""
        return self._clock() < self._leads_until

    def take(self) -> bool:
        """Lead from now on, where nobody else does. Returns whether this process leads."""
        now = self._clock()
        if now < self._leads_until - _LEASE_LIFE_S / 2:
            return True
        with self._database.transaction() as connection:
            leads = take_lease(connection, _LEASE, holder=self._holder, now=now, life_s=_LEASE_LIFE_S)
        self._leads_until = now + _LEASE_LIFE_S if leads else 0.0
        return leads

    @contextmanager
    def transaction(self, namespace: str) -> Iterator[Stores]:
        """One transaction of the leader, with all stores. Raises `LeadLost` where another server leads now."""
        with transaction(self._database, namespace) as stores:
            self.hold(stores.connection)
            yield stores

    def hold(self, connection: Connection) -> None:
        """Renew the lease within a transaction. Raises `LeadLost` where another server leads now."""
        now = self._clock()
        if not take_lease(connection, _LEASE, holder=self._holder, now=now, life_s=_LEASE_LIFE_S):
            self._leads_until = 0.0
            raise LeadLost("another server leads now, and does the rest")
        self._leads_until = now + _LEASE_LIFE_S

    def resign(self) -> None:
        """Stop leading, so that another server may lead at once."""
        self._leads_until = 0.0
        with suppress(WhimbrelError), self._database.transaction() as connection:
            drop_lease(connection, _LEASE, holder=self._holder)
