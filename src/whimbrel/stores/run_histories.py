"""The run histories of devices: branches and their entries, as they were signed. They outlive the device."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select

from whimbrel.flows.devices.records import RunBranch, RunRow
from whimbrel.stores import run_history_tables, schema
from whimbrel.stores.rows import upsert, upsert_all

_branches, _entries = run_history_tables.branches, run_history_tables.entries
_KEY = frozenset({"device_id", "branch"})


class RunHistories:
    """The run histories of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def branches(self, device_id: str) -> list[RunBranch]:
        """The branches of a device, in the order in which they began."""
        table = _branches
        query = select(table).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
        return [_branch(row) for row in self.connection.execute(query.order_by(table.c.branch))]

    def public_key(self, device_id: str) -> str | None:
        """The key by which a device is known now; None for none, and for an id that is not enrolled."""
        table = schema.devices
        query = select(table.c.public_key).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
        return self.connection.execute(query).scalar_one_or_none()

    def rows(self, device_id: str, *, first: int, last: int) -> list[RunRow]:
        """The entries `first` to `last` of all branches of a device, by branch and number."""
        table = _entries
        query = select(table).where(
            table.c.namespace == self.namespace,
            table.c.device_id == device_id,
            table.c.number >= first,
            table.c.number <= last,
        )
        rows = self.connection.execute(query.order_by(table.c.branch, table.c.number))
        return [RunRow(branch=row.branch, number=row.number, digest=row.digest, entry=row.entry) for row in rows]

    def save(self, branch: RunBranch, rows: Sequence[RunRow]) -> None:
        """Write a branch with its new entries, and forget those before its `first`."""
        values = msgspec.structs.asdict(branch) | {"namespace": self.namespace}
        columns = tuple(name for name in RunBranch.__struct_fields__ if name not in _KEY)
        upsert(self.connection, _branches, values, update=columns)
        if not rows:
            return
        own = {"namespace": self.namespace, "device_id": branch.device_id}
        upsert_all(self.connection, _entries, [msgspec.structs.asdict(row) | own for row in rows])
        self.connection.execute(
            delete(_entries).where(
                _entries.c.namespace == self.namespace,
                _entries.c.device_id == branch.device_id,
                _entries.c.branch == branch.branch,
                _entries.c.number < branch.first,
            )
        )


def _branch(row: Row[Any]) -> RunBranch:
    return RunBranch(**{name: getattr(row, name) for name in RunBranch.__struct_fields__})
