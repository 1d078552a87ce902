"""How does a device speak HTTP? The `Network` port over urllib3: one pool, short waits, bounded bodies.

1. Every wait has a limit, every body has a limit, also after it was decompressed.
2. A connection that breaks is `Unavailable`; retries are the caller's, between cycles, so that a cycle stays short.
"""

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, LocationValueError

from whimbrel import __version__, limits
from whimbrel.device.ports import Answer
from whimbrel.errors import Unavailable, UntrustedInput

_TIMEOUT = urllib3.Timeout(connect=limits.CONNECT_S, read=limits.READ_S)
_USER_AGENT = f"whimbrel/{__version__}"


def check_server(url: str) -> str:
    """`url` without its last slash, when it is one that an agent can ask. Raises `UntrustedInput`."""
    try:
        parsed = urllib3.util.parse_url(url)
    except LocationParseError as error:
        raise UntrustedInput(f"{url!r} is not a URL: {error}; expected one like https://models.example.com") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise UntrustedInput(f"{url!r} is not a server's address; expected one like https://models.example.com")
    return url.rstrip("/")


class _Body:
    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """As they come, and as they are: a piece is not waited for until it is full, so that a drip is noticed."""
        try:
            while chunk := self._answer.read1(limits.COPY_CHUNK_BYTES // 4, decode_content=False):
                yield chunk
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the connection broke: {error}") from error


class HttpNetwork:
    """The network of one agent, or of many: a pool may be shared."""

    def __init__(self, pool: urllib3.PoolManager | None = None) -> None:
        self._pool = pool or urllib3.PoolManager(num_pools=4, maxsize=2)
        self._own = pool is None

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        bytes_max: int,
    ) -> Answer:
        """One request and its whole answer. Raises `Unavailable`, and `UntrustedInput` for a body above `bytes_max`."""
        with self._open(method, url, headers={"Accept-Encoding": "gzip", **(headers or {})}, body=body) as answer:
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding not in {"identity", "gzip"}:
                raise UntrustedInput(f"{url} answered in {encoding!r}; gzip was asked for")
            unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if encoding == "gzip" else None
            received = bytearray()
            until = time.monotonic() + limits.ANSWER_S
            for chunk in answer.chunks():
                try:
                    received += unpack.decompress(chunk, bytes_max + 1 - len(received)) if unpack else chunk
                except zlib.error as error:
                    raise UntrustedInput(f"{url} answered with broken gzip: {error}") from error
                if len(received) > bytes_max:
                    raise UntrustedInput(f"{url} answered with more than {bytes_max} bytes")
                if time.monotonic() > until:
                    raise Unavailable(f"{url} did not answer whole within {limits.ANSWER_S:g} s")
            if unpack is not None and received and not unpack.eof:
                raise Unavailable(f"{url} answered with the beginning of a gzip stream only")
            return Answer(answer.status, answer.headers, bytes(received))

    @contextmanager
    def stream(self, url: str, *, headers: dict[str, str]) -> Iterator[_Body]:
        """One GET whose body is read in pieces."""
        with self._open("GET", url, headers=headers, body=None) as answer:
            yield answer

    @contextmanager
    def _open(self, method: str, url: str, *, headers: dict[str, str], body: bytes | None) -> Iterator[_Body]:
        try:
            answer = self._pool.request(
                method,
                url,
                headers={"User-Agent": _USER_AGENT, **headers},
                body=body,
                timeout=_TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, LocationValueError, OSError) as error:
            raise Unavailable(f"{url} cannot be reached: {error}") from error
        whole = False
        try:
            yield _Body(answer)
            whole = True
        finally:
            if whole:
                answer.release_conn()  # goes back to the pool when it was read to the end
            else:
                answer.close()

    def close(self) -> None:
        """Close what is ours."""
        if self._own:
            self._pool.clear()
