"""What tells an open page that its subject changed: server-sent events (HTML standard, section 9.2).

1. A stream sends a mark of its subject when it differs from the last one. The page's script fetches the page anew
   then; without a script nothing happens.
2. Every look asks whether the session is good still; a stream ends with it, after some minutes in any case, and when
   the server stops. A browser opens the next one by itself.
3. There are so many streams at once (`CONSOLE_LIVE`); one more is answered 503, and its page does not move.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.flows.accounts.permissions import Permission
from whimbrel.server.console.visit import AnyRequest, Console, visit_of
from whimbrel.stores.transaction import Stores

_ALIVE_LOOKS = 15  # looks after which a line is sent whatever happens: a proxy cuts what is silent for a minute


class Streams:
    """The streams of this process."""

    def __init__(self) -> None:
        self._open = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End them all: the server stops."""
        self._closed.set()

    def follow(self, look: Callable[[], Any], *, alive: Callable[[], Any]) -> AsyncIterator[bytes]:
        """The events of one. `look`: gives the mark; `alive`: whether the session is good. Raises `Unavailable`."""
        if self._open >= limits.CONSOLE_LIVE or self._closed.is_set():
            raise Unavailable("too many pages are kept up to date at once; this one shows what was when it was loaded")
        return self._events(look, alive)

    async def _events(self, look: Callable[[], Any], alive: Callable[[], Any]) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            last, looks = None, 0
            until = asyncio.get_running_loop().time() + limits.CONSOLE_LIVE_S
            while asyncio.get_running_loop().time() < until and not self._closed.is_set() and await alive():
                mark = await look()
                if mark != last:
                    last = mark
                    yield f"event: subject\ndata: {mark}\n\n".encode()
                elif looks % _ALIVE_LOOKS == 0:
                    yield b": still here\n\n"
                looks += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), limits.CONSOLE_LOOK_S)
        finally:
            self._open -= 1


@get("/{namespace:str}/live", permission=Permission.READ)
async def follow_fleet(
    request: AnyRequest, console: NamedDependency[Console], streams: NamedDependency[Streams]
) -> Response[Any]:
    """News of the fleet: a rollout moved, or a minute passed."""
    return _stream(request, console, streams, lambda stores, now: _fleet_mark(stores, now=now))


@get("/{namespace:str}/rollouts/{identifier:str}/live", permission=Permission.READ)
async def follow_rollout(
    request: AnyRequest,
    console: NamedDependency[Console],
    streams: NamedDependency[Streams],
    namespace: FromPath[str],
    identifier: FromPath[str],
) -> Response[Any]:
    """News of a rollout: it moved, or one of its windows is over."""
    await console.operations.do(namespace, lambda stores: stores.registry.rollout(identifier))  # 404 before it begins
    return _stream(request, console, streams, lambda stores, now: _rollout_mark(stores, identifier, now=now))


LIVE_ROUTES = (follow_fleet, follow_rollout)


def _stream(
    request: AnyRequest, console: Console, streams: Streams, mark: Callable[[Stores, float], str]
) -> Response[Any]:
    visit = visit_of(request)

    async def look() -> str:
        now = console.operations.now()
        return await console.operations.do(visit.namespace, lambda stores: mark(stores, now))

    async def alive() -> bool:
        return await console.visit(request) is not None

    return Stream(
        streams.follow(look, alive=alive),
        media_type="text/event-stream",
        headers={"x-accel-buffering": "no"},  # nginx would collect it
    )


def _fleet_mark(stores: Stores, *, now: float) -> str:
    rollouts = stores.registry.rollouts(unended=True)
    return _short(f"{now // 60}", *(f"{each.id}:{each.state}:{each.stage}:{each.because}" for each in rollouts))


def _rollout_mark(stores: Stores, identifier: str, *, now: float) -> str:
    rollout = stores.registry.rollout(identifier)
    window = rollout.window_at(now) if not rollout.ended else 0
    return _short(rollout.state, str(rollout.stage), rollout.because, f"{rollout.state_since}", str(window))


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
