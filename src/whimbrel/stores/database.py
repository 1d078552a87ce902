"""The database: how it is opened, how its schema is compared and brought up, and how it is used.

1. A unit of work is one transaction. SQLite has a write-ahead log, is fully synchronous (an acknowledged report
   survives a power cut), and begins a transaction with `BEGIN IMMEDIATE`, so that none fails half-way for a lock that
   it could have waited for. What every transaction wants for a moment is written last (`last_writes`).
2. The schema changes only where `migrate` is called: by a server when it starts, and by `whimbrel migrate`. Whatever
   else opens a database calls `check_schema`, and changes nothing.
3. Of several processes that migrate at once, one does it and the others wait: for SQLite's write lock, and on
   PostgreSQL for an advisory lock, since there may be no table yet to lock.
4. A lock that does not come in 10 s, a full disk, or a server that does not answer is `Unavailable`.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import alembic.migration
import alembic.script
import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, OperationalError

from whimbrel.durable import try_to_write
from whimbrel.errors import DiskFull, Refused, Unavailable, UntrustedInput, WhimbrelError
from whimbrel.stores.last_writes import finish, forget

LOCK_WAIT_S = 10
_MIGRATION_WAIT_S = 60  # PostgreSQL: for another process that migrates, or that still uses the tables
MIGRATION_LOCK = int.from_bytes(b"whimbrel"[:7])  # any number, but the same in every Whimbrel
_PG_DISK_FULL = "53100"  # SQLSTATE disk_full, https://www.postgresql.org/docs/current/errcodes-appendix.html
_CANNOT_WRITE = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL})


class Migration(msgspec.Struct, frozen=True):
    """The schema before and after. `before`: None for a new database."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.before != self.after


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
        self.kind = "SQLite" if self.engine.dialect.name == "sqlite" else "PostgreSQL"
        file = self.engine.url.database
        self.folder = Path(file).parent if self.kind == "SQLite" and file and file != ":memory:" else None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back by any exception."""
        with translated(self.folder), self.engine.begin() as connection:
            try:
                yield connection
                finish(connection)
            finally:
                forget(connection)

    def migrate(self) -> Migration:
        """Bring the schema to this program's. Does nothing where it has that. Raises `Refused` for a newer schema."""
        with self.transaction() as connection:
            if self.kind == "PostgreSQL":
                connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_WAIT_S}s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            config = alembic_config(connection)
            before, newest, known = _revisions(connection, config)
            _refuse_newer(before, newest=newest, known=known)
            if before != newest:
                alembic.command.upgrade(config, "head")
            return Migration(before, newest)

    def check_schema(self) -> None:
        """Raises `Refused` where the schema is not this program's: older, newer, or none at all. Changes nothing."""
        with self.transaction() as connection:
            before, newest, known = _revisions(connection, alembic_config(connection))
        _refuse_newer(before, newest=newest, known=known)
        if before != newest:
            raise Refused(
                f"the database has {f'the schema {before}' if before else 'no schema'}, and this program needs "
                f"{newest}; this command leaves it as it is: `whimbrel serve` or `whimbrel migrate` brings it up"
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _refuse_newer(before: str | None, *, newest: str, known: frozenset[str]) -> None:
    if before is not None and before not in known:
        raise Refused(
            f"the database has the schema {before}, which a newer Whimbrel made: this one knows schemas up to "
            f"{newest}; install the newer version again, or restore a backup of the database that is older"
        )


def alembic_config(connection: Connection) -> alembic.config.Config:
    """The migrations of this program, for alembic's own commands on an open connection."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_migrations()))
    config.attributes["connection"] = connection
    return config


def _revisions(connection: Connection, config: alembic.config.Config) -> tuple[str | None, str, frozenset[str]]:
    """The database's revision, this program's newest, and all that this program knows."""
    scripts = alembic.script.ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    if newest is None:
        raise Unavailable("the migrations of this program are not there; install it again")
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return alembic.migration.MigrationContext.configure(connection).get_current_revision(), newest, known


@contextmanager
def translated(folder: Path | None = None) -> Iterator[None]:
    """Raise the database's errors as ours, which say who is to blame and what to do. `folder`: of an SQLite file."""
    try:
        yield
    except OperationalError as error:
        raise _unavailable(error, folder) from error
    except DatabaseError as error:
        if isinstance(error.orig, sqlite3.DatabaseError) and "not a database" in str(error.orig):
            raise UntrustedInput("the database file is not an SQLite database; restore it from a backup") from error
        if isinstance(error, DataError) and "NUL" in str(error.orig):
            raise UntrustedInput(
                "a text holds a NUL character, which the database cannot keep; leave it out"
            ) from error
        raise
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the database closed the connection; try again") from error
        raise


def _unavailable(error: OperationalError, folder: Path | None) -> WhimbrelError:
    detail = str(error.orig).strip().split("\n")[0]
    if getattr(error.orig, "sqlstate", None) == _PG_DISK_FULL or "No space left on device" in detail:
        return DiskFull(f"the disk of the database server is full ({detail}); nothing was changed. Free some space")
    if "lock timeout" in detail:
        return Unavailable(
            f"the database is in use: another server has been bringing it up, or working, for {_MIGRATION_WAIT_S} s; "
            "stop the older servers and try again"
        )
    if "locked" in detail:
        return Unavailable(
            f"the database is locked: another process has been writing for over {LOCK_WAIT_S} s; try again"
        )
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the primary code: the rest says which step failed
    if code in _CANNOT_WRITE and folder is not None:
        try:
            try_to_write(folder, doing="writing the database")
        except DiskFull as full:
            return full
        except Unavailable as reason:
            return Unavailable(
                f"{reason}; run this as a user who may write there, or ask a server that does (--server)"
            )
    if code == sqlite3.SQLITE_FULL:
        return DiskFull("the disk of the database is full; nothing was changed. Free some space and try again")
    return Unavailable(f"the database does not answer: {detail}")


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=8, connect_args={"connect_timeout": LOCK_WAIT_S})
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_S, "check_same_thread": False})
    path = engine.url.database

    @event.listens_for(engine, "do_connect")
    def make_private(*_: object) -> None:
        """A new database is its owner's alone, with the files that SQLite puts beside it: it has people's words."""
        if path and path != ":memory:":
            with suppress(OSError):  # it is there, or cannot be made, which connecting says
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

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
