"""HTTP over raw ASGI: how the hot path reads a request and answers it, and problem documents (RFC 9457)."""

import asyncio
import gzip
import io
import logging
import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

import msgspec

from whimbrel import limits
from whimbrel.durable import trouble
from whimbrel.errors import DiskFull, InvariantBroken, Unavailable, UntrustedInput, WhimbrelError, reason_of

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
CLIENT = "whimbrel.client"  # and what the request counts for; None for a trusted proxy, which brings many
PEER = "whimbrel.peer"  # who is at the other end of the connection, whatever X-Forwarded-For says
CONNECTION = "whimbrel.connection"  # where a request's scope holds its `ClientConnection`, if it came over a socket

DEVICE_BODY_BYTES = limits.DEVICE_BODY_BYTES
RETRY_AFTER_S = 5
_WITHOUT_LENGTH = {204, 304}  # RFC 9110, section 8.6: a cache would take the length of a 304 for the content's


class ClientConnection(Protocol):
    """What an application may know of the connection that its answer goes to (`connection.Connection`)."""

    @property
    def gone(self) -> bool:
        """Whether an answer reaches nobody any more."""

    def abort(self) -> None:
        """Cut it off at once."""


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


class Budget:
    """Bytes that all bodies which are being read may have in memory together."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._held_bytes = most_bytes, 0

    def take(self, size_bytes: int) -> None:
        """Raises `Unavailable` where there is no room for them."""
        if self._held_bytes + size_bytes > self._most_bytes:
            raise Unavailable("too much comes in at once; come again later")
        self._held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """They are in memory no more, or counted elsewhere."""
        self._held_bytes -= size_bytes


_BODIES = Budget(limits.BODIES_BYTES)  # of this process


async def read_body(scope: Scope, receive: Receive, *, limit: int, budget: Budget = _BODIES) -> bytes:
    """The body, with `Content-Encoding: gzip` undone; both sizes are at most `limit`.

    Raises `UntrustedInput`, and `Unavailable` where the bodies that come at once have no room.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.DEVICE_BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise UntrustedInput("the connection closed before the body was complete")
                chunk = message.get("body", b"")
                if size + len(chunk) > limit:
                    raise TooLarge(f"the body is over {limit} bytes; send less at once")
                budget.take(len(chunk))
                size += len(chunk)
                chunks.append(chunk)
                if not message.get("more_body"):
                    break
    except TimeoutError as error:
        raise UntrustedInput(f"the body did not come within {limits.DEVICE_BODY_S:g} s") from error
    finally:
        budget.give_back(size)
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
        raise UntrustedInput(f"the body is not gzip: {reason_of(error)}") from error
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
