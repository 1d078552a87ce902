"""A receiver of alerts: a real HTTP server in a thread, that answers as it is told and keeps what it got."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec


class Got(msgspec.Struct, frozen=True):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body)


class Answer(msgspec.Struct, frozen=True):
    """What to say, after which wait."""

    status: int = 200
    headers: dict[str, str] = {}
    wait_s: float = 0.0
    body: bytes = b"taken"


class Listening:
    """`answers` are given in turn; then `Answer()` for ever. `before`: called with a request before it is answered."""

    def __init__(self, *answers: Answer, before: Callable[[Got], None] | None = None) -> None:
        self.got: list[Got] = []
        self.taken: list[Got] = []  # answered with 200
        self._answers = list(answers)
        self._before = before
        self._guard = threading.Condition()
        listening = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                listening.handle(self, Got(self.path, headers, self.rfile.read(length)))

            def log_message(self, *_: object) -> None:
                """Not on the test's screen."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def handle(self, handler: BaseHTTPRequestHandler, got: Got) -> None:
        with self._guard:
            self.got.append(got)
            answer = self._answers.pop(0) if self._answers else Answer()
        if self._before is not None:
            self._before(got)
        time.sleep(answer.wait_s)
        with contextlib.suppress(OSError):  # the sender may be gone, as some tests want it
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(answer.body)))
            handler.end_headers()
            handler.wfile.write(answer.body)
        with self._guard:
            if answer.status == 200:
                self.taken.append(got)
            self._guard.notify_all()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def wait(self, count: int, *, timeout_s: float = 30.0) -> list[Got]:
        """The requests that were answered with 200, when there are so many."""
        with self._guard:
            assert self._guard.wait_for(lambda: len(self.taken) >= count, timeout_s), f"{len(self.taken)} of {count}"
            return list(self.taken)

    @contextlib.contextmanager
    def open(self) -> Iterator["Listening"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def receivers(folder: Path, *tables: str) -> None:
    """Write `[[receivers]]` into a repository's settings."""
    path = folder / "whimbrel.toml"
    path.write_text(path.read_text() + "".join(f"\n[[receivers]]\n{table}\n" for table in tables))
