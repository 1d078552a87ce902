"""How do thousands of small messages become few writes? Group commit: what waits is written together.

A device's request returns when its message is on the disk (or in JetStream), so an acknowledged report is not lost.
"""

import asyncio

from whimbrel.errors import Unavailable, WhimbrelError
from whimbrel.flows.ports import Inbox
from whimbrel.flows.records import DeviceMessage

_WAITING = 10_000  # messages in memory: about 10 MB; beyond that devices are told to come again
_AT_ONCE = 1000


class Intake:
    """Takes messages for the inbox; `run` writes them."""

    def __init__(self, inbox: Inbox, *, written: asyncio.Event) -> None:
        self._inbox = inbox
        self._written = written
        self._queue: asyncio.Queue[tuple[DeviceMessage, asyncio.Future[None]]] = asyncio.Queue(_WAITING)

    async def put(self, record: DeviceMessage) -> None:
        """Returns when the message will not be lost. Raises `Unavailable`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((record, done))
        except asyncio.QueueFull:
            raise Unavailable("too many reports at once; come again later") from None
        await done

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < _AT_ONCE and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            try:
                await self._inbox.write([record for record, _ in waiting])
            except WhimbrelError as error:
                for _, done in waiting:
                    if not done.done():
                        done.set_exception(error)
                continue
            for _, done in waiting:
                if not done.done():
                    done.set_result(None)
            self._written.set()
