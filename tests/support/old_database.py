"""A repository's SQLite database as the release before left it: the schema before the newest, with the same rows."""

import sqlite3
from pathlib import Path

import alembic.command
import alembic.script
from sqlalchemy import MetaData, create_engine, insert, select

from whimbrel.stores.database import alembic_config


def make_older(path: Path) -> str:
    """Take the newest migration back, whatever it is. Returns the schema that the database has then."""
    newer, older = path.with_suffix(".newer"), path
    path.rename(newer)
    for name in (f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    source, target = create_engine(f"sqlite:///{newer}"), create_engine(f"sqlite:///{older}")
    with source.begin() as before, target.begin() as after:
        config = alembic_config(after)
        scripts = alembic.script.ScriptDirectory.from_config(config)
        revision = scripts.get_revision("head").down_revision
        assert isinstance(revision, str)
        alembic.command.upgrade(config, revision)
        theirs, ours = MetaData(), MetaData()
        theirs.reflect(before)
        ours.reflect(after)
        for table in ours.sorted_tables:
            if table.name == "alembic_version":
                continue
            known = theirs.tables[table.name]
            names = [column.name for column in table.columns if column.name in known.columns]
            rows = before.execute(select(*(known.c[name] for name in names))).mappings().all()
            if rows:
                after.execute(insert(table), [dict(row) for row in rows])
        if "api_token" in theirs.tables and "api_token" not in ours.tables:  # where admin.token was kept before
            known, kept = theirs.tables["api_token"], ours.tables["secret"]
            columns = [known.c[name] for name in ("namespace", "sha256", "name", "created_at")]
            for row in before.execute(select(*columns)).mappings():
                after.execute(insert(kept).values(**row, kind="admin"))
    for engine in (source, target):
        engine.dispose()
    newer.unlink()
    return revision


def make_newer(path: Path) -> None:
    """Say that a program of the future made the schema."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


def schema_of(path: Path) -> str:
    """The schema that a database has."""
    with sqlite3.connect(path) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    return str(revision)
