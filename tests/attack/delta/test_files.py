"""Whatever happens while files are patched, no wrong file is at its place afterwards."""

import errno
import os

import numpy as np
import pytest

from support.delta import encode, model, safetensors
from whimbrel import limits, patchfile
from whimbrel.errors import Refused, Unavailable, UntrustedInput


@pytest.fixture
def files(tmp_path):
    """base, target and patch on disk, large enough to have several segments."""
    before, after = model(np.random.default_rng(5), "f16", 1200, 512)
    made = {"base": safetensors(before), "target": safetensors(after)}
    made["patch"] = encode(made["base"], made["target"])
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if path.name not in ("base", "target", "patch"))


def apply(folder, **options):
    return patchfile.apply_files(folder / "base", folder / "patch", folder / "out", **options)


@pytest.mark.parametrize("threads", [1, 3])
def test_target_comes_out(files, threads):
    assert apply(files, threads=threads) == (files / "target").stat().st_size
    assert (files / "out").read_bytes() == (files / "target").read_bytes()
    assert left_over(files) == ["out"]


@pytest.mark.parametrize("threads", [1, 3])
def test_patch_written_to_disk_is_the_one_made_in_memory(files, threads):
    made = patchfile.encode_files(files / "base", files / "target", files / "again", threads=threads)
    assert (files / "again").read_bytes() == (files / "patch").read_bytes()
    assert made.patch_bytes == (files / "patch").stat().st_size
    assert left_over(files) == ["again"]


def test_other_base_leaves_nothing(files):
    (files / "base").write_bytes(b"x" * (files / "base").stat().st_size)
    with pytest.raises(UntrustedInput, match="another base"):
        apply(files)
    assert left_over(files) == []


def test_damaged_patch_leaves_nothing(files):
    content = bytearray((files / "patch").read_bytes())
    content[-100] ^= 1
    (files / "patch").write_bytes(content)
    with pytest.raises(UntrustedInput, match="does not agree with its checksum"):
        apply(files)
    assert left_over(files) == []


