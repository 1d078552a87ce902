"""How do rows and records meet? The few lines that every part of the registry shares."""

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from whimbrel.model.documents import encode


def upsert(connection: Connection, table: Table, values: dict[str, Any], *, update: tuple[str, ...] = ()) -> bool:
    """Insert a row, or update the columns `update` of the row with its primary key (none: leave that row alone).

    True when a row was inserted or updated.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values)
    keys = [column.name for column in table.primary_key]
    if update:
        finished = statement.on_conflict_do_update(index_elements=keys, set_={name: values[name] for name in update})
    else:
        finished = statement.on_conflict_do_nothing(index_elements=keys)
    # PostgreSQL answers with keys, and SQLAlchemy then forgets the row count unless it is asked to keep it.
    return connection.execute(finished, execution_options={"preserve_rowcount": True}).rowcount > 0


def packed(value: object) -> bytes:
    """A value for a column of encoded documents."""
    return encode(value)
