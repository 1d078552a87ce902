"""The migrations lead to the schema that the program asks for."""

from pathlib import Path

import alembic.autogenerate
import alembic.migration

from whimbrel.stores import schema
from whimbrel.stores.database import Database


def test_a_migrated_database_has_every_table_and_column(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/registry.db")
    try:
        database.migrate()
        with database.transaction() as connection:
            context = alembic.migration.MigrationContext.configure(connection)
            assert alembic.autogenerate.compare_metadata(context, schema.metadata) == []
    finally:
        database.close()
