"""Device messages in NATS JetStream: the inbox for fleets that outgrow a table. Always packed, many records a message.

JetStream acknowledges when its replicas have a message, before it is flushed to disk (`sync_interval`): on one node a
power cut may lose what it acknowledged. Use three replicas, or set `sync_interval: always`.

Order: there is one reader, the leader. It begins at the oldest unacknowledged message when it starts, and again
whenever a batch was not done, so a device's second batch is never tallied before its first.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Taken
from whimbrel.model.document_errors import sentence

_PACK_BYTES = 512 * 1024  # NATS takes 1 MiB a message by default
_ACK_WAIT_S = 30
_MESSAGES = 8
_CONSUMER = "tally"
_CONNECT_WAIT_S = 5

log = logging.getLogger(__name__)


class InboxNats:
    """The `Inbox` port over a JetStream work queue."""

    def __init__(self, url: str, *, stream: str = "whimbrel-inbox") -> None:
        if not stream.replace("-", "").replace("_", "").isalnum():
            raise UntrustedInput(f"{stream!r} cannot name a stream: letters, digits, - and _ only")
        self._url = url
        self._address = url.partition("://")[2].rpartition("@")[2]  # devices read it: without user and password
        self._stream = stream
        self._connection: Any = None
        self._jetstream: Any = None
        self._consumer: Any = None
        self._in_flight = False  # taken, and not done
        self._connecting = asyncio.Lock()

    async def write(self, records: Sequence[DeviceMessage]) -> None:
        """Write messages, and return when JetStream acknowledged all of them. Raises `Unavailable`."""
        await self._connect()
        try:
            for pack in _packs(records):
                await self._jetstream.publish(f"{self._stream}.records", pack, timeout=10)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(
                f"NATS at {self._address} did not take the reports: {reason_of(error)}; try again"
            ) from error

    async def take(self, limit: int) -> Taken:
        """Take the oldest messages. They come again if `done` is not called within 30 s."""
        await self._connect()
        records: list[DeviceMessage] = []
        messages: list[Any] = []
        try:
            if self._consumer is None or self._in_flight:
                await self._consume_from_the_oldest()
            while len(records) < limit and len(messages) < _MESSAGES:
                batch = await self._consumer.fetch(_MESSAGES - len(messages), timeout=0.2)
                for message in batch:
                    records += _unpack(message.data)
                    messages.append(message)
                    self._in_flight = True
        except TimeoutError:  # nothing (more) waits; nats raises its own kind and the plain one
            pass
        except (NatsError, OSError) as error:
            self._consumer = None
            raise Unavailable(f"NATS at {self._address} does not give the reports: {reason_of(error)}") from error
        return Taken(tuple(records), messages)

    async def done(self, taken: Taken) -> None:
        """Acknowledge messages that were tallied."""
        try:
            for message in taken.token if isinstance(taken.token, list) else ():
                await message.ack()
            if taken.records:
                await self._connection.flush()
            self._in_flight = False
        except (NatsError, OSError, TimeoutError) as error:
            self._consumer = None
            raise Unavailable(
                f"NATS at {self._address} did not take the acknowledgement: {reason_of(error)}"
            ) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = self._jetstream = self._consumer = None

    async def _connect(self) -> None:
        async with self._connecting:  # reports are written and taken at once: one connection for both
            if self._jetstream is None:
                await self._open()

    async def _open(self) -> None:
        try:
            # Once connected, nats reconnects for ever; but a first connection that never comes must be an error.
            self._connection = await asyncio.wait_for(
                nats.connect(self._url, connect_timeout=2, max_reconnect_attempts=-1, error_cb=_log), _CONNECT_WAIT_S
            )
            jetstream = self._connection.jetstream()
            await jetstream.add_stream(
                StreamConfig(name=self._stream, subjects=[f"{self._stream}.>"], retention=RetentionPolicy.WORK_QUEUE)
            )
            self._jetstream = jetstream
        except (NatsError, OSError, TimeoutError) as error:
            await self.close()
            detail = reason_of(error)
            raise Unavailable(
                f"NATS at {self._address} does not answer: {detail}; is it running with JetStream?"
            ) from error

    async def _consume_from_the_oldest(self) -> None:
        """A consumer of its own, from the oldest message that is not acknowledged.

        It is made anew each time. With the old one, what another process (or a round that failed) has in flight would
        come again only after newer messages, and a device's older windows would then count as replays.
        """
        with suppress(NotFoundError):
            await self._jetstream.delete_consumer(self._stream, _CONSUMER)
        self._consumer = await self._jetstream.pull_subscribe(
            f"{self._stream}.records",
            durable=_CONSUMER,
            stream=self._stream,
            config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=_ACK_WAIT_S, max_ack_pending=_MESSAGES),
        )
        self._in_flight = False


async def _log(error: Exception) -> None:
    log.warning("NATS: %s", str(error) or type(error).__name__)


def _packs(records: Sequence[DeviceMessage]) -> list[bytes]:
    packs: list[bytes] = []
    held: list[DeviceMessage] = []
    size = 0
    for record in records:
        if held and size + len(record.body) > _PACK_BYTES:
            packs.append(msgspec.msgpack.encode(held))
            held, size = [], 0
        held.append(record)
        size += len(record.body) + 256
    if held:
        packs.append(msgspec.msgpack.encode(held))
    return packs


def _unpack(content: bytes) -> list[DeviceMessage]:
    try:
        return msgspec.msgpack.decode(content, type=list[DeviceMessage])
    except msgspec.DecodeError as error:
        raise UntrustedInput(f"a message in the inbox stream is not ours: {sentence(str(error))}") from error
