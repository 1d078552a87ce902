"""A folder travels as one artifact: the same bytes everywhere, and nothing in it but files and folders."""

import os
import stat
from pathlib import Path

import pytest

from whimbrel.errors import Conflict, UntrustedInput
from whimbrel.model.documents import digest_of
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
