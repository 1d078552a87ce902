"""The tables of the audit log, in SQLAlchemy Core: a part of `schema`, which has the rules."""

from sqlalchemy import BigInteger, Column, Float, Index, String, Table, Text

from whimbrel.stores.binary import LargeBinary
from whimbrel.stores.schema import ROW_ID, metadata

audit = Table(
    "audit",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("because", Text, nullable=False),
    Column("model", String(64)),
    Column("rollout", String(64)),
    Column("device", String(128)),
    Column("evidence", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),  # in its namespace's chain
    Column("previous", String(64), nullable=False, server_default=""),  # the hash of the entry before it
    Column("hash", String(64), nullable=False, server_default=""),
    Index("audit_by_rollout", "namespace", "rollout"),
    Index("audit_by_device", "namespace", "device"),
    Index("audit_by_time", "namespace", "at"),
    Index("audit_by_sequence", "namespace", "sequence", unique=True),
)

audit_heads = Table(  # the newest entry of each namespace: locked while the next one is written
    "audit_head",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)
