"""The audit log of one namespace, within one transaction: entries are added to a chain of hashes, and only read again.

1. An entry is written last in its transaction (`stores/last_writes`), under a lock on the chain's head, so that several
   servers make one chain, without gaps, and no two transactions wait for each other.
2. Nothing in the log is ever changed or removed. `flows/audit_chain` says what the hashes are, and checks them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from whimbrel.flows.audit_chain import BEFORE_THE_FIRST, ChainedEntry, chained
from whimbrel.flows.records import AuditRecord
from whimbrel.model.documents import parse
from whimbrel.stores import audit_tables
from whimbrel.stores.last_writes import finish, write_last
from whimbrel.stores.rows import packed, upsert


class AuditLog:
    """The audit log of one namespace."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    def add(self, record: AuditRecord) -> None:
        """Append an entry, when the rest of the transaction is done."""
        write_last(self.connection, lambda: self._append(record))

    def newest(
        self,
        *,
        rollout: str | None = None,
        model: str | None = None,
        device: str | None = None,
        action: str | None = None,
        limit: int = 100,
    ) -> list[ChainedEntry]:
        """The newest entries, newest first; of one rollout, model, device or action."""
        finish(self.connection)
        table = audit_tables.audit
        asked = {"rollout": rollout, "model": model, "device": device, "action": action}
        conditions = [table.c[name] == value for name, value in asked.items() if value is not None]
        query = select(table).where(table.c.namespace == self.namespace, *conditions)
        rows = self.connection.execute(query.order_by(table.c.sequence.desc()).limit(limit))
        return self._chained(rows.all())

    def after(self, sequence: int, *, limit: int) -> list[ChainedEntry]:
        """The entries after a sequence number, oldest first."""
        finish(self.connection)
        table = audit_tables.audit
        query = select(table).where(table.c.namespace == self.namespace, table.c.sequence > sequence)
        return self._chained(self.connection.execute(query.order_by(table.c.sequence).limit(limit)).all())

    def head(self) -> tuple[int, str]:
        """The sequence number and the hash of the newest entry."""
        finish(self.connection)
        return self._head(lock=False)

    def _append(self, record: AuditRecord) -> None:
        upsert(
            self.connection,
            audit_tables.audit_heads,
            {"namespace": self.namespace, "sequence": 0, "hash": BEFORE_THE_FIRST},
        )
        sequence, previous = self._head(lock=True)
        entry = chained(record, sequence=sequence + 1, previous=previous)
        values = msgspec.structs.asdict(entry) | {"evidence": packed(entry.evidence)}
        self.connection.execute(insert(audit_tables.audit).values(**values))
        table = audit_tables.audit_heads
        self.connection.execute(
            update(table).where(table.c.namespace == self.namespace).values(sequence=entry.sequence, hash=entry.hash)
        )

    def _head(self, *, lock: bool) -> tuple[int, str]:
        table = audit_tables.audit_heads
        query = select(table.c.sequence, table.c.hash).where(table.c.namespace == self.namespace)
        row = self.connection.execute(query.with_for_update() if lock else query).one_or_none()
        return (0, BEFORE_THE_FIRST) if row is None else (row.sequence, row.hash)

    def _chained(self, rows: Sequence[Row[Any]]) -> list[ChainedEntry]:
        return [_entry(row) for row in rows]


def _entry(row: Row[Any]) -> ChainedEntry:
    """An entry as it stands in its row. It is not checked here: a row that was changed is shown as it is."""
    values = {name: getattr(row, name) for name in ChainedEntry.__struct_fields__}
    return ChainedEntry(**values | {"evidence": parse(dict[str, Any], row.evidence, what="stored evidence")})
