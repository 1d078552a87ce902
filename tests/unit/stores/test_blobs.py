"""The blob store in memory and in a folder: what comes whole is kept, and anything else leaves nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from whimbrel import limits
from whimbrel.errors import NotFound, UntrustedInput
from whimbrel.model.documents import digest_of
from whimbrel.stores.blobs import Blobs

CONTENT = b"0123456789"
DIGEST = digest_of(CONTENT)


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs(MemoryStore()) if request.param == "memory" else Blobs.open("blobs", base=tmp_path)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def listed(blobs: Blobs) -> list[str]:
    return sorted(each["path"] for page in blobs._store.list() for each in page)


async def whole(blobs: Blobs, path: str, *, start: int = 0, end: int = len(CONTENT)) -> list[bytes]:
    return [chunk async for chunk in blobs.read(path, start=start, end=end)]


def test_what_is_put_is_read_whole_or_in_part(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPY_CHUNK_BYTES", 4)

    async def run() -> None:
        await blobs.put("ns/a", CONTENT)
        assert await blobs.get("ns/a") == CONTENT
        assert (await blobs.head("ns/a")).size_bytes == 10
        assert (await blobs.head("ns/a")).tag
        assert (await blobs.exists("ns/a"), await blobs.exists("ns/b")) == (True, False)
        assert await whole(blobs, "ns/a") == [b"0123", b"4567", b"89"]
        assert await whole(blobs, "ns/a", start=3, end=7) == [b"3456"]
        assert await whole(blobs, "ns/a", start=3, end=8) == [b"3456", b"7"]
        assert await whole(blobs, "ns/a", start=5, end=5) == []
        await blobs.delete("ns/a")
        await blobs.delete("ns/a")
        assert not await blobs.exists("ns/a")

    asyncio.run(run())


def test_what_is_not_there_is_said_to_be_so(blobs: Blobs) -> None:
    async def run() -> None:
        for read in (blobs.get("ns/x"), blobs.head("ns/x"), whole(blobs, "ns/x")):
            with pytest.raises(NotFound) as absent:
                await read
            assert str(absent.value) == "there is no ns/x"

    asyncio.run(run())


def test_a_stream_with_the_right_digest_is_kept_under_its_name(blobs: Blobs) -> None:
    async def run() -> None:
        assert await blobs.receive("ns/a", chunks(CONTENT[:3], CONTENT[3:]), sha256=DIGEST) == 10
        assert await blobs.get("ns/a") == CONTENT

    asyncio.run(run())
    assert listed(blobs) == ["ns/a"]


def test_a_stream_with_another_digest_leaves_nothing(blobs: Blobs) -> None:
    async def run() -> None:
        with pytest.raises(UntrustedInput) as refused:
            await blobs.receive("ns/a", chunks(CONTENT, b"x"), sha256=DIGEST)
        other = digest_of(CONTENT + b"x")
        assert str(refused.value) == (f"11 bytes with SHA-256 {other} came for artifact {DIGEST}; send them again")

    asyncio.run(run())
    assert listed(blobs) == []


def test_an_upload_may_be_as_large_as_is_allowed_and_not_one_byte_more(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ARTIFACT_BYTES", 10)

    async def run() -> None:
        assert await blobs.receive("ns/a", chunks(CONTENT), sha256=DIGEST) == 10
        with pytest.raises(UntrustedInput) as refused:
            await blobs.receive("ns/b", chunks(CONTENT, b"x"), sha256=digest_of(CONTENT + b"x"))
        assert str(refused.value) == "the artifact is larger than the 10 bytes allowed"

    asyncio.run(run())
    assert listed(blobs) == ["ns/a"]


def test_only_a_folder_has_files_on_this_machine(tmp_path: Path) -> None:
    assert Blobs(MemoryStore()).local_path("ns/a") is None
    assert Blobs.open("blobs", base=tmp_path).local_path("ns/a") == (tmp_path / "blobs").resolve() / "ns/a"


def test_a_store_that_is_none_is_refused_with_its_url() -> None:
    with pytest.raises(UntrustedInput, match="the artifact store 'nope://x' cannot be opened: "):
        Blobs.open("nope://x", base=Path())
