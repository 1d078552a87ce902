"""What every route of the admin API is given: the parts it works on, and one transaction at a time.

1. A route that reads calls `do`. A route that changes something calls `change`, which returns when the signed metadata
   says so too; the flow that it calls writes the audit log in the same transaction.
2. Transactions run in threads, so that the event loop goes on.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from litestar.connection import ASGIConnection

from whimbrel.flows.accounts.permissions import Caller
from whimbrel.server.addresses import site_of
from whimbrel.server.alerts import Alerts
from whimbrel.server.bounded_acts import BoundedActs
from whimbrel.server.controllers import Controllers
from whimbrel.server.oidc import OidcProvider
from whimbrel.server.people import People
from whimbrel.server.static import BytesSent
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.sealing_key import SealingKey
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.trust.role_keys import expiry_warning

T = TypeVar("T")


class AdminContext(msgspec.Struct, frozen=True):
    """What the admin API works on. `clock` gives POSIX seconds.

    `folder`: who asks without a token, where the API works on a folder inside a command's own process. `oidc`: the
    provider that people sign in with. `second_person_for_keys`: changes of keys wait for one.
    """

    database: Database
    blobs: Blobs
    controllers: Controllers
    alerts: Alerts
    signers: OnlineSigners
    online_keys: KeyFolder
    clock: Callable[[], float]
    acts: BoundedActs
    sealing_key: SealingKey
    sent: BytesSent = msgspec.field(default_factory=BytesSent)
    folder: Caller | None = None
    oidc: OidcProvider | None = None
    second_person_for_keys: bool = False


class Operations:
    """The operations of the admin API, each in one transaction."""

    def __init__(self, context: AdminContext) -> None:
        self.context = context
        self.people = People(
            context.database,
            acts=context.acts,
            clock=context.clock,
            folder=context.folder,
            provider=context.oidc is not None,
        )

    def now(self) -> float:
        """POSIX seconds, by the clock of this server."""
        return self.context.clock()

    async def sign_in(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
        """Who asks, by the token that is shown. Raises `NotAllowed`; `TooMany` for an address that failed too often."""
        namespace, authorization = connection.path_params["namespace"], connection.headers.get("authorization")
        address = address_of(connection)
        return await asyncio.to_thread(lambda: self.people.sign_in(namespace, authorization, address=address))

    def needs_second_person(self, caller: Caller) -> bool:
        """Whether a change of keys of this caller waits for another person. Who has the folder waits for nobody."""
        return self.context.second_person_for_keys and caller != self.context.folder

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


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The address that asks, of IPv6 its network, all of which one client has; behind a proxy that is not trusted the
    proxy's.
    """
    return "" if connection.client is None else site_of(connection.client.host)
