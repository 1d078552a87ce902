"""The audit log becomes a chain of hashes: each entry has its number in its namespace, and the hash before it.

The entries that are there are chained in the order in which they were written. A further entry of each namespace says
that this was done, and when: the chain proves of the earlier ones only that nobody has touched them since.
"""

import msgspec
import sqlalchemy as sa
from alembic import op

from whimbrel.flows.audit_chain import BEFORE_THE_FIRST, chained
from whimbrel.flows.records import AuditRecord

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_OF_A_RECORD = ("namespace", "at", "actor", "action", "because", "model", "rollout", "device", "evidence")


def upgrade() -> None:
    op.add_column("audit", sa.Column("sequence", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("audit", sa.Column("previous", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("audit", sa.Column("hash", sa.String(length=64), nullable=False, server_default=""))
    op.create_table(
        "audit_head",
        sa.Column("namespace", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("namespace"),
    )
    _chain_what_is_there(op.get_bind())
    op.create_index("audit_by_sequence", "audit", ["namespace", "sequence"], unique=True)


def _chain_what_is_there(connection: sa.Connection) -> None:
    audit, heads = (sa.table(name, *map(sa.column, columns)) for name, columns in _TABLES.items())
    ordered = connection.execute(sa.select(audit).order_by(audit.c.namespace, audit.c.id)).all()
    place = sa.update(audit).where(audit.c.id == sa.bindparam("row"))
    place = place.values({name: sa.bindparam(f"new_{name}") for name in ("sequence", "previous", "hash")})
    newest: dict[str, tuple[int, str]] = {}
    newest_at: dict[str, float] = {}
    changes = []
    for row in ordered:
        values = {name: getattr(row, name) for name in _OF_A_RECORD}
        record = AuditRecord(**values | {"evidence": msgspec.json.decode(row.evidence)})
        sequence, previous = newest.get(row.namespace, (0, BEFORE_THE_FIRST))
        entry = chained(record, sequence=sequence + 1, previous=previous)
        newest[row.namespace], newest_at[row.namespace] = (entry.sequence, entry.hash), entry.at
        changes.append(
            {"row": row.id, "new_sequence": entry.sequence, "new_previous": previous, "new_hash": entry.hash}
        )
    if changes:
        connection.execute(place, changes)
    for namespace, (sequence, previous) in newest.items():
        marker = chained(
            AuditRecord(
                namespace=namespace,
                at=newest_at[namespace],
                actor="migration",
                action="begin_chain",
                because=f"the {sequence} entries before this one were written before the log was a chain of hashes",
            ),
            sequence=sequence + 1,
            previous=previous,
        )
        values = msgspec.structs.asdict(marker) | {"evidence": msgspec.json.encode(marker.evidence)}
        connection.execute(sa.insert(audit).values(**values))
        connection.execute(sa.insert(heads).values(namespace=namespace, sequence=marker.sequence, hash=marker.hash))


_TABLES = {
    "audit": ("id", *_OF_A_RECORD, "sequence", "previous", "hash"),
    "audit_head": ("namespace", "sequence", "hash"),
}
