"""A server's memory of the devices that may not speak follows the database: within two seconds, whoever changed it.

Compares: the rows of `device_access` that changed lately, and the credentials that were replaced lately, with the
`Gatekeeper` of this process.
Does: takes them over. At its start it takes all rows that refuse a token.
Killed: the next start reads them again.

1. The hot path asks the memory alone, so a request costs no query, however many devices are blocked.
2. Only what changed is read, with a minute's overlap: a row is written a moment before it can be read, and the clocks
   of two servers differ.
3. Where the database does not answer, what was known last holds.
"""

import asyncio
import logging
from collections.abc import Callable

from whimbrel.errors import WhimbrelError
from whimbrel.server.auth import TOKEN_LIFE_S, Gatekeeper
from whimbrel.stores.database import Database
from whimbrel.stores.enrolments import new_credentials
from whimbrel.stores.inventory import access_changes, access_that_matters

log = logging.getLogger(__name__)

PERIOD_S = 2.0
_OVERLAP_S = 60.0


class AccessWatch:
    """Keeps one gatekeeper as new as the database."""

    def __init__(self, database: Database, gatekeeper: Gatekeeper, *, clock: Callable[[], float]) -> None:
        self._database, self._gatekeeper, self._clock = database, gatekeeper, clock
        self._read_at: float | None = None

    def read(self) -> None:
        """Take over what changed since the last time; the first time, all that matters. Raises `Unavailable`."""
        now = self._clock()
        with self._database.transaction() as connection:
            if self._read_at is None:
                changes = access_that_matters(connection, removed_since=now - TOKEN_LIFE_S)
                credentials = new_credentials(connection, since=now - TOKEN_LIFE_S)
            else:
                since = min(now, self._read_at) - _OVERLAP_S
                changes, credentials = access_changes(connection, since=since), new_credentials(connection, since=since)
        self._gatekeeper.note(changes, now=now)
        self._gatekeeper.note_credentials(credentials, now=now)
        self._read_at = now

    async def run(self) -> None:
        """Read again and again, until cancelled. Trouble is logged once, and tried again."""
        troubled = False
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await asyncio.to_thread(self.read)
                troubled = False
            except WhimbrelError as error:
                if not troubled:
                    log.warning("blocked devices could not be looked up; what was known last holds: %s", error)
                troubled = True
            except Exception:  # a bug must not end this loop: devices would not be blocked any more
                log.exception("blocked devices could not be looked up")
