"""The `Network` port over urllib3: one pool of connections, short waits, bounded bodies.

1. Every wait has a limit, every body has a limit, also after it was decompressed. A socket's own wait begins anew with
   every byte, so a watch hangs up on a head or a piece of a body that drips.
2. A connection that breaks is `Unavailable`; retries are the caller's, between cycles, so that a cycle stays short.
"""

import ipaddress
import math
import os
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import msgspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    LocationValueError,
    NameResolutionError,
    ReadTimeoutError,
)

from whimbrel import limits
from whimbrel.agent.answers import SNIFFED_BYTES, Misfit, coding_of, is_page
from whimbrel.device.ports import Answer
from whimbrel.errors import Refused, Unavailable, UntrustedInput, reason_of
from whimbrel.version import __version__

_WITH_PORT = re.compile(r"^(\[[^\]]*\]|[^:]*):([0-9]{1,5})\Z")  # one colon, or an address in brackets
_IN_BRACKETS = re.compile(r"^\[([^\[\]]*)\]")  # an address of version 6, perhaps of a network
_TIMEOUT = urllib3.Timeout(connect=limits.CONNECT_S, read=limits.READ_S)
_POST_TIMEOUT = urllib3.Timeout(connect=limits.CONNECT_S, read=limits.POST_READ_S)
_USER_AGENT = f"whimbrel/{__version__}"
_Manager = TypeVar("_Manager", bound=urllib3.PoolManager)


def check_server(url: str) -> str:
    """`url` without its last slash, when it is one that an agent can ask. Raises `UntrustedInput`."""
    try:
        parsed = urllib3.util.parse_url(url)
    except LocationParseError as error:
        raise UntrustedInput(f"{url!r} is not a URL: {error}; expected one like https://models.example.com") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise UntrustedInput(f"{url!r} is not a server's address; expected one like https://models.example.com")
    return url.rstrip("/")


def check_confidential(url: str, *, insecure_http: bool) -> None:
    """Raise `Refused` where a server is asked without TLS, over a network: who listens reads the credential."""
    if insecure_http or is_confidential(url):
        return
    raise Refused(
        f"{url} is asked without TLS, and this device's credential and reports would be read by whoever listens; give "
        "the server's https:// address, or say that this is meant (--insecure-http, insecure_http=True)"
    )


def is_confidential(url: str) -> bool:
    """Whether nobody on the way reads, or answers, what is asked of `url`: over TLS, or on this machine."""
    parsed = urllib3.util.parse_url(url)
    return parsed.scheme != "http" or _is_this_machine(parsed.host or "")


