"""A network between a device and its server that interferes, as hotel Wi-Fi and odd caches do. A reverse proxy."""

import http.client
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

PAGE = b"<!DOCTYPE html>\n<html>" + b"<p>Sign in to use this network.</p>" * 1500 + b"</html>"
_PIECE_BYTES = 64 * 1024
_HOP = {"host", "connection", "transfer-encoding", "content-length"}

Request = tuple[str, str, Mapping[str, str]]  # method, path, headers


def everything(_: Request) -> bool:
    """Every request."""
    return True


def posts(request: Request) -> bool:
    """What a device tells."""
    return request[0] == "POST"


def artifacts(request: Request) -> bool:
    """The bytes of models and patches."""
    return "/artifacts/" in request[1]


def artifacts_without_a_range(request: Request) -> bool:
    """Downloads from their beginning."""
    return artifacts(request) and "Range" not in request[2]


def documents(request: Request) -> bool:
    """Signed metadata and documents."""
    return request[0] == "GET" and not artifacts(request)


class Interference:
    """Stands before the server at `target`, on an address of its own.

    `page_for`: requests that get a page in place of their answer (`page_status`, `page`, `page_headers`).
    `headers`: set on right artifacts. `slice_bytes`: at most so many a range. `cut_after_bytes`: an artifact's answer
    breaks there.
    """

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.page_for: Callable[[Request], bool] = lambda _: False
        self.page, self.page_status = PAGE, 200
        self.page_headers = {"Content-Type": "text/html"}
        self.headers: dict[str, str] = {}
        self.slice_bytes = self.cut_after_bytes = 0
        self.asked: list[str] = []  # "GET /default/artifacts/... bytes=5- 206"
        self.artifact_bytes = 0  # that went to the device in answers about artifacts
        self._http = _Quiet(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def pages_to(self, which: Callable[[Request], bool], *, status: int = 200) -> None:
        """A page in place of these answers from now on."""
        self.page_for, self.page_status = which, status

    def leave(self) -> None:
        """Interfere no more."""
        self.page_for, self.headers, self.slice_bytes, self.cut_after_bytes = (lambda _: False), {}, 0, 0

    def asked_for(self, word: str) -> list[str]:
        """The requests that name `word`."""
        return [each for each in self.asked if word in each]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Quiet(ThreadingHTTPServer):
    """A device that hangs up is what these tests are about."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def _handler_of(between: Interference) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = _PIECE_BYTES

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = self.command, self.path, self.headers
            if between.page_for(request):
                self._answer(between.page_status, between.page_headers, between.page)
                return
            asked = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            if between.slice_bytes and artifacts(request):
                first = int(asked.get("Range", "bytes=0-")[6:].rstrip("-"))
                asked["Range"] = f"bytes={first}-{first + between.slice_bytes - 1}"
                asked.pop("If-Range", None)
            to = http.client.HTTPConnection(between.target.hostname or "", between.target.port or 80, timeout=30)
            try:
                to.request(self.command, self.path, body=body or None, headers=asked)
                answer = to.getresponse()
                content = answer.read()
            finally:
                to.close()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if artifacts(request):
                headers |= between.headers
            self._answer(answer.status, headers, content)

        do_POST = do_GET

        def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
            between.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')} {status}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in {204, 304}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            is_artifact = "/artifacts/" in self.path
            if is_artifact and between.cut_after_bytes and between.cut_after_bytes < len(content):
                content, self.close_connection = content[: between.cut_after_bytes], True
            for place in range(0, len(content), _PIECE_BYTES):
                self.wfile.write(content[place : place + _PIECE_BYTES])
            between.artifact_bytes += len(content) if is_artifact else 0

    return Handler
