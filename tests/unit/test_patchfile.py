"""Patches of files: what is promised is what comes out, or nothing does and a sentence says why.

What applying a patch freed is the system's again: numpy stays in the agent's process, its work need not.
"""

import errno
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from support.delta import model, safetensors
from support.disk_order import disk_order
from whimbrel import limits, patchfile
from whimbrel.errors import DiskFull, Refused, Unavailable, UntrustedInput
from whimbrel.patchfile import Encoded, apply_files, encode_files, inspect_file, threads_for

# Blocks of a kilobyte, of which every hundredth stays: no page at the end of the heap is free.
_PROGRAM = """
from whimbrel.patchfile import _give_back_freed_memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

held = [bytes(1000) for _ in range(50_000)]
kept, held = held[::100], None
before = resident_mb()
_give_back_freed_memory()
print(before - resident_mb(), len(kept))
"""


def test_freed_memory_between_blocks_in_use_is_given_back() -> None:
    said = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True).stdout
    returned_mb, kept = map(float, said.split())
    assert (returned_mb > 25, kept) == (True, 500)


# --- what is promised, and what comes out ---


def tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """`old`, `new` (one file each) and the `patch` between them."""
    chance = Random(3)
    old = chance.randbytes(200_000)
    tree(tmp_path, {"old": old, "new": old[:100_000] + b"another" + old[100_000:]})
    encode_files(tmp_path / "old", tmp_path / "new", tmp_path / "patch")
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`old`, `new` (folders) and the `patch` between them."""
    chance = Random(4)
    a, b = chance.randbytes(70_000), chance.randbytes(30_000)
    tree(tmp_path / "old", {"a": a, "b": b})
    tree(tmp_path / "new", {"b": b + b"!", "deep/er/a": a, "empty": b"", "z": a[:5]})
    encode_files(tmp_path / "old", tmp_path / "new", tmp_path / "patch")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def refusal(kind: type[Exception], run: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        run()
    return str(caught.value)


def test_a_patch_says_what_it_costs(pair: Path) -> None:
    made = encode_files(pair / "old", pair / "new", pair / "again")
    assert (made.patch_bytes, made.target_bytes) == ((pair / "again").stat().st_size, 200_007)
    assert made.ratio == made.patch_bytes / 200_007
    assert 0 < made.seconds < 60
    assert Encoded(5, 0, 1.0).ratio == 0.0
    assert stat.S_IMODE((pair / "again").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("threads", "memory_mb", "run"),
    [
        (1, None, 1),
        (64, None, 64),
        (65, None, 64),
        (0, None, 1),
        (8, 15, 1),
        (8, 16, 1),
        (8, 31, 1),
        (8, 32, 2),
        (99, 9999, 64),
    ],
)
def test_each_thread_needs_16_mebibytes_and_there_are_64_at_most(threads: int, memory_mb: int | None, run: int) -> None:
    assert threads_for(threads, None if memory_mb is None else memory_mb * limits.MIB) == run


def test_a_patch_that_makes_what_the_release_says_is_applied(pair: Path) -> None:
    made = apply_files(
        pair / "old", pair / "patch", pair / "out", expect_sha256=sha256(pair / "new"), expect_bytes=200_007
    )
    assert made == 200_007
    assert (pair / "out").read_bytes() == (pair / "new").read_bytes()


@pytest.mark.parametrize("size", [200_006, 200_008])
def test_a_patch_that_makes_another_size_is_refused_whatever_its_hash(pair: Path, size: int) -> None:
    told = refusal(
        UntrustedInput,
        lambda: apply_files(
            pair / "old", pair / "patch", pair / "out", expect_sha256=sha256(pair / "new"), expect_bytes=size
        ),
    )
    assert told == f"the patch makes 200007 bytes; the release says {size}"


def test_a_patch_that_makes_another_file_of_the_same_size_is_refused(pair: Path) -> None:
    told = refusal(
        UntrustedInput,
        lambda: apply_files(
            pair / "old", pair / "patch", pair / "out", expect_sha256=sha256(pair / "old"), expect_bytes=200_007
        ),
    )
    assert told == "the patch makes another file than the release says: their SHA-256 differ"
    assert not (pair / "out").exists()


def test_a_patch_that_makes_a_folder_is_not_the_one_file_of_a_release(folders: Path) -> None:
    """Also where its first file is the very file that was promised."""
    first = sha256(folders / "new" / "b")
    told = refusal(
        UntrustedInput, lambda: apply_files(folders / "old", folders / "patch", folders / "out", expect_sha256=first)
    )
    assert "the patch makes another file than the release says" in told
    assert not (folders / "out").exists()


def test_progress_ends_at_its_total(pair: Path) -> None:
    for run in (
        lambda **told: encode_files(pair / "old", pair / "new", pair / "again", **told),
        lambda **told: apply_files(pair / "old", pair / "patch", pair / "out", **told),
    ):
        totals: list[int] = []
        steps: list[int] = []
        run(on_total=totals.append, advance=steps.append)
        assert totals == [sum(steps)]
        assert min(steps) >= 0


def test_the_head_of_a_patch_is_read_without_its_base(pair: Path) -> None:
    parsed = inspect_file(pair / "patch")
    assert (parsed.base_bytes, parsed.target_bytes) == (200_000, 200_007)
    assert [entry.sha256 for entry in parsed.target] == [sha256(pair / "new")]


def test_folders_of_several_files_come_out_as_they_were(folders: Path) -> None:
    made = apply_files(folders / "old", folders / "patch", folders / "out")
    assert contents(folders / "out") == contents(folders / "new")
    assert made == 100_006
    assert sorted(path.name for path in folders.iterdir()) == ["new", "old", "out", "patch"]


def test_a_folder_that_is_empty_is_taken_and_one_with_a_file_is_not(folders: Path) -> None:
    (folders / "out").mkdir()
    apply_files(folders / "old", folders / "patch", folders / "out")
    assert contents(folders / "out") == contents(folders / "new")
    told = refusal(Refused, lambda: apply_files(folders / "old", folders / "patch", folders / "out"))
    assert told == f"{folders / 'out'} is there already, and the target is a folder: name a new one"


def test_a_folder_does_not_replace_a_file(folders: Path) -> None:
    (folders / "file").write_bytes(b"mine")
    told = refusal(Refused, lambda: apply_files(folders / "old", folders / "patch", folders / "file"))
    assert told == f"{folders / 'file'} is there already, and the target is a folder: name a new one"
    assert (folders / "file").read_bytes() == b"mine"


def test_a_file_does_not_replace_a_folder(pair: Path) -> None:
    (pair / "out").mkdir()
    told = refusal(Refused, lambda: apply_files(pair / "old", pair / "patch", pair / "out"))
    assert told == f"{pair / 'out'} is a folder, and the target is one file"


@pytest.mark.parametrize(
    "change",
    [
        lambda base: (base / "c").write_bytes(b""),
        lambda base: (base / "b").unlink(),
        lambda base: (base / "b").rename(base / "c"),
        lambda base: (base / "b").write_bytes((base / "b").read_bytes() + b"!"),
        lambda base: (base / "b").write_bytes(b"!" + (base / "b").read_bytes()[1:]),
    ],
    ids=["one more", "one less", "another name", "longer", "other bytes"],
)
def test_a_base_folder_that_is_another_one_is_refused(folders: Path, change: Callable[[Path], object]) -> None:
    change(folders / "old")
    assert "another base" in refusal(
        UntrustedInput, lambda: apply_files(folders / "old", folders / "patch", folders / "out")
    )
    assert sorted(path.name for path in folders.iterdir()) == ["new", "old", "patch"]


def test_what_cannot_be_carried_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tree(tmp_path / "odd", {"a": b"1", "a:b": b""})
    tree(tmp_path / "good", {"a": b"1"})

    def encode(base: str) -> Callable[[], object]:
        return lambda: encode_files(tmp_path / base, tmp_path / "good", tmp_path / "patch")

    assert refusal(Refused, encode("empty")) == f"there are no files in {tmp_path / 'empty'}"
    assert refusal(UntrustedInput, encode("odd")) == (
        f"'a:b' in {tmp_path / 'odd'} cannot be carried to every system: rename it"
    )
    assert refusal(Refused, encode("gone")) == f"cannot read {tmp_path / 'gone'}: it does not exist"
    assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, DiskFull, "no room to write {}, the disk is full: free some space and run it again"),
        (errno.EDQUOT, DiskFull, "no room to write {}, the disk is full: free some space and run it again"),
        (errno.EFBIG, Unavailable, "{} is too large for its file system: name another place for it"),
        (errno.EACCES, Refused, "cannot write {}: you have no permission for it"),
    ],
)
def test_a_write_that_fails_says_whose_fault_it_is(
    pair: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], words: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(patchfile, "_write_at", refuse)
    with pytest.raises(kind) as caught:
        apply_files(pair / "old", pair / "patch", pair / "out")
    assert type(caught.value) is kind
    assert str(caught.value) == words.format(pair / "out")
    assert sorted(path.name for path in pair.iterdir()) == ["new", "old", "patch"]


def test_a_read_that_fails_is_a_fault_of_the_disk(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(patchfile, "_read_at", refuse)
    told = refusal(Unavailable, lambda: inspect_file(pair / "patch"))
    assert told == f"cannot read {pair / 'patch'} at byte 0: the disk cannot read it"


def test_short_reads_are_finished(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchfile, "_read_at", lambda handle, size, at: os.pread(handle, min(size, 999), at))
    apply_files(pair / "old", pair / "patch", pair / "out")
    assert (pair / "out").read_bytes() == (pair / "new").read_bytes()


def test_bytes_that_came_out_wrong_are_told_by_both_hashes(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(handle: int, content: memoryview, offset: int) -> int:
        return os.pwrite(handle, bytes(len(content)), offset)

    monkeypatch.setattr(patchfile, "_write_at", wrong)
    told = refusal(UntrustedInput, lambda: apply_files(pair / "old", pair / "patch", pair / "out"))
    made, due = hashlib.sha256(bytes(200_007)).hexdigest(), sha256(pair / "new").hex()
    assert told == (
        f"what the patch made has SHA-256 {made}, and should have {due}: the base changed while it was read, or the "
        "patch is wrong"
    )
    assert sorted(path.name for path in pair.iterdir()) == ["new", "old", "patch"]


class PowerCut(BaseException):
    """The process ends here."""


def test_an_apply_that_was_cut_off_makes_no_segment_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = model(np.random.default_rng(5), "f16", 600, 512)
    tree(tmp_path, {"old": safetensors(before), "new": safetensors(after)})
    encode_files(tmp_path / "old", tmp_path / "new", tmp_path / "patch")
    written: list[int] = []

    def write(handle: int, content: memoryview, offset: int) -> int:
        written.append(len(content))
        return os.pwrite(handle, content, offset)

    def cut(handle: int) -> None:
        raise PowerCut  # all is written, and not yet durable

    monkeypatch.setattr(patchfile, "_write_at", write)
    with monkeypatch.context() as patched:
        patched.setattr(patchfile, "fsync", cut)
        with pytest.raises(PowerCut):
            apply_files(tmp_path / "old", tmp_path / "patch", tmp_path / "out")
    total = inspect_file(tmp_path / "patch").target_bytes
    assert sum(written) == total
    assert not (tmp_path / "out").exists()
    written.clear()
    assert apply_files(tmp_path / "old", tmp_path / "patch", tmp_path / "out") == total
    assert sum(written) < 10_000  # what is not of a tensor is always written
    assert (tmp_path / "out").read_bytes() == (tmp_path / "new").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old", "out", "patch"]


def test_files_are_durable_before_their_name_is(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = disk_order(monkeypatch, tmp_path)
    encode_files(pair / "old", pair / "new", pair / "again")
    assert order == ["sync *", "rename again", "sync ."]
    order.clear()
    apply_files(pair / "old", pair / "patch", pair / "out")
    assert order == ["sync *", "rename out", "sync ."]


def test_a_folder_is_durable_with_all_that_it_holds_before_its_name_is(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = disk_order(monkeypatch, folders)
    apply_files(folders / "old", folders / "patch", folders / "out")
    assert sorted(order[:4]) == ["sync */b", "sync */deep/er/a", "sync */empty", "sync */z"]
    assert order[4:] == ["sync */deep/er", "sync */deep", "sync *", "rename out", "sync ."]
