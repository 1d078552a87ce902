"""The blob store, where artifacts and signed files lie: a folder by default; S3, GCS or Azure by URL (obstore).

1. Artifacts are named by their digest. An upload goes to a name of its own, and is renamed only when its digest is
   right, so no reader ever sees a wrong or half-written artifact.
2. Files on a local disk are made durable (fsync) before anything refers to them.
"""

import asyncio
import errno
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from whimbrel import limits
from whimbrel.durable import fsync_folder, trouble
from whimbrel.errors import DiskFull, NotFound, Unavailable, UntrustedInput


class BlobMeta(msgspec.Struct, frozen=True):
    """A stored object's size in bytes, and the store's own tag for this content."""

    size_bytes: int
    tag: str


class Blobs:
    """Bytes by path. All methods raise `NotFound` for a path that is not there and `Unavailable` for a sick store."""

    def __init__(self, store: ObjectStore, *, folder: Path | None = None) -> None:
        """Use an obstore store. `folder`: where a local one lies."""
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, url: str, *, base: Path) -> "Blobs":
        """`url` is a path (relative to `base`) or a URL such as s3://bucket/prefix."""
        if "://" in url:
            try:
                return cls(from_url(url))
            except (BaseError, ValueError) as error:
                raise UntrustedInput(f"the artifact store {url!r} cannot be opened: {error}") from error
        folder = (base / url).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return cls(LocalStore(folder), folder=folder)

    async def put(self, path: str, content: bytes) -> None:
        """Store `content` whole, or not at all."""
        try:
            await obstore.put_async(self._store, path, content)
        except (BaseError, OSError) as error:
            raise _unavailable(f"storing {path}", error) from error
        await self._make_durable(path)

    async def get(self, path: str) -> bytes:
        """The whole content; for documents, not for artifacts."""
        try:
            result = await obstore.get_async(self._store, path)
            return bytes(await result.bytes_async())
        except (NotFoundError, FileNotFoundError):
            raise NotFound(f"there is no {path}") from None
        except (BaseError, OSError) as error:
            raise _unavailable(f"reading {path}", error) from error

    async def head(self, path: str) -> BlobMeta:
        """Size and tag."""
        try:
            meta = await obstore.head_async(self._store, path)
        except (NotFoundError, FileNotFoundError):
            raise NotFound(f"there is no {path}") from None
        except (BaseError, OSError) as error:
            raise _unavailable(f"looking for {path}", error) from error
        return BlobMeta(int(meta["size"]), meta["e_tag"] or "")

    async def exists(self, path: str) -> bool:
        """Whether something is stored at `path`."""
        try:
            await self.head(path)
        except NotFound:
            return False
        return True

    async def read(self, path: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes [start, end) in chunks."""
        try:
            for at in range(start, end, limits.COPY_CHUNK_BYTES):
                upto = min(end, at + limits.COPY_CHUNK_BYTES)
                yield bytes(await obstore.get_range_async(self._store, path, start=at, end=upto))
        except (NotFoundError, FileNotFoundError):
            raise NotFound(f"there is no {path}") from None
        except (BaseError, OSError) as error:
            raise _unavailable(f"reading {path}", error) from error

    async def receive(self, path: str, chunks: AsyncIterator[bytes], *, sha256: str) -> int:
        """Store a stream at `path` if its SHA-256 is `sha256`. Returns its size in bytes.

        Raises `UntrustedInput` where the digest differs or the stream is too long; nothing is kept then.
        """
        upload = f"{path}.{uuid.uuid4().hex}.upload"
        digest, size = hashlib.sha256(), 0

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                if size > limits.ARTIFACT_BYTES:
                    raise UntrustedInput(f"the artifact is larger than the {limits.ARTIFACT_BYTES} bytes allowed")
                digest.update(chunk)
                yield chunk

        try:
            await obstore.put_async(self._store, upload, measured())
            if digest.hexdigest() != sha256:
                raise UntrustedInput(
                    f"{size} bytes with SHA-256 {digest.hexdigest()} came for artifact {sha256}; send them again"
                )
            await self._make_durable(upload)
            await obstore.rename_async(self._store, upload, path)
        except UntrustedInput:
            await self.delete(upload)
            raise
        except (BaseError, OSError) as error:
            with suppress(Unavailable):
                await self.delete(upload)
            raise _unavailable(f"storing {path}", error) from error
        await self._make_durable(path)
        return size

    def local_path(self, path: str) -> Path | None:
        """The file of `path` on this machine. None in a remote store."""
        return self._folder / path if self._folder is not None else None

    async def delete(self, path: str) -> None:
        """Remove `path`; nothing happens where it is not there."""
        try:
            await obstore.delete_async(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise _unavailable(f"deleting {path}", error) from error

    async def _make_durable(self, path: str) -> None:
        if self._folder is not None:
            try:
                await asyncio.to_thread(_fsync, self._folder / path)
            except OSError as error:
                raise _unavailable(f"storing {path}", error) from error


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    fsync_folder(path.parent)


def _unavailable(doing: str, error: Exception) -> Unavailable:
    if isinstance(error, OSError) and error.errno is not None:
        return trouble(error, doing=doing)
    text = str(error)
    if any(f"(os error {number})" in text for number in (errno.ENOSPC, errno.EDQUOT)):  # obstore's words
        return DiskFull(f"{doing} failed: the disk is full where artifacts are stored; free some space and try again")
    return Unavailable(f"{doing} failed: {text.splitlines()[0] if text else type(error).__name__}; try again")
