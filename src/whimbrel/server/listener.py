"""A listening socket and its connections: who gets one, and which ones give way?

1. There are never more connections than this process has descriptors for, so that `accept` does not fail: whoever comes
   beyond that finds the place of the connection that was idle longest, or of a handshake or request that does not come
   on, and where there is none a 503 at once.
2. One address gets a part of them, and the last eighth is for addresses that have no connection yet: however fast some
   addresses take what becomes free, another one finds a place. Trusted proxies bring many clients, and are not counted.
3. Where the system has no descriptor all the same, accepting pauses for a second. It does not fail in a loop.
4. Once a second all connections' deadlines are looked at (`connection.Connection.look`).
5. With TLS, new connections get the certificate that was read last (`tls.Certificate`).

Built by `app`, for people, and by `device_listener`, for devices.
"""

import asyncio
import heapq
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from whimbrel import limits
from whimbrel.errors import reason_of
from whimbrel.server.addresses import Networks
from whimbrel.server.connection import Bounds, Connection, refusal
from whimbrel.server.damped_log import DampedLog
from whimbrel.server.http import PEER, App, Receive, Scope, Send
from whimbrel.server.tls import Certificate

log = logging.getLogger(__name__)

_FULL = "there are as many connections as this server can hold"


class Listener:
    """Serves one application on one listening socket. `run` until `stop`."""

    def __init__(
        self,
        app: App,
        opened: socket.socket,
        *,
        name: str,
        bounds: Bounds,
        proxies: Networks,
        certificate: Certificate | None = None,
    ) -> None:
        self._socket, self._bounds, self._proxies, self._certificate = opened, bounds, proxies, certificate
        self._server = _Server(_config(app, bounds, proxies))
        self._state = self._server.server_state
        self._open = 0  # connections, with those that are still in their handshake
        self._by_site: Counter[str | None] = Counter()
        self._no_room_until = 0.0
        self._handshakes: dict[asyncio.Task[None], float] = {}  # since when, by the monotonic clock
        self._accepting = False
        self.refusals = DampedLog(name)

    @property
    def started(self) -> bool:
        """Whether it accepts connections."""
        return self._accepting

    async def run(self) -> None:
        """Accept and serve, until `stop`. Answers that are under way are finished."""
        serving = asyncio.create_task(self._server.serve(sockets=[]))
        await self._server.ready.wait()
        self._accept_again()
        sweeping = asyncio.create_task(self._sweep())
        try:
            await serving
        finally:
            self._close()
            sweeping.cancel()
            for task in self._handshakes:
                task.cancel()
            await asyncio.gather(sweeping, *self._handshakes, return_exceptions=True)

    def stop(self) -> None:
        """Accept no more, and let `run` return when all answers are finished, or after some seconds."""
        self._close()
        self._server.should_exit = True

    def _close(self) -> None:
        if self._accepting:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._accepting = False
        self._socket.close()

    # --- accepting ---
    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0 and not self._server.should_exit:
            self._socket.setblocking(False)
            asyncio.get_running_loop().add_reader(self._socket, self._accept)
            self._accepting = True

    def _accept(self) -> None:
        for _ in range(limits.ACCEPTED_AT_ONCE):
            try:
                client, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._admit(client, str(address[0]))

    def _pause(self, error: OSError) -> None:
        """The system gives no descriptor or no memory: close what is idle, and try again after a while."""
        self.refusals.note(f"no connection can be accepted for {limits.ACCEPT_PAUSE_S:g} s ({reason_of(error)})")
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._make_room(time.monotonic())
        loop.call_later(limits.ACCEPT_PAUSE_S, self._accept_again)

    def _admit(self, client: socket.socket, host: str) -> None:
        site = self._proxies.client_of(host)
        most = min(self._bounds.an_address, max(1, self._bounds.connections // 4))
        has = self._by_site[site] if site is not None else 0
        room = self._bounds.connections - (self._bounds.connections // limits.RESERVED_PART if has else 0)
        if has >= most:
            self._turn_away(client, "one address has as many connections as it may have")
        elif self._open >= room and not self._make_room(time.monotonic()):
            self._turn_away(client, _FULL)
        else:
            self._open += 1
            self._by_site[site] += 1
            task = asyncio.get_running_loop().create_task(self._begin(client, site))
            self._handshakes[task] = time.monotonic()
            task.add_done_callback(lambda task: self._handshakes.pop(task, None))

    def _turn_away(self, client: socket.socket, reason: str) -> None:
        self.refusals.note(reason)
        with client, suppress(OSError):
            client.setblocking(False)
            if self._certificate is None:
                client.send(refusal(503, f"{reason}; come again later"))

    async def _begin(self, client: socket.socket, site: str | None) -> None:
        lost = False

        def lose() -> None:
            nonlocal lost
            if not lost:
                lost = True
                self._open -= 1
                self._by_site[site] -= 1
                if not self._by_site[site]:
                    del self._by_site[site]

        def make() -> Connection:
            return Connection(
                self._server.config,
                self._state,
                self._server.lifespan.state,
                bounds=self._bounds,
                refused=self.refusals.note,
                lost=lose,
            )

        try:
            client.setblocking(False)
            with suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            context = None if self._certificate is None else self._certificate.context
            await asyncio.get_running_loop().connect_accepted_socket(
                make, client, ssl=context, ssl_handshake_timeout=self._bounds.handshake_s if context else None
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            lose()
            client.close()
            if isinstance(error, ssl.SSLError | TimeoutError):
                self.refusals.note(f"no TLS 1.3 within {self._bounds.handshake_s:g} s, or another fault in a handshake")
        except BaseException:
            lose()
            client.close()
            raise

    # --- deadlines and room ---
    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(limits.SWEEP_S)
            now = time.monotonic()
            for connection in list(self._connections()):
                connection.look(now)
            self.refusals.flush()

    def _make_room(self, now: float) -> bool:
        """End what holds a place for nothing, the longest first: connections and handshakes. Whether there was any."""
        if now < self._no_room_until:
            return False
        before = now - self._bounds.room_after_s
        held: list[tuple[float, Callable[[], object]]]
        held = [(since, task.cancel) for task, since in self._handshakes.items() if since <= before]
        for each in self._connections():
            since = each.gives_way_since(now)
            if since is not None and since <= before:
                held.append((since, each.give_way))
        longest = heapq.nsmallest(limits.MADE_ROOM_FOR, held, key=itemgetter(0))
        for _, end in longest:
            end()
        if longest:
            self.refusals.note(f"{_FULL}; those that were idle longest give way")
        else:
            self._no_room_until = now + limits.ROOM_AFTER_S / 2  # to look at all of them again and again is an attack
        return bool(longest)

    def _connections(self) -> Iterator[Connection]:
        return (each for each in self._state.connections if isinstance(each, Connection))


class _Server(uvicorn.Server):
    """A server that leaves signals to `serve_until_stopped`, and sockets to `Listener`. `ready`: it can serve."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application."""
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: App, bounds: Bounds, proxies: Networks) -> uvicorn.Config:
    return uvicorn.Config(
        _behind(proxies, app),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # `_behind` reads them
        timeout_keep_alive=round(bounds.idle_s),
        timeout_graceful_shutdown=5,
    )


def _behind(proxies: Networks, app: App) -> App:
    """The application, whose requests name the clients that trusted proxies forward for, and their peer as well."""
    forwarded: Any = ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=list(proxies.texts)) if proxies.texts else app

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = scope.get("client")
        await forwarded(scope, receive, send)

    return noted