def _is_this_machine(host: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    return name in {"localhost", "::1"} or name.startswith("127.")


def _origin(url: str) -> str:
    """Scheme, host and port of a URL: what a person can look at when it does not answer."""
    parsed = urllib3.util.parse_url(url)
    return f"{parsed.scheme}://{parsed.netloc}"


def _reason(error: Exception) -> str:
    """Why a connection failed, in the words of the system; urllib3's own where the system says nothing."""
    causes: list[BaseException] = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < limits.CAUSES:
        causes.append(inner)
    for cause in causes:
        if isinstance(cause, NameResolutionError):
            return "its name is not known here"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[:1].lower() + cause.strerror[1:]
    return f"no connection within {limits.CONNECT_S:g} s" if isinstance(error, ConnectTimeoutError) else str(error)


def check_proxy(url: str) -> str:
    """`url`, when a proxy can be there; "" is none. Raises `UntrustedInput`."""
    return url and check_server(url)


def check_authorities(path: str) -> str:
    """`path`, when it is a file of certificates that TLS may rest on. Raises `UntrustedInput`."""
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            reason = "no certificates in it can be read" if isinstance(error, ssl.SSLError) else reason_of(error)
            raise UntrustedInput(f"the file of certificates {path}: {reason}; expected PEM of your own CA") from error
    return path and os.path.abspath(path)


def proxy_pool(url: str, *, ca_file: str = "") -> urllib3.ProxyManager:
    """Connections through the proxy at `url`; a user and a password in it are sent to the proxy."""
    parsed = urllib3.util.parse_url(url)
    headers = urllib3.util.make_headers(proxy_basic_auth=unquote(parsed.auth)) if parsed.auth else None
    return _watched(urllib3.ProxyManager(url, num_pools=4, maxsize=2, proxy_headers=headers, ca_certs=ca_file or None))


class Proxies:
    """Which proxy stands before a URL? `explicit` before everything; else HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
    NO_PROXY of the environment, which never stand before this machine itself.
    """

    def __init__(self, explicit: str = "", *, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        self._explicit = explicit
        self._by_scheme = {
            scheme: given.get(f"{scheme}_proxy") or given.get(f"{scheme.upper()}_PROXY") or ""
            for scheme in ("http", "https", "all")
        }
        if "REQUEST_METHOD" in given:  # a CGI program: a header named Proxy would be HTTP_PROXY (httpoxy)
            self._by_scheme["http"] = given.get("http_proxy", "")
        words = (given.get("no_proxy") or given.get("NO_PROXY") or "").replace(",", " ").split()
        self._direct = [_Direct.parse(word) for word in words]

    def of(self, url: str) -> str:
        """The proxy for `url`, or ""."""
        parsed = urllib3.util.parse_url(url)
        host = (parsed.host or "").strip("[]").rstrip(".").lower()
        if self._explicit:
            return self._explicit
        if _is_this_machine(host):
            return ""
        port = parsed.port or {"http": 80, "https": 443}.get(parsed.scheme or "")
        if any(each.covers(host, port) for each in self._direct):
            return ""
        proxy = self._by_scheme.get(parsed.scheme or "", "") or self._by_scheme["all"]
        return proxy if not proxy or "://" in proxy else f"http://{proxy}"


class _Direct(msgspec.Struct, frozen=True):
    """One word of NO_PROXY: `*`, a name (and all below it), an address, or a network; perhaps with a port."""

    name: str = ""  # "*": every host; "": none
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, word: str) -> "_Direct":
        match = _WITH_PORT.match(word)
        host, port = (match[1], int(match[2])) if match else (word, None)
        try:
            return cls(network=ipaddress.ip_network(_IN_BRACKETS.sub(r"\1", host), strict=False), port=port)
        except ValueError:
            every = host == "*" or (match is not None and not host)  # `:80` is every host, on that port
            return cls(name="*" if every else host.lstrip("*.").rstrip(".").lower(), port=port)

    def covers(self, host: str, port: int | None) -> bool:
        if self.port is not None and port != self.port:
            return False
        if self.network is None:
            return self.name in {"*", host} or (self.name != "" and host.endswith(f".{self.name}"))
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address) in self.network


class _Watch:
    """Hangs up on a peer that gave no piece of its answer for `ANSWER_S`."""

    def __init__(self) -> None:
        self._until = time.monotonic() + limits.ANSWER_S
        self._over = threading.Event()
        self._socket: socket.socket | None = None
        self._looks = False  # from its first connection on: those of a pool that was brought are not seen
        self.hung_up = False

    def sees(self, connection: HTTPConnection) -> None:
        """The answer comes from `connection`, which may let go of its socket before the body was read."""
        self._socket = connection.sock or self._socket
        if not self._looks:
            self._looks = True
            threading.Thread(target=self._look, daemon=True).start()

    @contextmanager
    def piece(self) -> Iterator[None]:
        """The next piece is waited for; between two of them this side takes its time."""
        self._until = time.monotonic() + limits.ANSWER_S
        try:
            yield
        finally:
            self._until = math.inf

    def __enter__(self) -> Self:
        _watching.watch = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(min(limits.ANSWER_S, max(0.0, self._until - time.monotonic()))):
            if time.monotonic() >= self._until:
                self._hang_up()
                return

    def _hang_up(self) -> None:
        self.hung_up = True
        plain = getattr(self._socket, "socket", self._socket)  # TLS within a proxy's TLS
        if isinstance(plain, socket.socket):
            with suppress(OSError):  # not `plain.shutdown`: of TLS it would let the reader go on without
                socket.socket.shutdown(plain, socket.SHUT_RDWR)


