"""Device messages in a database table: the default inbox. When `write` returns, its messages are on the disk."""

import asyncio
from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Taken
from whimbrel.stores import schema
from whimbrel.stores.database import Database

_WRITE = insert(schema.inbox)  # to build a statement costs as much as to run it
_TAKE = select(schema.inbox).order_by(schema.inbox.c.id).limit(bindparam("most"))


class InboxTable:
    """The `Inbox` port over a table. Messages come out in the order in which they were written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, records: Sequence[DeviceMessage]) -> None:
        """Write all messages durably, or none. Raises `Unavailable`."""
        if records:
            await asyncio.to_thread(self._write, records)

    async def take(self, limit: int) -> Taken:
        """Take up to `limit` of the oldest messages. They stay in the table until `done`."""
        return await asyncio.to_thread(self._take, limit)

    async def done(self, taken: Taken) -> None:
        """Forget messages that were tallied."""
        if taken.records:
            await asyncio.to_thread(self._done, taken.token)

    async def close(self) -> None:
        """Do nothing: no connection is held open."""

    def _write(self, records: Sequence[DeviceMessage]) -> None:
        with self._database.transaction() as connection:
            connection.execute(_WRITE, [msgspec.structs.asdict(record) for record in records])

    def _take(self, limit: int) -> Taken:
        with self._database.transaction() as connection:
            rows = connection.execute(_TAKE, {"most": limit}).all()
        records = tuple(
            DeviceMessage(**{name: getattr(row, name) for name in DeviceMessage.__struct_fields__}) for row in rows
        )
        return Taken(records, tuple(row.id for row in rows))

    def _done(self, token: tuple[int, ...]) -> None:
        table = schema.inbox
        with self._database.transaction() as connection:
            connection.execute(delete(table).where(table.c.id.in_(token)))
