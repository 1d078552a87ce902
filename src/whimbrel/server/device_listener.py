"""What devices reach: the listener of static files and of the device API, with all that it needs behind it.

1. It runs in a process of its own (`device_process`), so that no flood of devices takes processor time or descriptors
   from people and controllers. Tests, and systems on which a process cannot inherit a socket, run it in theirs.
2. It shares no memory with the other side: both work on the database and the blob store. `written` is called when
   messages have been stored, so that the controllers need not wait for their next look.
3. An address, also behind a proxy, has only so many requests under way.

Called by `app` and by `device_process`.
"""

import asyncio
import logging
import re
import socket
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

from whimbrel import limits
from whimbrel.errors import NotFound, Unavailable
from whimbrel.flows.ports import Inbox
from whimbrel.server.addresses import Networks
from whimbrel.server.attestation import Attestations
from whimbrel.server.auth import DeviceTokens, Gatekeeper
from whimbrel.server.bounded_acts import BoundedActs
from whimbrel.server.config import Folder
from whimbrel.server.connection import Bounds
from whimbrel.server.device_access import AccessWatch
from whimbrel.server.device_api import DeviceApi
from whimbrel.server.http import CLIENT, App, Receive, Scope, Send, problem, respond, unforeseen
from whimbrel.server.intake import Intake
from whimbrel.server.listener import Listener
from whimbrel.server.static import Static
from whimbrel.server.tls import Certificate
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.sealing_key import SealingKey

log = logging.getLogger(__name__)

_PATH = re.compile(r"^/([a-z0-9][a-z0-9_-]{0,63})/(metadata|targets|artifacts|device)/(.+)\Z")


class DeviceListener:
    """The device listener with its intake and its memory of blocked devices. `run` until `stop`."""

    def __init__(
        self,
        folder: Folder,
        opened: socket.socket,
        *,
        database: Database,
        blobs: Blobs,
        inbox: Inbox,
        written: Callable[[], None],
        clock: Callable[[], float],
        bounds: Bounds,
        proxies: Networks,
        certificate: Certificate | None,
    ) -> None:
        self._acts = BoundedActs(database, clock=clock)
        gatekeeper, tokens = Gatekeeper(), DeviceTokens.open(folder.online_keys / "device-tokens.key")
        self._certificate = certificate
        self._intake = Intake(inbox, written=written)
        self._access = AccessWatch(database, gatekeeper, clock=clock)
        self._access.read()  # before the first request
        static = Static(blobs)
        devices = DeviceApi(
            database,
            tokens,
            self._intake,
            clock=clock,
            gatekeeper=gatekeeper,
            acts=self._acts,
            attestations=Attestations.open(folder.config.attestation, folder.path),
            certificates=folder.config.client_certificates,
            sealing_key=SealingKey(folder.sealing_key),
        )
        app = device_app(static, devices, proxies)
        self.sent = static.sent  # counted as it goes on
        self.listener = Listener(app, opened, name="devices", bounds=bounds, proxies=proxies, certificate=certificate)

    @property
    def started(self) -> bool:
        """Whether it listens."""
        return self.listener.started

    def read_certificate_again(self) -> None:
        """For new connections."""
        if self._certificate is not None:
            self._certificate.read_again()

    async def stop(self) -> None:
        """Accept no more, and let `run` return when answers are finished."""
        self.listener.stop()

    async def run(self) -> None:
        """Serve, until `stop`."""
        loops = [asyncio.create_task(each.run()) for each in (self._intake, self._access, self._acts)]
        try:
            await self.listener.run()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            self._acts.write(all_of_it=True)


def device_app(static: Static, devices: DeviceApi, proxies: Networks) -> App:
    """The ASGI application that devices reach: static files and the device API."""
    under_way: Counter[str | None] = Counter()  # requests by the client that they come from

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        client = scope[CLIENT] = proxies.client_of((scope.get("client") or ("", 0))[0])
        under_way[client] += 1
        try:
            if client is not None and under_way[client] > limits.REQUESTS_AN_ADDRESS:
                raise Unavailable(
                    f"{limits.REQUESTS_AN_ADDRESS} requests of this address are under way; come again later"
                )
            await route(scope, receive, watched)
        except Exception as error:
            reason = error if isinstance(error, Unavailable) else unforeseen(error)
            if begun:
                raise  # the connection is closed, so that the other side sees that the answer is cut
            status, body, headers = problem(reason)
            await respond(send, status, body, headers=headers, content_type=None)
        finally:
            under_way[client] -= 1
            if not under_way[client]:
                del under_way[client]

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        match = _PATH.match(path)
        if match is None:
            if path == "/healthz":
                await respond(send, 200, b"ok\n", content_type=b"text/plain")
                return
            status, body, headers = problem(NotFound("there is nothing at this path; see docs/reference/http.md"))
            await respond(send, status, body, headers=headers, content_type=None)
        elif match[2] == "device":
            version, _, name = match[3].partition("/")
            await devices.answer(scope, receive, send, namespace=match[1], name=name if version == "v1" else match[3])
        else:
            await static.answer(scope, send, namespace=match[1], path=f"{match[2]}/{match[3]}")

    return app
