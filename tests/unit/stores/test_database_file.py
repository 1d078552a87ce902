"""A database that is a file is its owner's alone."""

import os
import stat
from pathlib import Path

import pytest

from whimbrel.stores.database import Database


@pytest.mark.skipif(os.name != "posix", reason="files have no modes there")
def test_other_users_of_the_machine_do_not_read_a_new_database(tmp_path: Path) -> None:
    """Reports, tickets and reasons were everybody's to read on the machine: SQLite makes files as the umask says."""
    path = tmp_path / "whimbrel.db"
    database = Database(f"sqlite:///{path}")
    assert not path.exists()  # no connection is made yet
    database.migrate()
    with database.engine.connect():
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert modes["whimbrel.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_a_database_that_was_shared_with_a_group_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "whimbrel.db"
    path.touch()
    path.chmod(0o640)
    Database(f"sqlite:///{path}").migrate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
