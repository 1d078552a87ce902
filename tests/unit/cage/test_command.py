"""What a command wrote is counted, and each limit that it passes has its words."""

import os
import sys
from pathlib import Path

import pytest

from whimbrel import limits
from whimbrel.cage import child, readable
from whimbrel.cage.check import Tried, report
from whimbrel.cage.command import Ran, Request, _bytes_below, _passed
from whimbrel.cage.removal import remove_tree
from whimbrel.cage.walls import Walls

REQUEST = Request(command=("x",), folder="/f", scratch="/s", time_s=2.5, bytes_max=1000)


@pytest.mark.parametrize(
    ("elapsed", "size", "objection", "words"),
    [
        (2.5, 1000, None, None),
        (2.6, 0, None, "it took more than 2.5 s"),
        (0.0, 1001, None, "it wrote more than 1000 bytes"),
        (0.0, 0, "it dug", "it dug"),
        (2.6, 1001, "it dug", "it took more than 2.5 s"),
        (0.0, 1001, "it dug", "it dug"),
    ],
)
def test_each_limit_is_passed_beyond_it_and_not_at_it(
    elapsed: float, size: int, objection: str | None, words: str | None
) -> None:
    assert _passed(REQUEST, elapsed, size, objection) == words


@pytest.mark.parametrize(
    ("ran", "well"),
    [
        (Ran(), True),
        (Ran(status=1), False),
        (Ran(status=-9), False),
        (Ran(stopped="it took long"), False),
        (Ran(problem="it did not start"), False),
    ],
)
def test_a_command_is_well_that_ended_by_itself_with_status_0(ran: Ran, well: bool) -> None:
    assert ran.is_well is well


def test_blocks_on_the_disk_are_counted_in_all_folders_without_following_links(tmp_path: Path) -> None:
    one, other, outside = tmp_path / "one", tmp_path / "other", tmp_path / "outside"
    for folder in (one / "deep" / "er", other, outside):
        folder.mkdir(parents=True)
    (outside / "large").write_bytes(bytes(1_000_000))
    (one / "a").write_bytes(bytes(10_000))
    (one / "deep" / "er" / "b").write_bytes(bytes(20_000))
    (other / "c").write_bytes(bytes(5_000))
    (one / "link").symlink_to(outside)
    counted = [one / "a", one / "deep", one / "deep" / "er", one / "deep" / "er" / "b", one / "link", other / "c"]
    blocks = sum(path.lstat().st_blocks * 512 for path in counted)
    assert _bytes_below(str(one), str(other)) == (blocks, None)
    assert _bytes_below(str(tmp_path / "gone")) == (0, None)


def test_folders_are_counted_to_the_depth_of_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REBUILD_DEPTH", 2)
    (tmp_path / "1" / "2").mkdir(parents=True)
    assert _bytes_below(str(tmp_path))[1] is None
    (tmp_path / "1" / "2" / "3").mkdir()
    assert _bytes_below(str(tmp_path))[1] == "it made folders within folders, more than 2 deep"


def test_files_are_counted_in_all_folders_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REBUILD_FILES", 3)
    (tmp_path / "folder").mkdir()
    for name in ("a", "folder/b"):
        (tmp_path / name).touch()
    assert _bytes_below(str(tmp_path))[1] is None
    (tmp_path / "folder" / "c").touch()
    assert _bytes_below(str(tmp_path))[1] == "it wrote more than 3 files"


# --- how a caged process is started ---


def test_of_the_environment_a_few_names_are_handed_on() -> None:
    given = {"PATH": "/bin", "TZ": "UTC", "HOME": "/root", "WHIMBREL_TOKEN": "secret", "PYTHONPATH": "/x"}
    assert child.environment(given) == {
        "PATH": "/bin",
        "TZ": "UTC",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    assert child.environment({"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "1"


def test_modules_come_from_where_this_process_has_them_and_from_no_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "path", ["", str(tmp_path), "/somewhere", "relative", "/somewhere", "/pro\ngram", "/bin-of"]
    )
    monkeypatch.setattr(sys, "argv", ["/bin-of/program"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/asked", "relative", "/somewhere"]))
    words = child.command("a.module", "x", "y")
    assert words[:4] == [sys.executable, "-I", "-W", "ignore"]
    assert words[7:] == ["a.module", "x", "y"]
    assert words[6].split("\n") == ["/asked", "/somewhere", str(Path(child.__file__).parents[2])]


def test_places_of_the_runtime_are_no_whole_home_and_no_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", os.pathsep.join(["/lib-of-mine", "relative", str(tmp_path), "/"]))
    monkeypatch.setattr(sys, "path", ["", "/modules", str(tmp_path), sys.prefix])
    places = list(readable.runtime_places())
    assert {Path("/lib-of-mine"), Path("/modules"), Path("/usr/lib"), Path("/dev/urandom")} <= set(places)
    assert {Path("/"), tmp_path, Path(sys.prefix), Path("relative"), Path("/etc/passwd"), Path("/etc")}.isdisjoint(
        places
    )
    assert len(places) == len(set(places))
    assert Path(readable.__file__).parents[1] in places


# --- what holds ---


@pytest.mark.parametrize(
    ("filtered", "namespaces", "offline"),
    [(True, False, True), (False, True, True), (True, True, True), (False, False, False)],
)
def test_one_wall_is_enough_against_the_network(filtered: bool, namespaces: bool, offline: bool) -> None:
    assert Walls(namespaces=namespaces, filtered=filtered, landlock=0).offline is offline


def test_each_wall_is_told_with_what_it_means_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("processes", "sockets", "writing", "signals", "files")
    for open_name in names:
        tried = Tried(True, 1, True, {name: name == open_name for name in names})
        monkeypatch.setattr("whimbrel.cage.check.walls_here", lambda tried=tried: tried)
        told = report()
        assert [(wall.name, wall.holds) for wall in told] == [(name, name != open_name) for name in names]
        assert [bool(wall.to_do) for wall in told] == [name == open_name for name in names]
        (wall,) = (each for each in told if not each.holds)
        assert " can " in wall.means
        assert ("5.13" in wall.to_do) is (open_name == "files")


# --- removing what it left ---


def test_a_tree_is_removed_however_deep_and_whatever_its_modes_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    top = tmp_path / "top"
    place = top
    for _ in range(40):
        place = place / "d"
    place.mkdir(parents=True)
    (place / "file").touch()
    (top / "b" / "c").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    (top / "b" / "c").chmod(0)
    (top / "b").chmod(0o500)
    remove_tree(top)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").read_text() == "kept"
