"""The test server without sockets: a pool whose requests are answered in this thread, through the same handler."""

import http.client
import io
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import ProtocolError

from support.repository import Server, handler_of


class Wire(urllib3.PoolManager):
    """What `HttpNetwork` takes for a pool of connections."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._handler = handler_of(server)

    def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None = None, **_: Any
    ) -> urllib3.HTTPResponse:
        lines = [f"{method} {urlsplit(url).path} HTTP/1.1", f"Content-Length: {len(body or b'')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        handler = self._handler.__new__(self._handler)
        handler.rfile = io.BufferedReader(io.BytesIO("\r\n".join([*lines, "", ""]).encode() + (body or b"")))
        sent = io.BytesIO()
        handler.wfile = sent
        handler.client_address = "here", 0
        handler.close_connection = True
        handler.handle_one_request()
        if not sent.getvalue():
            raise ProtocolError("the server closed the connection")
        answer = http.client.HTTPResponse(_Socket(sent.getvalue()))
        answer.begin()
        return urllib3.HTTPResponse(
            body=io.BytesIO(answer.read()),
            headers=dict(answer.getheaders()),
            status=answer.status,
            preload_content=False,
        )


class _Socket:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._content)
