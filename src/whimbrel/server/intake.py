"""Group commit of device messages: all that wait are written to the inbox in one write.

1. A device's request returns when its message is on the disk (or in JetStream), so no acknowledged report is lost.
2. Where too many messages wait, or the inbox does not answer, devices get `Unavailable` and come again.

Called by the device API. What reads the inbox again is `controllers/tallying`.
"""

import asyncio

from whimbrel.errors import Unavailable, WhimbrelError
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Inbox

_WAITING = 10_000  # messages in memory: about 10 MB; beyond that devices get 503 and come again
_AT_ONCE = 1000  # messages in one write


class Intake:
    """The queue before the inbox. `put` adds a message, and `run` writes what is in the queue."""

    def __init__(self, inbox: Inbox, *, written: asyncio.Event) -> None:
        self._inbox = inbox
        self._written = written
        self._queue: asyncio.Queue[tuple[DeviceMessage, asyncio.Future[None]]] = asyncio.Queue(_WAITING)

    async def put(self, record: DeviceMessage) -> None:
        """Add a message, and return when it is stored. Raises `Unavailable`."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((record, stored))
        except asyncio.QueueFull:
            raise Unavailable("too many reports at once; come again later") from None
        await stored

    async def run(self) -> None:
        """Write the messages that wait, until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < _AT_ONCE and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            try:
                await self._inbox.write([record for record, _ in waiting])
            except WhimbrelError as error:
                for _, stored in waiting:
                    if not stored.done():
                        stored.set_exception(error)
                continue
            for _, stored in waiting:
                if not stored.done():
                    stored.set_result(None)
            self._written.set()
