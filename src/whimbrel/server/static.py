"""The files that anybody may fetch: signed metadata, target documents and artifacts, from the blob store.

1. Every file but the timestamp is immutable: caches keep it for a year, and a strong ETag validates it.
2. Caches may keep the timestamp for 5 s, and also the answer that a root version does not exist yet.
3. Artifacts support Range and If-Range; documents are gzip-encoded for clients that accept it.
4. A download has a place (`downloads`), and nothing is read any more for a client that is gone.
"""

import gzip
import re
import time
from collections import OrderedDict
from contextlib import ExitStack

import msgspec

from whimbrel import limits
from whimbrel.errors import NotFound, WhimbrelError
from whimbrel.model.documents import digest_of
from whimbrel.server.downloads import Download, Downloads
from whimbrel.server.http import (
    CLIENT,
    CONNECTION,
    ClientConnection,
    Headers,
    Scope,
    Send,
    Unsupported,
    header,
    problem,
    respond,
)
from whimbrel.stores.blobs import Blobs

_IMMUTABLE = (b"cache-control", b"public, max-age=31536000, immutable")
_BRIEF = (b"cache-control", b"public, max-age=5")
_DOCUMENT = re.compile(
    r"^(metadata/[A-Za-z0-9_.-]{1,200}\.json|targets/(?:[A-Za-z0-9_-]{1,64}/){1,2}[0-9a-f]{64}\.[A-Za-z0-9_.-]{1,100})\Z"
)
_ARTIFACT = re.compile(r"^artifacts/([0-9a-f]{64})\Z")
_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})\Z")
_TIMESTAMP_KEPT_S = 0.2


class _Document(msgspec.Struct, frozen=True):
    plain: bytes
    zipped: bytes
    etag: str
    read_at: float

    @property
    def size_bytes(self) -> int:
        return len(self.plain) + len(self.zipped)


class BytesSent(msgspec.Struct):
    """Bytes that went out of this process since it started, without headers."""

    artifact_bytes: int = 0
    document_bytes: int = 0


class Static:
    """Answers GET and HEAD below `/{ns}/metadata`, `/{ns}/targets` and `/{ns}/artifacts`."""

    def __init__(self, blobs: Blobs, *, downloads: Downloads | None = None) -> None:
        self._blobs = blobs
        self._downloads = downloads or Downloads()
        self._kept: OrderedDict[str, _Document] = OrderedDict()
        self._kept_bytes = 0
        self.sent = BytesSent()

    async def answer(self, scope: Scope, send: Send, *, namespace: str, path: str) -> None:
        """Answer one request for `path` (without the namespace)."""
        try:
            if scope["method"] not in {"GET", "HEAD"}:
                raise Unsupported(f"{scope['method']} is not possible here; use GET or HEAD")
            if match := _ARTIFACT.match(path):
                await self._artifact(scope, send, f"{namespace}/{path}", match[1])
            elif _DOCUMENT.match(path) and ".." not in path:
                await self._document(scope, send, namespace, path)
            else:
                raise NotFound("there is nothing at this path")
        except WhimbrelError as error:
            status, body, headers = problem(error)
            if status == 404:
                headers.append(_BRIEF)
            await respond(send, status, body, headers=headers, content_type=None, head=scope["method"] == "HEAD")

    async def _document(self, scope: Scope, send: Send, namespace: str, path: str) -> None:
        document = await self._read(f"{namespace}/{path}", brief=path == "metadata/timestamp.json")
        caching = _BRIEF if path == "metadata/timestamp.json" else _IMMUTABLE
        headers: Headers = [caching, (b"etag", document.etag.encode()), (b"vary", b"accept-encoding")]
        if _tags(header(scope, b"if-none-match")) & {document.etag, "*"}:
            await respond(send, 304, headers=headers)
            return
        body = document.plain
        if "gzip" in (header(scope, b"accept-encoding") or ""):
            body = document.zipped
            headers.append((b"content-encoding", b"gzip"))
        self.sent.document_bytes += len(body)
        await respond(send, 200, body, headers=headers, head=scope["method"] == "HEAD")

    async def _read(self, path: str, *, brief: bool) -> _Document:
        kept = self._kept.get(path)
        if kept is not None and (not brief or time.monotonic() - kept.read_at < _TIMESTAMP_KEPT_S):
            self._kept.move_to_end(path)
            return kept
        plain = await self._blobs.get(path)
        document = _Document(plain, gzip.compress(plain, 9, mtime=0), f'"{digest_of(plain)[:32]}"', time.monotonic())
        self._keep(path, document)
        return document

    def _keep(self, path: str, document: _Document) -> None:
        replaced = self._kept.pop(path, None)
        self._kept[path] = document
        self._kept_bytes += document.size_bytes - (replaced.size_bytes if replaced else 0)
        while len(self._kept) > limits.KEPT_DOCUMENTS or self._kept_bytes > limits.KEPT_DOCUMENT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size_bytes

    async def _artifact(self, scope: Scope, send: Send, path: str, digest: str) -> None:
        meta = await self._blobs.head(path)
        etag = f'"{digest}"'
        headers: Headers = [
            _IMMUTABLE,
            (b"etag", etag.encode()),
            (b"accept-ranges", b"bytes"),
            (b"content-type", b"application/octet-stream"),
        ]
        if _tags(header(scope, b"if-none-match")) & {etag, "*"}:
            await respond(send, 304, headers=headers)
            return
        start, end, status = 0, meta.size_bytes, 200
        byte_range = header(scope, b"range")
        if byte_range is not None and header(scope, b"if-range") in {None, etag}:
            span = _span(byte_range, meta.size_bytes)
            if span == "unsatisfiable":
                headers.append((b"content-range", f"bytes */{meta.size_bytes}".encode()))
                await respond(send, 416, headers=headers)
                return
            if isinstance(span, tuple):
                start, end = span
                status = 206
                headers.append((b"content-range", f"bytes {start}-{end - 1}/{meta.size_bytes}".encode()))
        headers.append((b"content-length", str(end - start).encode()))
        connection: ClientConnection | None = scope.get(CONNECTION)
        big = scope["method"] == "GET" and end - start >= limits.DOWNLOAD_COUNTS_BYTES
        with ExitStack() as held:
            download = Download(connection.abort if connection else None)
            if big:
                held.enter_context(self._downloads.place(download, client=scope.get(CLIENT)))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if scope["method"] == "GET":
                async for chunk in self._blobs.read(path, start=start, end=end):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    if connection is not None and connection.gone:
                        connection.abort()
                        return  # what is sent goes nowhere: the rest of the file is not read for that
                    self.sent.artifact_bytes += len(chunk)
                    download.sent_bytes += len(chunk)
            await send({"type": "http.response.body", "body": b""})


def _tags(value: str | None) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in (value or "").split(",")}


def _span(value: str, size: int) -> tuple[int, int] | str | None:
    """[start, end) of a Range header; None where it is to be ignored (RFC 9110, section 14.2)."""
    match = _RANGE.match(value.strip())
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        return (size - length, size) if length else "unsatisfiable"
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return None
    if start >= size:
        return "unsatisfiable"
    return start, min(size, int(match[2]) + 1) if match[2] else size
