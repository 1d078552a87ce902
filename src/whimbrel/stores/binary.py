"""A column of bytes that reads as bytes, also where SQLite holds text in it.

A migration that adds a column gives the rows that are there its default, such as `{}`. PostgreSQL keeps that as bytes;
SQLite keeps what the statement wrote, which is text, and whoever reads bytes fails on it. All tables use this type.
"""

from typing import Any

import sqlalchemy


class LargeBinary(sqlalchemy.TypeDecorator[bytes]):
    """SQLAlchemy's `LargeBinary`, whose values are bytes on every database."""

    impl = sqlalchemy.LargeBinary
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sqlalchemy.Dialect) -> bytes | None:  # noqa: ARG002 (its form)
        """A value of a row, as bytes."""
        return value.encode() if isinstance(value, str) else value
