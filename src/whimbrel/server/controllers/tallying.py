"""Messages of devices become tallies. (Steps 14 and 15 of the journey.)

Compares: the inbox with an empty one, since every message in it has to be counted.
Does: takes the oldest messages, counts them in one transaction (`flows/reports/ingest`), and then lets the inbox forget
them. It goes on until fewer come than it asked for.
Killed before the transaction is committed: nothing was counted, and the same messages come again. Killed after it, and
before the inbox forgot them: they come again too, and the number of each window shows that it was counted.

What can go wrong, and what happens then:
1. A message cannot be read, or contradicts what is known: it is dropped and logged, and stops no other.
2. This server no longer leads: the transaction is rolled back, the inbox keeps the messages, and the new leader counts
   them.
3. The inbox does not answer: the round ends with `Unavailable` and is tried again; what was counted stays counted.

The way of a report, a file each: `device_api` checks it; `intake` has it written with others, and then the device is
answered; the inbox (`stores/inbox_table`, `inbox_nats`) keeps it; this file takes it; `flows/reports/ingest` counts it;
`stores/fleet` adds it to the tally.
"""

import asyncio
import logging
from collections.abc import Callable

from whimbrel.flows.ports import Inbox, Taken
from whimbrel.flows.reports.ingest import ingest
from whimbrel.flows.reports.proven import EvidenceRule
from whimbrel.server.controllers.leader import Leader
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import Stores

log = logging.getLogger(__name__)

_RECORDS_AT_ONCE = 2000  # messages a transaction


class Tallying:
    """The controller that empties the inbox, for all namespaces."""

    def __init__(
        self,
        leader: Leader,
        database: Database,
        inbox: Inbox,
        *,
        clock: Callable[[], float],
        evidence: EvidenceRule = "proven",
    ) -> None:
        self._leader, self._database, self._inbox, self._clock = leader, database, inbox, clock
        self._evidence = evidence

    async def empty_inbox(self) -> int:
        """Count every message that waits. Returns how many devices failed or went back."""
        setbacks = 0
        while True:
            taken = await self._inbox.take(_RECORDS_AT_ONCE)
            if taken.records:
                setbacks += await asyncio.to_thread(self.count, taken)
            await self._inbox.done(taken)
            if len(taken.records) < _RECORDS_AT_ONCE:
                return setbacks

    def count(self, taken: Taken) -> int:
        """Count some messages, in one transaction. Returns how many devices failed or went back."""
        setbacks = 0
        with self._database.transaction() as connection:
            self._leader.hold(connection)
            for namespace in dict.fromkeys(record.namespace for record in taken.records):
                stores = Stores(connection, namespace)
                counts = ingest(
                    stores.registry,
                    stores.fleet,
                    [record for record in taken.records if record.namespace == namespace],
                    now=self._clock(),
                    experiments=stores.experiments.all(live=True),
                    devices=stores.inventory,
                    runs=stores.run_histories,
                    health=stores.health,
                    evidence=self._evidence,
                )
                setbacks += counts.setbacks
                if counts.contradictions or counts.unreadable:
                    log.warning(
                        "%s: %d contradictory and %d unreadable reports were not counted",
                        namespace,
                        counts.contradictions,
                        counts.unreadable,
                    )
        return setbacks
