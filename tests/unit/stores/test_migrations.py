"""Migrations lead to the schema that the program asks for, once; nothing else changes a schema."""

import subprocess
import sys
from pathlib import Path

import alembic.autogenerate
import alembic.command
import alembic.migration
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from conftest import POSTGRESQL
from support.old_database import make_newer, make_older, schema_of
from whimbrel.errors import Refused
from whimbrel.flows.audit_chain import check_chain
from whimbrel.stores import account_tables, run_history_tables, schema
from whimbrel.stores.binary import LargeBinary
from whimbrel.stores.database import Database, alembic_config
from whimbrel.stores.registry import hashed
from whimbrel.stores.transaction import transaction


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with this program's schema."""
    path = tmp_path / "registry.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


def test_a_migrated_database_has_every_table_and_column(file: Path) -> None:
    database = Database(f"sqlite:///{file}")
    try:
        with database.transaction() as connection:
            context = alembic.migration.MigrationContext.configure(connection)
            assert account_tables.metadata is run_history_tables.metadata  # each file adds its tables
            assert alembic.autogenerate.compare_metadata(context, account_tables.metadata) == []
    finally:
        database.close()


def test_the_admin_token_of_before_accounts_is_good_after_them(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    try:
        with database.transaction() as connection:
            config = alembic_config(connection)
            before = ScriptDirectory.from_config(config).get_revision("0019").down_revision
            alembic.command.upgrade(config, str(before))
            for namespace, token, kind in (
                ("default", "a" * 32, "admin"),
                ("b", "b" * 32, "admin"),
                ("b", "e", "enrol"),
            ):
                values = {"n": namespace, "s": hashed(token), "k": kind}
                connection.execute(text("INSERT INTO secret VALUES (:n, :s, :k, 'first', 5.0)"), values)
        database.migrate()
        with transaction(database, "b") as stores:
            token = stores.accounts.signed_in("b" * 32, now=9.0)
            assert token is not None
            assert (token.account, token.kind, token.roles, token.expires_at) == ("admin", "person", ("admin",), None)
            assert stores.accounts.signed_in("a" * 32, now=9.0) is None  # another namespace's
            assert stores.enrolments.token("e") is not None
    finally:
        database.close()


def test_a_migration_says_what_it_did_and_does_it_once(file: Path) -> None:
    newest, older = schema_of(file), make_older(file)
    database = Database(f"sqlite:///{file}")
    try:
        first, again = database.migrate(), database.migrate()
    finally:
        database.close()
    assert (first.before, first.after, first.changed) == (older, newest, True)
    assert (again.before, again.after, again.changed) == (newest, newest, False)


def test_to_check_an_older_schema_says_what_brings_it_up_and_changes_nothing(file: Path) -> None:
    """Every command on a folder migrated it, also one that only reads."""
    older = make_older(file)
    database = Database(f"sqlite:///{file}")
    try:
        with pytest.raises(Refused, match=rf"has the schema {older}, .*`whimbrel serve` or `whimbrel migrate`"):
            database.check_schema()
    finally:
        database.close()
    assert schema_of(file) == older


def test_a_database_without_a_schema_is_no_tracebacks_business(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new.db")
    try:
        with pytest.raises(Refused, match="has no schema"):
            database.check_schema()
    finally:
        database.close()


def test_a_newer_schema_is_refused_by_both_and_left_as_it_is(file: Path) -> None:
    """alembic said: Can't locate revision identified by '9999'."""
    make_newer(file)
    database = Database(f"sqlite:///{file}")
    try:
        for ask in (database.check_schema, database.migrate):
            with pytest.raises(Refused, match=r"the schema 9999, which a newer Whimbrel made: .*install the newer"):
                ask()
    finally:
        database.close()
    assert schema_of(file) == "9999"


_MIGRATE = "import sys; from whimbrel.stores.database import Database as D; print(D(sys.argv[1]).migrate().changed)"


def migrated_at_once(url: str, *, processes: int = 4) -> list[bool]:
    """Whether each of some processes that begin at the same time found something to do."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _MIGRATE, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    answers = [each.communicate(timeout=120) for each in started]
    assert [each.returncode for each in started] == [0] * processes, [err for _, err in answers]
    return [out.strip() == "True" for out, _ in answers]


def test_of_processes_that_migrate_a_file_at_once_one_does_it(tmp_path: Path) -> None:
    assert sorted(migrated_at_once(f"sqlite:///{tmp_path}/new.db")) == [False, False, False, True]


@pytest.mark.postgresql
def test_of_processes_that_migrate_postgresql_at_once_one_does_it(fresh_schema: str) -> None:
    assert sorted(migrated_at_once(fresh_schema)) == [False, False, False, True]


@pytest.mark.postgresql
def test_a_migration_waits_for_the_one_that_runs(fresh_schema: str) -> None:
    """While another process migrates, nothing is begun: alembic would make its tables a second time."""
    import psycopg

    from whimbrel.stores.database import MIGRATION_LOCK

    with psycopg.connect(POSTGRESQL) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        waiting = subprocess.Popen([sys.executable, "-c", _MIGRATE, fresh_schema], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=5)
        other.rollback()
    out, _ = waiting.communicate(timeout=60)
    assert out.strip() == "True"


@pytest.mark.postgresql
def test_a_lock_that_never_comes_is_said(fresh_schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    from whimbrel.errors import Unavailable
    from whimbrel.stores import database as module

    monkeypatch.setattr(module, "_MIGRATION_WAIT_S", 1)
    opened = Database(fresh_schema)
    try:
        with psycopg.connect(POSTGRESQL) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", (module.MIGRATION_LOCK,))
            with pytest.raises(Unavailable, match="the database is in use: another server"):
                opened.migrate()
            other.rollback()
        assert opened.migrate().changed
        with opened.transaction() as connection:
            assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "0"
    finally:
        opened.close()


def test_an_audit_log_from_before_the_chain_is_chained_and_its_beginning_is_marked(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/old.db")
    try:
        with database.transaction() as connection:
            alembic.command.upgrade(alembic_config(connection), "0016")
            for number, space in enumerate(["default", "other", "default"]):
                connection.execute(
                    text(
                        "INSERT INTO audit (namespace, at, actor, action, because, evidence) "
                        "VALUES (:space, :at, 'ana', 'advance', 'é', :evidence)"
                    ),
                    {"space": space, "at": float(number), "evidence": b'{"log_e":2.5}'},
                )
        database.migrate()
        with transaction(database, "default") as stores:
            entries = stores.audit.after(0, limit=10)
            assert [entry.action for entry in entries] == ["advance", "advance", "begin_chain"]
            assert (entries[1].at, entries[1].evidence) == (2.0, {"log_e": 2.5})
            assert entries[2].because.startswith("the 2 entries before this one were written before")
            assert check_chain(entries).problem is None
            assert stores.audit.head() == (3, entries[2].hash)
        with transaction(database, "other") as stores:
            assert [entry.sequence for entry in stores.audit.after(0, limit=10)] == [1, 2]
    finally:
        database.close()


def test_a_rollout_from_before_a_column_of_bytes_is_read_after_it(tmp_path: Path) -> None:
    """SQLite kept the default of each new column as text: no rollout could be read, and no leader judged any more."""
    database = Database(f"sqlite:///{tmp_path / 'registry.db'}")
    try:
        with database.transaction() as connection:
            config = alembic_config(connection)
            alembic.command.upgrade(config, "0014")  # 0015 adds three such columns
            for table in ("rollout", "device"):
                _insert_something(connection, table)
        database.migrate()
        with database.transaction() as connection:
            kinds = connection.execute(text("SELECT typeof(members), typeof(delays_by_class) FROM rollout")).one()
            assert kinds == ("text", "text")  # else this test is about nothing
            for table in (schema.rollouts, schema.devices):
                row = connection.execute(table.select()).mappings().one()
                columns = [column.name for column in table.columns if isinstance(column.type, sqlalchemy.LargeBinary)]
                assert columns == []
                held = [row[column.name] for column in table.columns if isinstance(column.type, LargeBinary)]
                assert {type(value) for value in held} <= {bytes, type(None)}
            assert row["operator_labels"] == b"{}"
    finally:
        database.close()


def _insert_something(connection: Connection, table: str) -> None:
    """One row, with a value of its type in each column that has no default."""
    reflected = sqlalchemy.Table(table, sqlalchemy.MetaData(), autoload_with=connection)
    values = {
        column.name: {str: "x", bytes: b"{}", int: 1, float: 1.0, bool: False}[column.type.python_type]
        for column in reflected.columns
        if not column.nullable and column.server_default is None
    }
    connection.execute(reflected.insert().values(values))


def test_every_column_of_bytes_reads_as_bytes() -> None:
    columns = [column for table in account_tables.metadata.tables.values() for column in table.columns]
    plain = [str(column) for column in columns if isinstance(column.type, sqlalchemy.LargeBinary)]
    assert plain == []
    assert any(isinstance(column.type, LargeBinary) for column in columns)