_watching = threading.local()


def _seen(connection: HTTPConnection) -> None:
    watch: _Watch | None = getattr(_watching, "watch", None)
    if watch is not None:
        watch.sees(connection)


class Connection(HTTPConnection):
    """Shows its socket to the watch of the request; messages name this class."""

    def connect(self) -> None:
        super().connect()
        _seen(self)

    def request(self, *given: Any, **named: Any) -> None:
        _seen(self)
        super().request(*given, **named)


class SecureConnection(Connection, HTTPSConnection):
    """The same over TLS: what `Connection` calls next is `HTTPSConnection`."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = SecureConnection


def _watched(pool: _Manager) -> _Manager:
    pool.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pool


class _Body:
    def __init__(self, answer: urllib3.BaseHTTPResponse, watch: _Watch) -> None:
        self._answer = answer
        self._watch = watch
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.headers.items()}

    def chunks(self) -> Iterator[bytes]:
        """As they come, and as they are: a piece is not waited for until it is full, so that a drip is noticed."""
        try:
            while chunk := self._piece():
                yield chunk
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the connection broke: {reason_of(error)}") from error

    def _piece(self) -> bytes:
        with self._watch.piece():
            return self._answer.read1(limits.COPY_CHUNK_BYTES // 4, decode_content=False)


class HttpNetwork:
    """The network of one agent, or of many: a pool may be shared."""

    def __init__(
        self, pool: urllib3.PoolManager | None = None, *, proxies: Proxies | None = None, ca_file: str = ""
    ) -> None:
        """`ca_file`: certificates (PEM) that are trusted instead of the machine's own."""
        self._own = pool is None
        self._ca_file = ca_file
        self._pool = pool or _watched(urllib3.PoolManager(num_pools=4, maxsize=2, ca_certs=ca_file or None))
        self._proxies = (proxies or Proxies()) if pool is None else None  # who brings a pool has routed it already
        self._through: dict[str, urllib3.ProxyManager] = {}

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        proxy = self._proxies.of(url) if self._proxies is not None else ""
        if not proxy:
            return self._pool
        if proxy not in self._through:
            self._through[proxy] = proxy_pool(proxy, ca_file=self._ca_file)
        return self._through[proxy]

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
            coding = coding_of(answer.headers)
            if coding not in {"", "gzip"}:
                raise UntrustedInput(f"{url} answered in {coding!r}; gzip was asked for")
            unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if coding == "gzip" else None
            received = bytearray()
            until = time.monotonic() + limits.ANSWER_S
            for chunk in answer.chunks():
                try:
                    received += unpack.decompress(chunk, bytes_max + 1 - len(received)) if unpack else chunk
                except zlib.error as error:
                    raise UntrustedInput(f"{url} answered with broken gzip: {error}") from error
                if len(received) > bytes_max:
                    if is_page(answer.headers, bytes(received[:SNIFFED_BYTES])):
                        raise Misfit(f"{url} answered with a page for people, of more than {bytes_max} bytes")
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
        with _Watch() as watch, self._answer(method, url, headers=headers, body=body) as answer:
            if watch.hung_up:
                raise Unavailable(f"{url} did not answer within {limits.ANSWER_S:.0f} s")
            yield _Body(answer, watch)

    @contextmanager
    def _answer(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        if "://" not in url:
            raise Unavailable("this agent was given no server yet, so it takes bundles only; give one with --server")
        try:
            answer = self._pool_for(url).request(
                method,
                url,
                headers={"User-Agent": _USER_AGENT, **headers},
                body=body,
                timeout=_POST_TIMEOUT if method == "POST" else _TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except ReadTimeoutError as error:
            waited_s = limits.POST_READ_S if method == "POST" else limits.READ_S
            raise Unavailable(f"{_origin(url)} did not answer {method} within {waited_s:g} s") from error
        except (HTTPError, LocationValueError, OSError) as error:
            raise Unavailable(f"{_origin(url)} cannot be reached: {_reason(error)}") from error
        whole = False
        try:
            yield answer
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
            for pool in self._through.values():
                pool.clear()
