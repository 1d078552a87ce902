"""Device messages in NATS JetStream: the inbox for fleets that outgrow a table. Always packed, many records a message.

JetStream acknowledges when its replicas have a message, before it is flushed to disk (`sync_interval`): on one node a
power cut may lose what it acknowledged. Use three replicas, or set `sync_interval: always`.

Order: one durable consumer with as many messages in flight as one `take` asks for, so a device's second batch is never
tallied before its first.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import nats
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.flows.ports import Taken
from whimbrel.flows.records import Record

_PACK_BYTES = 512 * 1024  # NATS takes 1 MiB a message by default
_ACK_WAIT_S = 30
_MESSAGES = 8


class InboxNats:
    """The `Inbox` port over a JetStream work queue."""

    def __init__(self, url: str, *, stream: str = "whimbrel-inbox") -> None:
        if not stream.replace("-", "").replace("_", "").isalnum():
            raise UntrustedInput(f"{stream!r} cannot name a stream: letters, digits, - and _ only")
        self._url = url
        self._stream = stream
        self._connection: Any = None
        self._jetstream: Any = None
        self._consumer: Any = None

    async def write(self, records: Sequence[Record]) -> None:
        """All of them, acknowledged by JetStream. Raises `Unavailable`."""
        await self._connect()
        try:
            for pack in _packs(records):
                await self._jetstream.publish(f"{self._stream}.records", pack, timeout=10)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"NATS at {self._url} did not take the reports: {error}; try again") from error

    async def take(self, limit: int) -> Taken:
        """The oldest messages; they come again when `done` is not said within 30 s."""
        await self._connect()
        records: list[Record] = []
        messages: list[Any] = []
        try:
            while len(records) < limit and len(messages) < _MESSAGES:
                batch = await self._consumer.fetch(_MESSAGES - len(messages), timeout=0.2)
                for message in batch:
                    records += _unpack(message.data)
                    messages.append(message)
        except NatsTimeout:
            pass
        except (NatsError, OSError) as error:
            raise Unavailable(f"NATS at {self._url} does not give the reports: {error}") from error
        return Taken(tuple(records), messages)

    async def done(self, taken: Taken) -> None:
        """They were tallied; acknowledge them."""
        try:
            for message in taken.token if isinstance(taken.token, list) else ():
                await message.ack()
        except (NatsError, OSError) as error:
            raise Unavailable(f"NATS at {self._url} did not take the acknowledgement: {error}") from error

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = self._jetstream = self._consumer = None

    async def _connect(self) -> None:
        if self._consumer is not None:
            return
        try:
            self._connection = await nats.connect(self._url, connect_timeout=5, max_reconnect_attempts=-1)
            self._jetstream = self._connection.jetstream()
            await self._jetstream.add_stream(
                StreamConfig(name=self._stream, subjects=[f"{self._stream}.>"], retention=RetentionPolicy.WORK_QUEUE)
            )
            self._consumer = await self._jetstream.pull_subscribe(
                f"{self._stream}.records",
                durable="tally",
                stream=self._stream,
                config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=_ACK_WAIT_S, max_ack_pending=_MESSAGES),
            )
        except (NatsError, OSError, TimeoutError) as error:
            await self.close()
            raise Unavailable(f"NATS at {self._url} does not answer: {error}; is it running with JetStream?") from error


def _packs(records: Sequence[Record]) -> list[bytes]:
    packs: list[bytes] = []
    held: list[Record] = []
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


def _unpack(content: bytes) -> list[Record]:
    try:
        return msgspec.msgpack.decode(content, type=list[Record])
    except msgspec.DecodeError as error:
        raise UntrustedInput(f"a message in the inbox stream is not ours: {error}") from error
