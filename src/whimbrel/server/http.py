"""HTTP over raw ASGI: how the hot path reads a request and answers it, and problem documents (RFC 9457)."""

import asyncio
import gzip
import io
import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.durable import trouble
from whimbrel.errors import DiskFull, InvariantBroken, Unavailable, UntrustedInput, WhimbrelError

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_BODY_WAIT_S = 30  # for the whole body: a device that drips bytes holds a connection no longer than this
RETRY_AFTER_S = 5
_WITHOUT_LENGTH = {204, 304}  # RFC 9110, section 8.6: a cache would take the length of a 304 for the content's


class TooLarge(UntrustedInput):
    """A body over its limit."""

    status = 413
    title = "Too large"


class Unsupported(UntrustedInput):
    """A method or coding that this server does not support."""

    status = 405
    title = "Not supported here"


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """The body, with `Content-Encoding: gzip` undone; both sizes are at most `limit`. Raises `UntrustedInput`."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_WAIT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise UntrustedInput("the connection closed before the body was complete")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"the body is over {limit} bytes; send less at once")
                chunks.append(chunk)
                if not message.get("more_body"):
                    break
    except TimeoutError as error:
        raise UntrustedInput(f"the body did not come within {_BODY_WAIT_S} s") from error
    body = b"".join(chunks)
    coding = header(scope, b"content-encoding")
    if coding in {None, "identity"}:
        return body
    if coding != "gzip":
        raise UntrustedInput(f"Content-Encoding {coding!r} is not understood; use gzip or none")
    return _gunzip(body, limit=limit)


def _gunzip(body: bytes, *, limit: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UntrustedInput(f"the body is not gzip: {error}") from error
    if len(content) > limit:
        raise TooLarge(f"the body unpacks to more than {limit} bytes")
    return content


async def respond(
    send: Send,
    status: int,
    body: bytes = b"",
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    content_type: bytes | None = b"application/json",
    head: bool = False,
) -> None:
    """Send one whole answer. `head`: send its headers alone."""
    sent: Headers = [*headers]
    if status not in _WITHOUT_LENGTH:
        sent.append((b"content-length", str(len(body)).encode()))
    if body and content_type is not None:
        sent.append((b"content-type", content_type))
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": b"" if head else body})


def problem(error: WhimbrelError) -> tuple[int, bytes, Headers]:
    """Status, body and headers of a problem document (RFC 9457)."""
    body = msgspec.json.encode({"title": error.title, "status": error.status, "detail": str(error)})
    headers: Headers = [(b"content-type", b"application/problem+json")]
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    return error.status, body, headers


def unforeseen(error: Exception) -> WhimbrelError:
    """Log an error that is not one of ours, and give the one to answer: a full disk is said, the rest is our bug."""
    reason = trouble(error, doing="this request") if isinstance(error, OSError) else None
    if isinstance(reason, DiskFull):
        return reason
    log.error("a request failed", exc_info=error)
    return InvariantBroken(f"{type(error).__name__}; see the server's log")


DEVICE_BODY_BYTES = 1 * limits.MIB  # a batch of 256 windows with full sketches is about 200 KiB
