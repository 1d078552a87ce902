"""The database: how it is opened, brought to the newest schema, and used. A unit of work is one transaction.

SQLite has a write-ahead log, is fully synchronous (an acknowledged report survives a power cut), and begins a
transaction with `BEGIN IMMEDIATE`, so that none fails half-way for a lock that it could have waited for. A lock that
does not come in 10 s, a full disk, or a server that does not answer is `Unavailable`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from whimbrel.errors import Unavailable, UntrustedInput

LOCK_WAIT_S = 10


class Database:
    """A registry's database, by URL: `sqlite:///path` or `postgresql+psycopg://...`."""

    def __init__(self, url: str) -> None:
        """Open the database (no connection is made yet). Raises `UntrustedInput` for a URL of no known database."""
        if url.startswith("postgresql://"):
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        try:
            self.engine = _engine(url)
        except Exception as error:  # SQLAlchemy raises several unrelated kinds here
            raise UntrustedInput(f"the database URL cannot be used: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by any exception."""
        with translated(), self.engine.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to this program's version. Does nothing where it has that version."""
        with translated(), self.engine.begin() as connection:
            config = alembic.config.Config()
            config.set_main_option("script_location", str(_migrations()))
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Raise the database's errors as ours, which say who is to blame and what to do."""
    try:
        yield
    except OperationalError as error:
        detail = str(error.orig).strip().split("\n")[0]
        if "locked" in detail:
            raise Unavailable(
                f"the database is locked: another process has been writing for over {LOCK_WAIT_S} s; try again"
            ) from error
        if "full" in detail:
            raise Unavailable("the database's disk is full; nothing was changed. Free some space") from error
        raise Unavailable(f"the database does not answer: {detail}") from error
    except DatabaseError as error:
        if isinstance(error.orig, sqlite3.DatabaseError) and "not a database" in str(error.orig):
            raise UntrustedInput("the database file is not an SQLite database; restore it from a backup") from error
        raise
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the database closed the connection; try again") from error
        raise


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=8, connect_args={"connect_timeout": LOCK_WAIT_S})
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _migrations() -> Path:
    return Path(str(resources.files("whimbrel.stores") / "migrations"))
