"""How often each loop of a server looks: the periods that its documents name."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from support.server_in_memory import ServerInMemory
from whimbrel.server.auth import Gatekeeper
from whimbrel.server.device_access import AccessWatch

Loop = Callable[[ServerInMemory], Coroutine[Any, Any, None]]


def access(server: ServerInMemory) -> Coroutine[Any, Any, None]:
    return AccessWatch(server.database, Gatekeeper(), clock=server.clock).run()


@pytest.mark.parametrize(
    ("loop", "period_s"),
    [
        (lambda server: server.alerts.run(), 1.0),
        (lambda server: server.acts.run(), 1.0),
        (access, 2.0),
    ],
)
def test_a_loop_looks_once_a_period(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, loop: Loop, period_s: float
) -> None:
    sleep, slept = asyncio.sleep, []

    async def look(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
            if len(slept) == 3:
                raise asyncio.CancelledError
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", look)
    with pytest.raises(asyncio.CancelledError):
        server.run(loop(server))
    assert slept == [period_s] * 3
