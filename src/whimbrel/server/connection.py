"""One connection of a client: what may it send, how fast, and how long may each phase take?

uvicorn parses requests and runs the application. This class adds the bounds that uvicorn does not know. A request is
refused as soon as it passes one, with a short answer where an answer can still be sent, and the connection is closed.

    phase     what the server waits for                       it ends at the latest
    NEW       the first byte                                  after `head_s`
    HEAD      the whole head of a request                     after `head_s`, however it drips; at `head_bytes`
    BODY      the rest of a request's body                    after `body_wait_s` without a byte, or below `body_rate`
    ANSWER    the application                                 (the application's own limits)
    IDLE      the next request                                after `idle_s`; sooner where others need the room
    CLOSING   that the client takes the rest of an answer     after `close_s`

Where others need the room, connections give way that are NEW, IDLE, in a HEAD, or in a BODY that comes below
`body_rate`: each of these costs a client nothing to hold.

Whatever the phase is, a client that takes nothing of its answer for `send_wait_s` is cut off. Deadlines are looked at
by `Listener`, once a second for all connections: a timer for each request would cost more than the request.
"""

import enum
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from whimbrel import limits
from whimbrel.server.http import CONNECTION, RETRY_AFTER_S

_CHUNK_OVERHEAD = 8  # bytes of framing that a byte of a body may have: chunks of one byte have five


class Bounds(msgspec.Struct, frozen=True):
    """What connections of one listener may do. Tests pass shorter times; a server takes these."""

    connections: int = limits.CONNECTIONS
    an_address: int = limits.CONNECTIONS_AN_ADDRESS
    head_bytes: int = limits.HEAD_BYTES
    url_bytes: int = limits.URL_BYTES
    headers: int = limits.HEADERS
    handshake_s: float = limits.HANDSHAKE_S
    head_s: float = limits.HEAD_S
    body_wait_s: float = limits.BODY_WAIT_S
    body_rate_bytes_s: int = limits.BODY_RATE_BYTES_S
    idle_s: float = limits.IDLE_S
    send_wait_s: float = limits.SEND_WAIT_S
    close_s: float = limits.CLOSE_S
    room_after_s: float = limits.ROOM_AFTER_S


class Phase(enum.Enum):
    """What a server waits for on a connection."""

    NEW = "new"
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    IDLE = "idle"
    CLOSING = "closing"


