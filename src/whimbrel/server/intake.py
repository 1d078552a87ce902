"""Group commit of device messages: all that wait are written to the inbox in one write.

1. A device's request returns when its message is on the disk (or in JetStream), so no acknowledged report is lost.
2. Where too many messages or bytes wait, or the inbox does not answer, devices get `Unavailable` and come again.

Called by the device API. What reads the inbox again is `controllers/tallying`.
"""

import asyncio
from collections.abc import Callable

from whimbrel import limits
from whimbrel.errors import Unavailable, WhimbrelError
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Inbox


class Intake:
    """The queue before the inbox. `put` adds a message, and `run` writes what is in the queue."""

    def __init__(self, inbox: Inbox, *, written: Callable[[], None]) -> None:
        self._inbox = inbox
        self._written = written
        self._queue: asyncio.Queue[tuple[DeviceMessage, asyncio.Future[None]]] = asyncio.Queue(limits.INTAKE_MESSAGES)
        self._held_bytes = 0  # of the messages that wait, and of those that are being written

    async def put(self, record: DeviceMessage) -> None:
        """Add a message, and return when it is stored. Raises `Unavailable`."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._held_bytes + len(record.body) > limits.INTAKE_BYTES:
            raise Unavailable("too many reports at once; come again later")
        try:
            self._queue.put_nowait((record, stored))
        except asyncio.QueueFull:
            raise Unavailable("too many reports at once; come again later") from None
        self._held_bytes += len(record.body)
        await stored

    async def run(self) -> None:
        """Write the messages that wait, until cancelled."""
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < limits.INTAKE_AT_ONCE and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            try:
                await self._inbox.write([record for record, _ in waiting])
            except WhimbrelError as error:
                for _, stored in waiting:
                    if not stored.done():
                        stored.set_exception(error)
                continue
            finally:
                self._held_bytes -= sum(len(record.body) for record, _ in waiting)
            for _, stored in waiting:
                if not stored.done():
                    stored.set_result(None)
            self._written()
