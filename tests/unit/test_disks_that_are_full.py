"""A full disk is called a full disk, by whatever has met it: a file, the database or the blob store.

The disks are full for one step of `Files`, or by the very error that the system or a library gives there.
`e2e/first_hour/test_start.py` fills a real one.
"""

import asyncio
import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from whimbrel import durable
from whimbrel.durable import RealFiles, trouble, try_to_write, write_durably
from whimbrel.errors import DiskFull, Unavailable
from whimbrel.server.http import problem, unforeseen
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database, translated


class FullDisk(RealFiles):
    """Every byte is one too many. `late`: it is known only when the file is synced, as on a network's file system."""

    def __init__(self, code: int = errno.ENOSPC, *, late: bool = False) -> None:
        self.code, self.late = code, late

    def create(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        super().create(path, content if self.late else b"", mode=mode)
        if not self.late:
            raise OSError(self.code, "No space left on device", str(path))

    def sync(self, path: Path) -> None:
        raise OSError(self.code, "No space left on device", str(path))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "is full at"), (errno.EDQUOT, "quota is used up")])
def test_a_disk_is_asked_by_writing_and_nothing_stays_there(tmp_path: Path, code: int, words: str, late: bool) -> None:
    with pytest.raises(DiskFull, match=words) as caught:
        try_to_write(tmp_path, doing="writing the database", files=FullDisk(code, late=late))
    assert f"{tmp_path};" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    try_to_write(tmp_path, doing="writing the database")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_name_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        write_durably(tmp_path / "root.json", b"x", files=FullDisk())
    said = trouble(caught.value, doing="this command")
    assert str(said) == f"this command failed: the disk is full at {tmp_path}; free some space and try again"
    assert (said.status, said.exit_code) == (507, 3)


def test_a_read_only_file_system_and_other_errors_are_said() -> None:
    read_only = trouble(OSError(errno.EROFS, "Read-only file system", "/srv/x"), doing="writing")
    assert "the file system is read-only at /srv/x" in str(read_only)
    assert not isinstance(read_only, DiskFull)
    assert str(trouble(PermissionError(13, "Permission denied", "/srv/x"), doing="writing")) == (
        "writing failed at /srv/x: you have no permission for it"
    )


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN]
)
def test_sqlites_disk_error_is_a_full_disk_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It said "the database does not answer: disk I/O error"."""
    monkeypatch.setattr(durable.try_to_write, "__kwdefaults__", {"files": FullDisk()})
    with pytest.raises(DiskFull, match="writing the database failed: the disk is full"), translated(tmp_path):
        raise sqlite_error("disk I/O error", code)


def test_sqlites_disk_error_stays_one_where_there_is_room(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="disk I/O error") as caught, translated(tmp_path):
        raise sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR_READ)
    assert not isinstance(caught.value, DiskFull)


def sqlite_error(words: str, code: int) -> OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return OperationalError("INSERT", None, error)


def test_a_real_sqlite_that_is_full_says_so(tmp_path: Path) -> None:
    """A bound of SQLite's own is the full disk that needs no mount."""
    database = Database(f"sqlite:///{tmp_path}/registry.db")

    def fill() -> None:
        with database.transaction() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1")
            for _ in range(2000):
                connection.exec_driver_sql("INSERT INTO lease VALUES (hex(randomblob(30)), 'me', 0)")

    try:
        database.migrate()
        with pytest.raises(DiskFull, match="the disk of the database is full"):
            fill()
    finally:
        database.close()


def test_the_disk_of_a_database_server_is_said_to_be_full() -> None:
    from psycopg.errors import DiskFull as TheirDiskFull

    error = OperationalError("INSERT", None, TheirDiskFull("could not extend file: No space left on device"))
    with pytest.raises(DiskFull, match="the disk of the database server is full"), translated():
        raise error


def test_the_blob_store_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs.open("files", base=tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("whimbrel.stores.blobs.os.fsync", full)
    with pytest.raises(DiskFull, match=r"storing default/metadata/1\.root\.json failed: the disk is full"):
        asyncio.run(blobs.put("default/metadata/1.root.json", b"x"))


def test_a_request_is_answered_with_507_and_may_be_sent_again() -> None:
    status, body, headers = problem(unforeseen(OSError(errno.ENOSPC, "No space left on device", "/srv/keys/.x.1.tmp")))
    assert status == 507
    assert b"the disk is full at /srv/keys" in body
    assert dict(headers)[b"retry-after"]
    status, body, _ = problem(unforeseen(OSError(errno.EIO, "Input/output error")))
    assert (status, b"see the server's log" in body) == (500, True)