class Refused(Exception):
    """A request passes a bound. Raised in a callback of the parser, which stops it there."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with bounds. `refused(reason)` counts refusals; `lost()` is called once, at its end."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        bounds: Bounds,
        refused: Callable[[str], None],
        lost: Callable[[], None],
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = logging.getLogger(__name__)
        self.phase = Phase.NEW
        self.since = time.monotonic()  # of the phase
        self._bounds, self._refused, self._lost = bounds, refused, lost
        self._stalled_at: float | None = None  # since the client takes nothing
        self._refusal: tuple[int, str] | None = None
        self._head_bytes = 0  # of the head that is being read, as it came
        self._counted_bytes = self._counted_headers = 0  # of what the parser made of it
        self._body_bytes = self._body_raw_bytes = 0  # of the body, and of it with its framing
        self._body_came_at = self._body_paused_s = 0.0
        self._complete = False  # the request has come wholly
        self._left_bytes = 0  # of a body that goes on after its answer: so much more is read

    # --- what uvicorn and the event loop call ---
    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the listener."""
        super().connection_lost(exc)
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Read what came, and refuse the request where it passes a bound."""
        if self.phase is Phase.CLOSING or self.parser is None:
            return
        self._unset_keepalive_if_required()
        if self.phase in {Phase.NEW, Phase.IDLE}:
            self._enter(Phase.HEAD)
            self._head_bytes = 0
        if self.phase is Phase.HEAD:
            self._head_bytes += len(data)
        else:
            self._body_raw_bytes += len(data)
            self._body_came_at = time.monotonic()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as any other; no protocol is changed
        except httptools.HttpParserError:
            self.refuse(*(self._refusal or (400, "this is no HTTP/1.1 request")))
            return
        if self.phase is Phase.HEAD and self._head_bytes > self._bounds.head_bytes:
            self.refuse(431, f"the head of a request has over {self._bounds.head_bytes} bytes")
        elif self._body_raw_bytes > self._bounds.head_bytes + len(data) + _CHUNK_OVERHEAD * self._body_bytes:
            self.refuse(400, "too much came that is neither a request's head nor its body")
        elif self.phase is Phase.BODY and self.cycle.response_complete and self._body_bytes > self._left_bytes:
            self.end_soon()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        cast(dict[str, Any], self.scope)[CONNECTION] = self
        self._counted_bytes = self._counted_headers = 0
        self._complete = False

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        super().on_url(url)
        if len(self.url) > self._bounds.url_bytes:
            self._stop(414, f"the URL has over {self._bounds.url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        super().on_header(name, value)
        self._counted_headers += 1
        self._counted_bytes += len(name) + len(value) + 4
        if self._counted_headers > self._bounds.headers:
            self._stop(431, f"the request has over {self._bounds.headers} headers")
        if self._counted_bytes > self._bounds.head_bytes:
            self._stop(431, f"the headers have over {self._bounds.head_bytes} bytes")

    def on_headers_complete(self) -> None:
        """Let the application begin."""
        if len(self.pipeline) >= limits.PIPELINED:
            self._stop(400, f"over {limits.PIPELINED} requests wait for an earlier one on this connection")
        super().on_headers_complete()
        self._enter(Phase.BODY)
        self._body_bytes = self._body_raw_bytes = 0
        self._body_came_at, self._body_paused_s = self.since, 0.0

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has come wholly."""
        super().on_message_complete()
        self._complete = True
        self._body_bytes = self._body_raw_bytes = 0
        self._enter(Phase.IDLE if self.cycle.response_complete and not self.pipeline else Phase.ANSWER)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for a little more of a body that goes on after its answer."""
        super().on_response_complete()
        self._left_bytes = self._body_bytes + limits.DRAINED_BYTES
        if self._complete and self.phase is not Phase.CLOSING:
            self._enter(Phase.IDLE if self.cycle.response_complete and not self.pipeline else Phase.ANSWER)

    def pause_writing(self) -> None:
        """The client takes too little: the application waits, and the time is counted."""
        super().pause_writing()
        self._stalled_at = time.monotonic()

    def resume_writing(self) -> None:
        """The client takes its answer again."""
        super().resume_writing()
        self._stalled_at = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self.end()

    # --- what the listener and the application call ---
    @property
    def gone(self) -> bool:
        """Whether an answer reaches nobody any more."""
        return self.transport.is_closing()

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        return self.cycle  # uvicorn has none before the first request, and its type does not say so

    def abort(self) -> None:
        """Cut it off at once; what was not sent is lost, and the application's answer goes nowhere."""
        if (cycle := self._cycle) is not None and not cycle.response_complete:
            cycle.disconnected = True
        self.transport.abort()

    def end(self) -> None:
        """Close it after what was written has been sent, or after `close_s`."""
        self._enter(Phase.CLOSING)
        if not self.transport.is_closing():
            self.transport.close()

    def end_soon(self) -> None:
        """Read nothing more, and cut it off after `close_s`: the client may take its answer until then."""
        self._enter(Phase.CLOSING)
        self.flow.pause_reading()

    def gives_way_since(self, now: float) -> float | None:
        """Since when it holds a place for nothing; None where it does not. `now`: by the monotonic clock."""
        if self.phase in {Phase.NEW, Phase.HEAD, Phase.IDLE}:
            return self.since
        slow = self._body_bytes < self._bounds.body_rate_bytes_s * (now - self.since)
        return self.since if self.phase is Phase.BODY and slow and not self.flow.read_paused else None

    def give_way(self) -> None:
        """End it for others; where a request is on its way, with an answer."""
        if self.phase in {Phase.HEAD, Phase.BODY}:
            self.refuse(503, "others need the place of a request that does not come on; come again later")
        else:
            self.end()

    def refuse(self, status: int, detail: str) -> None:
        """Answer with a problem document, where no other answer is under way, and close."""
        self._refused(detail)
        cycle = self._cycle
        between = cycle is None or cycle.response_complete
        in_body = self.phase is Phase.BODY and cycle is not None and not cycle.response_started
        if not self.gone and not self.pipeline and (in_body or (between and self.phase is not Phase.BODY)):
            self.transport.write(refusal(status, detail))
        self.end()

    def look(self, now: float) -> None:
        """End it where its phase has lasted too long. `now`: by the monotonic clock. Called about once a second."""
        bounds, lasted = self._bounds, now - self.since
        if self._stalled_at is not None and now - self._stalled_at > bounds.send_wait_s:
            self._refused(f"a client took nothing of its answer for {bounds.send_wait_s:g} s")
            self.abort()
        elif self.transport.is_closing() and self.phase is not Phase.CLOSING:
            self._enter(Phase.CLOSING)
        elif self.phase in {Phase.NEW, Phase.HEAD} and lasted > bounds.head_s:
            detail = f"the head of a request did not come within {bounds.head_s:g} s"
            if self.phase is Phase.HEAD:
                self.refuse(408, detail)
            else:
                self._refused(detail)
                self.end()
        elif self.phase is Phase.BODY:
            self._look_at_body(now)
        elif self.phase is Phase.IDLE and lasted > bounds.idle_s:
            self.end()
        elif self.phase is Phase.CLOSING and lasted > bounds.close_s:
            self.abort()

    def _look_at_body(self, now: float) -> None:
        bounds = self._bounds
        if self.flow.read_paused:  # the application has not taken what came: that is not the client's fault
            self._body_paused_s += limits.SWEEP_S
            self._body_came_at = now
            return
        reading_s = now - self.since - self._body_paused_s
        if now - self._body_came_at > bounds.body_wait_s:
            self.refuse(408, f"nothing more of the body came for {bounds.body_wait_s:g} s")
        elif reading_s > bounds.body_wait_s and self._body_bytes < bounds.body_rate_bytes_s * reading_s:
            self.refuse(408, f"the body came slower than {bounds.body_rate_bytes_s} bytes a second")

    def _enter(self, phase: Phase) -> None:
        if phase is not self.phase or phase is not Phase.CLOSING:
            self.phase, self.since = phase, time.monotonic()

    def _stop(self, status: int, detail: str) -> None:
        self._refusal = status, detail
        raise Refused(detail)


def refusal(status: int, detail: str) -> bytes:
    """A whole answer that says why a request is not looked at; the connection is closed after it."""
    title = "Unavailable" if status == 503 else "The request cannot be accepted"
    body = msgspec.json.encode({"title": title, "status": status, "detail": detail})
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if status == 503:
        lines.append(f"retry-after: {RETRY_AFTER_S}")
    return "\r\n".join([*lines, "", ""]).encode() + body
