"""Inserting or updating rows, and packing values into columns: what every store needs."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

from whimbrel.model.documents import encode

_Name = TypeVar("_Name")
NAMES_A_QUERY = 500  # databases bound the values of a statement; the smallest bound in use is 999


def upsert(connection: Connection, table: Table, values: dict[str, Any], *, update: tuple[str, ...] = ()) -> bool:
    """Insert a row, or update the columns `update` of the row with its primary key (none: leave that row alone).

    True when a row was inserted or updated.
    """
    # PostgreSQL answers with keys, and SQLAlchemy then forgets the number of rows unless it is asked to keep it.
    statement = _statement(table, update, connection.dialect.name)
    return connection.execute(statement, values, execution_options={"preserve_rowcount": True}).rowcount > 0


def upsert_all(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], *, update: tuple[str, ...] = ()
) -> None:
    """`upsert` of many rows with the same columns, in one round trip."""
    if rows:
        connection.execute(_statement(table, update, connection.dialect.name), rows)


@functools.cache  # to build a statement costs more than to run it
def _statement(table: Table, update: tuple[str, ...], dialect: str) -> Executable:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    if not update:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(
        index_elements=keys, set_={name: statement.excluded[name] for name in update}
    )


def packed(value: object) -> bytes:
    """A value for a column of encoded documents."""
    return encode(value)


def portions(names: Sequence[_Name], most: int = NAMES_A_QUERY) -> Iterator[Sequence[_Name]]:
    """Names in portions that a statement may hold."""
    for first in range(0, len(names), most):
        yield names[first : first + most]
