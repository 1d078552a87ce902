"""Files as one line of bytes: what lies where, what a file that changed under a reader is told as, and bounds."""

import hashlib

import pytest

from whimbrel import limits
from whimbrel.delta.artifact import Artifact, FileEntry, Member, of_bytes
from whimbrel.errors import UntrustedInput


def member(path, content, *, given=None):
    """A file; `given`: what its reader gives, where that is something else."""
    given = content if given is None else given
    return Member(path, len(content), lambda offset, size: given[offset : offset + size])


FILES = [member("a", b"0123"), member("empty", b""), member("b", b"456789")]


@pytest.mark.parametrize("offset", range(11))
@pytest.mark.parametrize("size", range(11))
def test_bytes_are_read_across_the_ends_of_files(offset, size):
    artifact = Artifact(FILES)
    if size and offset + size > 10:
        with pytest.raises(UntrustedInput) as caught:
            artifact.read(offset, size)
        assert str(caught.value) == f"bytes {offset}+{size} lie outside an artifact of 10 bytes"
    else:
        assert artifact.read(offset, size) == b"0123456789"[offset : offset + size]


def test_nothing_lies_before_the_first_byte():
    with pytest.raises(UntrustedInput, match=r"^bytes -1\+1 lie outside"):
        Artifact(FILES).read(-1, 1)


def test_each_file_begins_where_the_one_before_ends():
    artifact = Artifact(FILES)
    assert [(one.path, start) for one, start in artifact.starts()] == [("a", 0), ("empty", 4), ("b", 4)]
    assert artifact.size_bytes == 10


@pytest.mark.parametrize(("path", "name"), [("b", "'b'"), ("", "'the file'")])
def test_a_file_that_became_shorter_is_named(path, name):
    artifact = Artifact(
        [member("a", b"01"), member(path, b"2345", given=b"234")] if path else [member("", b"01", given=b"0")]
    )
    words = f"{name} changed while it was read: it became shorter"
    with pytest.raises(UntrustedInput) as caught:
        artifact.read(0, artifact.size_bytes)
    assert str(caught.value) == words
    with pytest.raises(UntrustedInput) as caught:
        artifact.entries()
    assert str(caught.value) == words


def test_files_are_hashed_in_chunks_and_each_byte_is_told(monkeypatch):
    monkeypatch.setattr(limits, "HASH_CHUNK_BYTES", 4)
    told = []
    found = Artifact(FILES).entries(told.append)
    assert found == tuple(
        FileEntry(path, len(content), hashlib.sha256(content).digest())
        for path, content in (("a", b"0123"), ("empty", b""), ("b", b"456789"))
    )
    assert told == [4, 4, 2]


def test_an_artifact_has_as_many_files_and_bytes_as_the_limits_say(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_FILES", 3)
    monkeypatch.setattr(limits, "ARTIFACT_BYTES", 10)
    Artifact(FILES)
    for files, words in (
        ([], "an artifact has 0 files; it must have 1 to 3"),
        ([*FILES, member("c", b"")], "an artifact has 4 files; it must have 1 to 3"),
        ([member("a", b"x" * 11)], "an artifact has 11 bytes; at most 10 are taken"),
    ):
        with pytest.raises(UntrustedInput) as caught:
            Artifact(files)
        assert str(caught.value) == words


def test_a_file_in_memory_is_an_artifact_of_one():
    artifact = of_bytes(memoryview(b"0123"), "a.onnx")
    assert [(one.path, one.size_bytes) for one in artifact.members] == [("a.onnx", 4)]
    assert artifact.read(1, 2) == b"12"
    assert of_bytes(b"").members[0].path == ""
