"""An archive that is made to harm leaves nothing behind, and costs a sentence."""

import io
import random
import tarfile
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from whimbrel import limits
from whimbrel.agent.bundle import Bundle
from whimbrel.errors import UntrustedInput
from whimbrel.packing import pack, unpack


def _member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def _archive(tmp_path: Path, *members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> Path:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return path


def _refusal(archive: Path, **bounds: int) -> str:
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(UntrustedInput) as caught:
        unpack(archive, archive.parent / "out", **bounds)
    assert sorted(archive.parent.rglob("*")) == before, "something was left behind"
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "a//b", "./x", "a/./b", "..", "C:\\x", "a\\..\\..\\x", "nul", "x ", "a\x7f"]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    assert "hostile.tar" in _refusal(_archive(tmp_path, _member(name)))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"Z"],
)
def test_anything_but_files_and_folders_is_refused(tmp_path: Path, kind: bytes) -> None:
    said = _refusal(_archive(tmp_path, _member("ok"), _member("bad", kind, linkname="/etc/passwd")))
    assert "only files and folders" in said


def test_writing_through_a_link_is_refused(tmp_path: Path) -> None:
    link = _member("a", tarfile.SYMTYPE, linkname=str(tmp_path))
    assert "only files and folders" in _refusal(_archive(tmp_path, link, _member("a/b")))


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    assert "there twice" in _refusal(_archive(tmp_path, _member("a", size=1), _member("a", size=2)))


@pytest.mark.parametrize(
    ("one", "other"), [("Model", "model"), ("b/x", "B/y"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE")]
)
def test_names_that_some_system_takes_for_one_are_refused(tmp_path: Path, one: str, other: str) -> None:
    assert "one name on some systems" in _refusal(_archive(tmp_path, _member(one), _member(other)))


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    assert "both a file and a folder" in _refusal(_archive(tmp_path, _member("a"), _member("a/b")))


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    assert "more than 5 files" in _refusal(_archive(tmp_path, *[_member(f"f{n}") for n in range(6)]), files_max=5)


def test_too_many_bytes_are_refused_before_any_is_written(tmp_path: Path) -> None:
    assert "more than 99 bytes" in _refusal(_archive(tmp_path, _member("a", size=100)), bytes_max=99)


def test_a_header_that_claims_exbibytes_is_refused(tmp_path: Path) -> None:
    header = _member("a", size=2**60).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "hostile.tar").write_bytes(header + bytes(10240))
    assert "hostile.tar" in _refusal(tmp_path / "hostile.tar")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("size", [-512, 2**33, 2**62])
def test_a_helper_header_that_claims_much_is_not_read(tmp_path: Path, kind: bytes, size: int) -> None:
    header = _member("a", kind, size=size).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "hostile.tar").write_bytes(header + bytes(10240))
    assert "hostile.tar" in _refusal(tmp_path / "hostile.tar")


def test_a_negative_size_does_not_loop(tmp_path: Path) -> None:
    header = _member("a", size=-512).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "hostile.tar").write_bytes(header + bytes(10240))
    assert "hostile.tar" in _refusal(tmp_path / "hostile.tar")


def test_a_chain_of_ten_thousand_headers_is_refused(tmp_path: Path) -> None:
    record = b"11 a=bcdef\n".ljust(512, b"\0")
    header = _member("a", tarfile.XHDTYPE, size=11).tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "hostile.tar").write_bytes((header + record) * 10_000 + bytes(10240))
    assert "hostile.tar" in _refusal(tmp_path / "hostile.tar")


def test_pax_fields_cannot_make_a_sparse_file(tmp_path: Path) -> None:
    member = _member("a", size=10)
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**50)}
    assert "hostile.tar" in _refusal(_archive(tmp_path, member))


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path, _member("a", size=3))
    path.write_bytes(path.read_bytes() + b"smuggled")
    assert "does not end" in _refusal(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "hostile.tar", "w:gz") as tar:
        tar.addfile(_member("a"))
    assert "not a whole tar archive" in _refusal(tmp_path / "hostile.tar")


@pytest.mark.parametrize("content", [b"", b"x", b"hello world" * 100, bytes(511)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hostile.tar").write_bytes(content)
    assert "fetch or pack it again" in _refusal(tmp_path / "hostile.tar")


def _good(tmp_path: Path) -> bytes:
    (tmp_path / "tree" / "folder").mkdir(parents=True)
    (tmp_path / "tree" / "folder" / "a").write_bytes(b"a" * 700)
    (tmp_path / "tree" / "b").write_bytes(b"b" * 512)
    pack(tmp_path / "tree", tmp_path / "good.tar")
    return (tmp_path / "good.tar").read_bytes()


def test_no_truncation_is_taken_for_a_whole_archive(tmp_path: Path) -> None:
    content = _good(tmp_path)
    whole = 512 + (512 + 512) + (512 + 1024)  # b, folder, folder/a and their contents; then zero blocks
    assert any(content[:whole])
    assert not any(content[whole:])
    for size in [*range(0, whole + 1024, 97), *range(0, whole + 1024, 512)]:
        (tmp_path / "hostile.tar").write_bytes(content[:size])
        _refusal(tmp_path / "hostile.tar")


def test_flipped_bits_are_refused_or_stay_inside_the_folder(tmp_path: Path) -> None:
    content = _good(tmp_path)
    chance = random.Random(7)
    outside = set(tmp_path.rglob("*")) | {tmp_path / "hostile.tar", tmp_path / "out"}
    for _ in range(300):
        bad = bytearray(content)
        for _ in range(chance.choice([1, 1, 3])):
            bad[chance.randrange(3600)] ^= 1 << chance.randrange(8)
        (tmp_path / "hostile.tar").write_bytes(bad)
        out = tmp_path / "out"
        with suppress(UntrustedInput):
            unpack(tmp_path / "hostile.tar", out)
        for path in tmp_path.rglob("*"):
            assert path in outside or out in path.parents
        if out.exists():
            for path in sorted(out.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            out.rmdir()


def _bundle(path: Path, entries: int) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata/timestamp.json", b"{}")
        for number in range(entries):
            archive.writestr(f"a/{number}", b"")
    return path


def test_a_bundle_of_too_many_files_is_refused_before_they_are_read(tmp_path: Path) -> None:
    """A zip file's list of files was read as a whole, whatever it said: 100 MB of list became a gigabyte of objects."""
    small = _bundle(tmp_path / "small.zip", 2000)
    Bundle(small).close()  # many files are no attack
    listed = zipfile.ZipFile(small).start_dir
    entry = small.read_bytes()[listed:][: zipfile.sizeCentralDir + len("metadata/timestamp.json")]
    huge = tmp_path / "huge.zip"
    count = 2 * limits.BUNDLE_LIST_BYTES // len(entry)
    end = zipfile.stringEndArchive + bytes(8) + (len(entry) * count).to_bytes(4, "little") + bytes(4) + bytes(2)
    huge.write_bytes(entry * count + end)
    assert len(zipfile.ZipFile(huge).infolist()) == count  # so the library reads them all
    tracemalloc.start()
    try:
        with pytest.raises(UntrustedInput, match="its list of files has 8388"):
            Bundle(huge)
        assert tracemalloc.get_traced_memory()[1] < limits.MIB
    finally:
        tracemalloc.stop()


def test_a_bundle_of_many_small_entries_is_refused(tmp_path: Path) -> None:
    path = _bundle(tmp_path / "many.zip", limits.BUNDLE_ENTRIES)
    with pytest.raises(UntrustedInput, match=f"holds {limits.BUNDLE_ENTRIES + 1} files; a bundle has at most"):
        Bundle(path)