def test_base_that_changes_between_its_check_and_its_use_leaves_nothing(files):
    content = bytearray((files / "base").read_bytes())
    seen = []

    def advance(done):
        seen.append(done)
        if sum(seen) == len(content):  # all of it is checked
            content[len(content) // 2] ^= 0x55
            (files / "base").write_bytes(content)

    with pytest.raises(UntrustedInput):
        apply(files, advance=advance)
    assert left_over(files) == []


def test_base_that_is_cut_while_it_is_read_is_an_error_and_no_crash(files):
    def advance(done):
        os.truncate(files / "base", 5000)

    with pytest.raises(UntrustedInput, match="became shorter"):
        apply(files, advance=advance)
    assert left_over(files) == []


def test_full_disk_is_said_and_leaves_nothing(files, monkeypatch):
    written = []

    def pwrite(handle, content, offset):
        written.append(len(content))
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(content)

    monkeypatch.setattr(patchfile, "_write_at", pwrite)
    with pytest.raises(Unavailable, match="the disk is full"):
        apply(files)
    assert left_over(files) == []


def test_full_disk_while_encoding_is_said_and_leaves_nothing(files, monkeypatch):
    def copy(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(patchfile.shutil, "copyfileobj", copy)
    with pytest.raises(Unavailable, match="the disk is full"):
        patchfile.encode_files(files / "base", files / "target", files / "again")
    assert left_over(files) == []


def test_short_writes_are_finished(files, monkeypatch):
    monkeypatch.setattr(patchfile, "_write_at", lambda handle, content, at: os.pwrite(handle, content[:70_000], at))
    apply(files)
    assert (files / "out").read_bytes() == (files / "target").read_bytes()


def test_system_without_positioned_reads_makes_the_same(files, monkeypatch):
    monkeypatch.setattr(patchfile, "_read_at", patchfile._seek_and_read)
    monkeypatch.setattr(patchfile, "_write_at", patchfile._seek_and_write)
    patchfile.encode_files(files / "base", files / "target", files / "again", threads=3)
    assert (files / "again").read_bytes() == (files / "patch").read_bytes()
    (files / "again").unlink()
    apply(files, threads=3)
    assert (files / "out").read_bytes() == (files / "target").read_bytes()


def test_old_file_stays_until_the_new_one_is_right(files):
    (files / "out").write_bytes(b"the version before")
    (files / "base").write_bytes(b"another")
    with pytest.raises(UntrustedInput):
        apply(files)
    assert (files / "out").read_bytes() == b"the version before"


def test_apply_that_was_interrupted_goes_on_where_it_was(files):
    class PowerCut(BaseException):
        pass

    checked, seen = (files / "base").stat().st_size, []

    def advance(done):
        seen.append(done)
        if sum(seen) > checked:  # the first bytes are written
            raise PowerCut

    with pytest.raises(PowerCut):
        apply(files, advance=advance)
    (left,) = left_over(files)
    assert left.endswith(".part")
    apply(files)
    assert (files / "out").read_bytes() == (files / "target").read_bytes()
    assert left_over(files) == ["out"]


def test_leftover_with_wrong_bytes_does_no_harm(files):
    with pytest.raises(KeyboardInterrupt):
        apply(files, advance=lambda done: (_ for _ in ()).throw(KeyboardInterrupt))
    for left in files.glob(".*.part"):
        left.write_bytes(b"\xff" * left.stat().st_size)
    apply(files)
    assert (files / "out").read_bytes() == (files / "target").read_bytes()


def test_patch_that_makes_another_file_than_the_release_says_costs_no_disk(files):
    size = (files / "target").stat().st_size
    with pytest.raises(UntrustedInput, match="the release says"):
        apply(files, expect_bytes=size + 1)
    with pytest.raises(UntrustedInput, match="SHA-256 differ"):
        apply(files, expect_sha256=bytes(32))
    assert left_over(files) == []


def test_output_that_is_a_symbolic_link_is_replaced_not_followed(files):
    victim = files.parent / "victim"
    victim.write_bytes(b"precious")
    (files / "out").symlink_to(victim)
    apply(files)
    assert victim.read_bytes() == b"precious"
    assert not (files / "out").is_symlink()


def test_missing_file_is_refused(files):
    with pytest.raises(Refused, match="cannot read"):
        patchfile.apply_files(files / "nothing", files / "patch", files / "out")


def test_folder_comes_out_as_a_folder(tmp_path):
    before, after = model(np.random.default_rng(6), "bf16", 1200, 512)
    for name, tensors in {"old": before, "new": after}.items():
        (tmp_path / name / "shards").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(f'{{"name": "{name}"}}')
        (tmp_path / name / "shards" / "1.safetensors").write_bytes(safetensors(tensors))
        (tmp_path / name / "empty").write_bytes(b"")
    made = patchfile.encode_files(tmp_path / "old", tmp_path / "new", tmp_path / "patch")
    assert made.ratio < 0.4
    patchfile.apply_files(tmp_path / "old", tmp_path / "patch", tmp_path / "out", threads=2)
    for path in (tmp_path / "new").rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(tmp_path / "new")).read_bytes() == path.read_bytes()
    with pytest.raises(Refused, match="is there already"):
        patchfile.apply_files(tmp_path / "old", tmp_path / "patch", tmp_path / "out")


def test_memory_bounds_the_threads():
    assert patchfile.threads_for(8, None) == 8
    assert patchfile.threads_for(8, 40 * limits.MIB) == 2
    assert patchfile.threads_for(8, 1) == 1


def test_folder_with_a_symbolic_link_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "secret").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="symbolic link"):
        patchfile.encode_files(tmp_path / "old", tmp_path / "old", tmp_path / "patch")
