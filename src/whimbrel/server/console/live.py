"""What tells an open page that its subject changed: server-sent events (HTML standard, section 9.2).

1. A stream sends a mark of its subject when it differs from the last one. The page's script fetches the page anew
   then; without a script nothing happens.
2. Every look asks whether the session is good still; a stream ends with it, after some minutes in any case, and when
   the server stops. A browser opens the next one by itself.
3. There are so many streams at once (`CONSOLE_LIVE`); one more is answered 503, and its page does not move.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from whimbrel.flows.accounts.permissions import Permission
from whimbrel.server.console.visit import AnyRequest, Console, visit_of
from whimbrel.stores.transaction import Stores


@get("/{namespace:str}/live", permission=Permission.READ)
async def follow_fleet(request: AnyRequest, console: NamedDependency[Console]) -> Response[Any]:
    """News of the fleet: a rollout moved, or a minute passed."""
    return _stream(request, console, lambda stores, now: _fleet_mark(stores, now=now))


@get("/{namespace:str}/rollouts/{identifier:str}/live", permission=Permission.READ)
async def follow_rollout(
    request: AnyRequest,
    console: NamedDependency[Console],
    namespace: FromPath[str],
    identifier: FromPath[str],
) -> Response[Any]:
    """News of a rollout: it moved, or one of its windows is over."""
    await console.operations.do(namespace, lambda stores: stores.registry.rollout(identifier))  # 404 before it begins
    return _stream(request, console, lambda stores, now: _rollout_mark(stores, identifier, now=now))


LIVE_ROUTES = (follow_fleet, follow_rollout)


def _stream(request: AnyRequest, console: Console, mark: Callable[[Stores, float], str]) -> Response[Any]:
    visit = visit_of(request)

    async def look() -> str:
        now = console.operations.now()
        return await console.operations.do(visit.namespace, lambda stores: mark(stores, now))

    async def alive() -> bool:
        return await console.visit(request) is not None

    return Stream(
        console.streams.follow(look, alive=alive),
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
