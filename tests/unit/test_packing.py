"""A folder travels as one artifact: the same bytes everywhere, and nothing in it but files and folders."""

import os
import stat
import tarfile
from pathlib import Path

import pytest

from support.disk_order import disk_order
from whimbrel import limits, packing
from whimbrel.errors import Conflict, UntrustedInput
from whimbrel.model.documents import digest_of
from whimbrel.model.paths import DEPTH
from whimbrel.packing import pack, unpack

FILES = {
    "Manifest.json": b"{}",
    "Data/weights/weight.bin": b"\x00" * 3000,
    "Data/model.mlmodel": b"spec",
    "é ü.txt": b"",
}


def _tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_same_tree_packs_to_the_same_bytes(tmp_path: Path) -> None:
    one = _tree(tmp_path / "one", FILES)
    other = _tree(tmp_path / "other", dict(reversed(FILES.items())))
    os.chmod(other / "Manifest.json", 0o755)
    os.utime(other / "Manifest.json", (1, 1))
    pack(one, tmp_path / "one.tar")
    pack(other, tmp_path / "other.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()


def test_packed_bytes_never_change_between_releases_of_ours(tmp_path: Path) -> None:
    pack(_tree(tmp_path / "tree", FILES), tmp_path / "tree.tar")
    digest = digest_of((tmp_path / "tree.tar").read_bytes())
    assert digest == "f567853e153dcea7b64197d0c5be583de53e1708e52144251f914507564d2a78"


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", FILES)
    (tree / "empty").mkdir()
    pack(tree, tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "again")
    found = {path.relative_to(tmp_path / "again").as_posix(): path for path in (tmp_path / "again").rglob("*")}
    assert {name: path.read_bytes() for name, path in found.items() if path.is_file()} == FILES
    assert found["empty"].is_dir()
    assert stat.S_IMODE(found["Manifest.json"].stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "tree", "tree.tar"]


def test_names_too_long_for_ustar_travel(tmp_path: Path) -> None:
    name = "/".join(["n" * 90] * 4) + "/ü" + "m" * 200
    pack(_tree(tmp_path / "tree", {name: b"x"}), tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "again")
    assert (tmp_path / "again" / name).read_bytes() == b"x"


def test_a_link_in_a_folder_is_refused_and_not_followed(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", FILES)
    (tree / "link").symlink_to("/etc/passwd")
    with pytest.raises(UntrustedInput, match="is a link; replace it by what it points to"):
        pack(tree, tmp_path / "tree.tar")
    assert not (tmp_path / "tree.tar").exists()


def test_a_link_to_a_folder_is_no_folder_to_pack(tmp_path: Path) -> None:
    _tree(tmp_path / "tree", FILES)
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    with pytest.raises(UntrustedInput, match="is not a folder"):
        pack(tmp_path / "link", tmp_path / "tree.tar")


def test_a_pipe_in_a_folder_is_refused(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree", FILES)
    os.mkfifo(tree / "pipe")
    with pytest.raises(UntrustedInput, match="neither a file nor a folder"):
        pack(tree, tmp_path / "tree.tar")


@pytest.mark.parametrize("name", ["aux", "con.txt", "a:b", "a\\b", "a?", "dot.", "new\nline"])
def test_names_that_some_system_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / name).write_bytes(b"")
    with pytest.raises(UntrustedInput, match="tree"):
        pack(tmp_path / "tree", tmp_path / "tree.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_very_deep_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree" / "/".join("d" * 40)).mkdir(parents=True)
    with pytest.raises(UntrustedInput, match="deep"):
        pack(tmp_path / "tree", tmp_path / "tree.tar")


def test_unpacking_never_touches_what_is_there(tmp_path: Path) -> None:
    pack(_tree(tmp_path / "tree", FILES), tmp_path / "tree.tar")
    with pytest.raises(Conflict, match="exists already"):
        unpack(tmp_path / "tree.tar", tmp_path / "tree")


CHUNK = limits.COPY_CHUNK_BYTES


@pytest.mark.parametrize("size", [0, 1, 512, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 513])
def test_a_file_of_any_size_travels_whole(tmp_path: Path, size: int) -> None:
    """Bytes are copied in chunks of a mebibyte; a file that is larger than one is no hostile archive."""
    content = bytes(range(251)) * (size // 251 + 1)
    pack(_tree(tmp_path / "tree", {"large": content[:size], "z/next": b"after it"}), tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "again")
    assert (tmp_path / "again" / "large").read_bytes() == content[:size]
    assert (tmp_path / "again" / "z" / "next").read_bytes() == b"after it"


def test_modes_are_ours_whatever_the_umask_is(tmp_path: Path) -> None:
    _tree(tmp_path / "tree", {"folder/file": b"x"})
    before = os.umask(0o077)
    try:
        pack(tmp_path / "tree", tmp_path / "tree.tar")
        unpack(tmp_path / "tree.tar", tmp_path / "again")
    finally:
        os.umask(before)
    modes = {
        name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("tree.tar", "again", "again/folder/file")
    }
    assert modes == {"tree.tar": 0o644, "again": 0o755, "again/folder/file": 0o644}
    with tarfile.open(tmp_path / "tree.tar") as tar:
        assert [(member.name, member.mode, member.mtime, member.uid) for member in tar] == [
            ("folder", 0o755, 0, 0),
            ("folder/file", 0o644, 0, 0),
        ]


def test_a_folder_may_be_as_deep_as_the_limit_says_and_no_deeper(tmp_path: Path) -> None:
    names = ["/".join("d" * depth) for depth in (DEPTH, DEPTH + 1)]
    pack(_tree(tmp_path / "tree", {names[0]: b"x"}), tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "again")
    assert (tmp_path / "again" / names[0]).read_bytes() == b"x"
    with pytest.raises(UntrustedInput) as caught:
        pack(_tree(tmp_path / "deeper", {names[1]: b"x"}), tmp_path / "deeper.tar")
    assert str(caught.value) == f"{tmp_path / 'deeper'} is more than 32 folders deep; make it flatter, then pack again"


def test_as_many_files_as_the_limit_says_are_packed_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACKAGE_FILES", 3)
    pack(_tree(tmp_path / "tree", dict.fromkeys("abc", b"")), tmp_path / "tree.tar")
    with pytest.raises(UntrustedInput) as caught:
        pack(_tree(tmp_path / "many", dict.fromkeys("abcd", b"")), tmp_path / "many.tar")
    assert str(caught.value) == f"{tmp_path / 'many'} holds 4 files; at most 3 are packed"


def test_as_many_files_and_bytes_as_may_be_are_unpacked_and_no_more(tmp_path: Path) -> None:
    pack(_tree(tmp_path / "tree", {"a": b"x" * 50, "b": b"x" * 49, "c": b""}), tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "again", bytes_max=99, files_max=3)
    for bounds, sentence in (({"bytes_max": 98}, "98 bytes"), ({"files_max": 2}, "2 files")):
        with pytest.raises(UntrustedInput) as caught:
            unpack(tmp_path / "tree.tar", tmp_path / "other", **bounds)
        assert str(caught.value) == f"tree.tar holds more than {sentence}"
    assert not (tmp_path / "other").exists()


def test_without_bounds_of_its_own_an_archive_has_those_of_the_project() -> None:
    assert unpack.__kwdefaults__ == {"bytes_max": limits.ARTIFACT_BYTES, "files_max": limits.PACKAGE_FILES}


def test_folders_that_an_archive_does_not_list_are_made(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tree.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a/b/c"))
    unpack(tmp_path / "tree.tar", tmp_path / "again")
    assert (tmp_path / "again" / "a" / "b" / "c").read_bytes() == b""
    assert stat.S_IMODE((tmp_path / "again" / "a").stat().st_mode) == 0o755


def test_a_link_that_leads_nowhere_is_something_that_is_there(tmp_path: Path) -> None:
    pack(_tree(tmp_path / "tree", FILES), tmp_path / "tree.tar")
    (tmp_path / "again").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict, match="exists already; unpack to a new name"):
        unpack(tmp_path / "tree.tar", tmp_path / "again")
    assert not (tmp_path / "nowhere").exists()


def test_an_archive_that_is_there_stays_when_its_folder_cannot_be_packed(tmp_path: Path) -> None:
    (tmp_path / "tree.tar").write_bytes(b"the one before")
    tree = _tree(tmp_path / "tree", FILES)
    os.mkfifo(tree / "pipe")
    with pytest.raises(UntrustedInput):
        pack(tree, tmp_path / "tree.tar")
    assert (tmp_path / "tree.tar").read_bytes() == b"the one before"


def test_a_folder_whose_file_vanishes_leaves_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = _tree(tmp_path / "tree", FILES)
    check = packing._check_names

    def vanish(names: list[str], *, what: str) -> None:
        check(names, what=what)
        (tree / "Manifest.json").unlink()

    monkeypatch.setattr(packing, "_check_names", vanish)
    with pytest.raises(FileNotFoundError):
        pack(tree, tmp_path / "tree.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_an_archive_is_durable_before_its_name_is_and_a_folder_with_all_that_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = _tree(tmp_path / "tree", {"folder/file": b"x"})
    order = disk_order(monkeypatch, tmp_path)
    pack(tree, tmp_path / "tree.tar")
    assert order == ["sync *", "rename tree.tar", "sync ."]
    order.clear()
    unpack(tmp_path / "tree.tar", tmp_path / "again")
    assert order == ["sync */folder/file", "sync */folder", "sync *", "rename again", "sync ."]
