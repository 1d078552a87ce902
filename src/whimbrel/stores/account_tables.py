"""The tables of accounts, in SQLAlchemy Core: a part of `schema`, which has the rules."""

from sqlalchemy import Column, Float, Index, String, Table, UniqueConstraint

from whimbrel.stores.binary import LargeBinary
from whimbrel.stores.schema import metadata

accounts = Table(
    "account",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),  # person, machine
    Column("issuer", String(512), nullable=False),  # how a provider names the person; "" for nobody's
    Column("subject", String(256), nullable=False),
    Column("created_at", Float, nullable=False),
    Index("account_by_subject", "namespace", "issuer", "subject"),
)

api_tokens = Table(  # of people and machines; of a token's text only the hash
    "api_token",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("account", String(128), nullable=False),
    Column("roles", LargeBinary, nullable=False),
    Column("source", String(16), nullable=False),  # init, made, sign-in
    Column("created_at", Float, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("used_at", Float),
    UniqueConstraint("namespace", "sha256"),
)

sign_ins = Table(  # nonces that were given to people who sign in, until they are used or too old
    "sign_in",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("at", Float, nullable=False),
)
