"""The tables of run histories, in SQLAlchemy Core: a part of `schema`, which has the rules."""

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table, Text

from whimbrel.stores.schema import metadata

branches = Table(
    "run_branch",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("branch", Integer, primary_key=True),
    Column("public_key", String(64), nullable=False),  # a device with another key begins another branch
    Column("log", String(16), nullable=False),
    Column("origin", String(16), nullable=False),  # log, fork, gap
    Column("parent", Integer),
    Column("after", BigInteger, nullable=False),  # the entry that it follows
    Column("first", BigInteger, nullable=False),  # of its entries that are kept
    Column("last", BigInteger, nullable=False),
    Column("last_digest", String(64), nullable=False),
    Column("head", Text, nullable=False),  # the newest, as it was signed
    Column("signature", String(128), nullable=False),
    Column("heads", BigInteger, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("received_at", Float, nullable=False),
)

entries = Table(
    "run_entry",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("device_id", String(128), primary_key=True),
    Column("branch", Integer, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("entry", Text, nullable=False),  # as the device wrote it
)
