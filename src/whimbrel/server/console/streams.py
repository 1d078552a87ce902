"""How many pages are kept up to date at once, and how each stream begins and ends.

A stream sends a mark of its subject when it differs from the last one, and now and then a line that says nothing: a
proxy cuts what is silent. It ends with its session, after some minutes, and when the server stops.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from whimbrel import limits
from whimbrel.errors import Unavailable

_ALIVE_LOOKS = 15  # looks after which a line is sent whatever happens: a proxy cuts what is silent for a minute


class Streams:
    """The streams of this process."""

    def __init__(self) -> None:
        self._open = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End them all: the server stops."""
        self._closed.set()

    def follow(
        self, look: Callable[[], Awaitable[str]], *, alive: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """The events of one. `look`: gives the mark; `alive`: whether the session is good. Raises `Unavailable`."""
        if self._open >= limits.CONSOLE_LIVE or self._closed.is_set():
            raise Unavailable("too many pages are kept up to date at once; this one shows what was when it was loaded")
        return self._events(look, alive)

    async def _events(
        self, look: Callable[[], Awaitable[str]], alive: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
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
