"""The one durable write: its steps in their order, what it leaves when one fails, and the words of a disk's errors."""

import errno
import os
import stat
from pathlib import Path

import pytest

from support.disk_order import disk_order
from whimbrel import durable
from whimbrel.durable import (
    RealFiles,
    is_temporary,
    make_folders,
    replace,
    temporary_for,
    trouble,
    try_to_write,
    write_durably,
)
from whimbrel.errors import DiskFull, Unavailable


class Steps(RealFiles):
    """The real steps, which are noted; the step `fails` raises, once it was done."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.steps: list[str] = []

    def done(self, step: str, path: Path) -> None:
        self.steps.append(f"{step} {'*' if is_temporary(path.name) else path.name}")
        if step == self.fails:
            raise OSError(errno.EIO, "broken", str(path))

    def create(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        super().create(path, content, mode=mode)
        self.done("create", path)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self.done("sync", path)

    def move(self, source: Path, target: Path) -> None:
        if self.fails != "move":
            super().move(source, target)
        self.done("move", target)

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.done("remove", path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    return tmp_path / "folder" / "file"


def test_bytes_are_durable_before_their_name_and_the_name_before_the_end(place: Path) -> None:
    files = Steps()
    write_durably(place, b"new", files=files)
    assert files.steps == ["create *", "sync *", "move file", "sync folder"]
    assert place.read_bytes() == b"new"
    assert os.listdir(place.parent) == ["file"]


def test_what_may_be_lost_is_not_waited_for(place: Path) -> None:
    files = Steps()
    replace(place, b"new", files=files)
    assert files.steps == ["create *", "move file"]
    assert place.read_bytes() == b"new"


@pytest.mark.parametrize("fails", ["create", "sync", "move"])
def test_a_write_that_fails_leaves_the_old_bytes_and_nothing_else(place: Path, fails: str) -> None:
    for write in (write_durably, replace) if fails != "sync" else (write_durably,):
        files = Steps(fails)
        with pytest.raises(OSError, match="broken"):
            write(place, b"new", files=files)
        assert place.read_bytes() == b"old"
        assert os.listdir(place.parent) == ["file"]
        assert files.steps[-1] == "remove *"


def test_a_file_that_cannot_be_removed_does_not_hide_why_the_write_failed(place: Path) -> None:
    class Stuck(Steps):
        def remove(self, path: Path) -> None:
            raise PermissionError(errno.EACCES, "stuck", str(path))

    for write in (write_durably, replace):
        with pytest.raises(OSError, match="broken"):
            write(place, b"new", files=Stuck("create"))


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_the_mode_is_what_was_asked_for_whatever_the_umask_is(place: Path, mode: int) -> None:
    for umask in (0o077, 0):
        before = os.umask(umask)
        try:
            write_durably(place, b"x", mode=mode)
        finally:
            os.umask(before)
        assert stat.S_IMODE(place.stat().st_mode) == mode
    write_durably(place, b"x")
    assert stat.S_IMODE(place.stat().st_mode) == 0o644


def test_a_new_file_replaces_none(place: Path) -> None:
    with pytest.raises(FileExistsError):
        RealFiles().create(place, b"other")
    assert place.read_bytes() == b"old"
    RealFiles().remove(place)
    RealFiles().remove(place)
    assert not place.exists()


def test_the_real_disk_is_asked_to_write_the_bytes_then_the_names(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = disk_order(monkeypatch, tmp_path)
    write_durably(place, b"new")
    assert order == ["sync folder/*", "rename folder/file", "sync folder"]


def test_folders_are_made_from_the_top_and_each_name_is_durable(tmp_path: Path) -> None:
    class Noted(Steps):
        def add_folder(self, path: Path) -> None:
            super().add_folder(path)
            self.done("add", path)

    files = Noted()
    make_folders(tmp_path / "a" / "b" / "c", files=files)
    assert files.steps == ["add a", f"sync {tmp_path.name}", "add b", "sync a", "add c", "sync b"]
    files.steps.clear()
    make_folders(tmp_path / "a" / "b" / "c", files=files)
    assert files.steps == []


def test_temporary_names_are_known_again_and_lie_beside_their_file() -> None:
    one, other = (temporary_for(Path("/x/model.onnx")) for _ in range(2))
    assert one.parent == Path("/x")
    assert one != other
    assert one.name.startswith(".model.onnx.")
    assert [is_temporary(name) for name in (one.name, ".a.tmp", "a.tmp", ".a", ".tmp.x")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_folder_that_cannot_be_opened_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "no", str(tmp_path))

    monkeypatch.setattr(durable.os, "open", refuse)
    durable.fsync_folder(tmp_path)
    with monkeypatch.context() as other:
        other.setattr(durable.os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError(2, "gone")))
        with pytest.raises(FileNotFoundError):
            durable.fsync_folder(tmp_path)


def test_descriptors_of_folders_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        durable.fsync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "x"), DiskFull, "storing failed: the disk is full; free some space and try again"),
        (
            OSError(errno.EDQUOT, "x", "/a/b"),
            DiskFull,
            "storing failed: the disk is full (its quota is used up) at /a/b; free some space and try again",
        ),
        (
            OSError(errno.EROFS, "x", b"/a/.b.1.tmp"),
            Unavailable,
            "storing failed: the file system is read-only at /a; mount it for writing, or use another",
        ),
        (
            OSError(errno.EACCES, "x", Path("/a/b")),
            Unavailable,
            "storing failed at /a/b: you have no permission for it",
        ),
        (OSError(errno.EIO, "x"), Unavailable, "storing failed: the disk cannot read it"),
    ],
)
def test_a_disks_error_is_told_with_what_was_done_where_and_what_to_do(
    error: OSError, kind: type[Exception], words: str
) -> None:
    told = trouble(error, doing="storing")
    assert type(told) is kind
    assert str(told) == words


def test_a_disk_is_tried_with_as_much_as_a_database_needs_at_once(tmp_path: Path) -> None:
    class Sized(Steps):
        def create(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
            self.steps.append(f"{len(content)} bytes")
            super().create(path, content, mode=mode)

    files = Sized()
    try_to_write(tmp_path, doing="it", files=files)
    assert files.steps == ["65536 bytes", "create *", "sync *", "remove *"]
    with pytest.raises(Unavailable, match=f"^it failed at {tmp_path}: the disk cannot read it$"):
        try_to_write(tmp_path, doing="it", files=Steps("sync"))
    assert list(tmp_path.iterdir()) == []
