"""What every route of the admin API is given: the parts it works on, and one transaction at a time.

1. A route that reads calls `do`. A route that changes something calls `change`, which returns when the signed metadata
   says so too; the flow that it calls writes the audit log in the same transaction.
2. Transactions run in threads, so that the event loop goes on.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from whimbrel.errors import NotAllowed
from whimbrel.server.alerts import Alerts
from whimbrel.server.auth import bearer
from whimbrel.server.controllers import Controllers
from whimbrel.server.static import BytesSent
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.trust.role_keys import expiry_warning

T = TypeVar("T")


class AdminContext(msgspec.Struct, frozen=True):
    """What the admin API works on. `clock` gives POSIX seconds."""

    database: Database
    blobs: Blobs
    controllers: Controllers
    alerts: Alerts
    signers: OnlineSigners
    online_keys: KeyFolder
    clock: Callable[[], float]
    sent: BytesSent = msgspec.field(default_factory=BytesSent)


class Operations:
    """The operations of the admin API, each in one transaction."""

    def __init__(self, context: AdminContext) -> None:
        self.context = context

    def now(self) -> float:
        """POSIX seconds, by the clock of this server."""
        return self.context.clock()

    async def admit(self, namespace: str, authorization: str | None) -> None:
        """Let the holder of an admin token in. Raises `NotAllowed`."""
        token = bearer(authorization)
        name = token and await self.do(namespace, lambda stores: stores.registry.secret_name(token, kind="admin"))
        if not name:
            raise NotAllowed("the admin API needs its token (Authorization: Bearer ...); init wrote it to admin.token")

    async def notice(self, namespace: str) -> str | None:
        """What people should hear of whatever they ask: that a signed role expires soon."""
        first = await self.do(namespace, lambda stores: stores.role_expiries.first())
        return None if first is None else expiry_warning(first.role, first.expires, now=self.now())

    async def do(self, namespace: str, work: Callable[[Stores], T]) -> T:
        """Work in one transaction, off the event loop."""

        def inside() -> T:
            with transaction(self.context.database, namespace) as stores:
                return work(stores)

        return await asyncio.to_thread(inside)

    async def change(self, namespace: str, work: Callable[[Stores], T]) -> T:
        """The same, and return when the signed metadata says so too."""
        answer = await self.do(namespace, work)
        await self.context.controllers.settle()
        return answer
