"""How long does an answer take on a connection that is kept open, as a device's or a proxy's is?

A real `whimbrel serve` in a process of its own, and one client that asks again on the same socket as soon as it has
its answer: for the timestamp (a body), for the timestamp again by its tag (304), and on the admin listener.

Peer in the same run: a bare HTTP answer of the same size from an event loop of the same kind, in a process of its own
(no routing, no file, one write). It is the floor of what this machine's loopback and Python can do. The ratio of the
medians is printed. `ok` is a median under 5 ms for each, far from the 40 ms that a delayed acknowledgement costs.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from whimbrel.server.addresses import bind
from whimbrel.server.app import create_repository
from whimbrel.server.config import Config
from whimbrel.server.event_loop import new_event_loop

MEDIAN_MAX_MS = 5.0
REQUESTS, REQUESTS_QUICK = 5000, 500
WARM_UP = 20  # the first ones open files and fill caches
PEER = "bare answer"


def main() -> None:
    """Run, print the table, write the raw figures; with --json the last line is one object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{REQUESTS_QUICK} requests a row instead of {REQUESTS}")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--peer", type=int, metavar="BYTES", help=argparse.SUPPRESS)  # this file as the peer's process
    arguments = parser.parse_args()
    if arguments.peer is not None:
        _serve_peer(arguments.peer)
        return
    count = REQUESTS_QUICK if arguments.quick else REQUESTS
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as name:
        rows = _measure(Path(name) / "repository", count)
    for row in rows:
        row["ratio"] = round(row["median_ms"] / rows[0]["median_ms"], 2)
    summary = {
        "ok": all(row["median_ms"] < MEDIAN_MAX_MS for row in rows),
        "requests": count,
        "loop": type(new_event_loop()).__module__,
        "median_ms_max": max(row["median_ms"] for row in rows[1:]),
        "ratio_max": max(row["ratio"] for row in rows[1:]),
        "rows": rows,
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "keep_alive.json").write_text(json.dumps(summary, indent=1))
    _table(summary)
    if arguments.json:
        print(json.dumps(summary))
    sys.exit(0 if summary["ok"] else 1)


def _measure(path: Path, count: int) -> list[dict[str, Any]]:
    folder = create_repository(path, Config())
    token = folder.admin_token.read_text().strip()
    with _whimbrel(path) as (devices, admin):
        timestamp = "/default/metadata/timestamp.json"
        with _Client(devices) as client:
            first = client.get(timestamp)
            tag = first.headers["etag"]
            with_body = _row("timestamp, 200", client, timestamp, 200, count)
            not_changed = _row("timestamp by its tag, 304", client, timestamp, 304, count, f"If-None-Match: {tag}")
        with _Client(admin) as client:
            models = _row(
                "admin: list of models, 200", client, "/default/admin/v1/models", 200, count // 5,
                f"Authorization: Bearer {token}",
            )  # fmt: skip
    with _peer(len(first.body)) as address, _Client(address) as client:
        peer = _row(PEER, client, "/", 200, count)
    return [peer, with_body, not_changed, models]


def _row(name: str, client: "_Client", path: str, status: int, count: int, *headers: str) -> dict[str, Any]:
    times = []
    for _ in range(count + WARM_UP):
        began = time.perf_counter()
        answer = client.get(path, *headers)
        times.append(1000 * (time.perf_counter() - began))
        if answer.status != status:
            raise SystemExit(f"{path}: {answer.status}, expected {status}")
    times = sorted(times[WARM_UP:])
    return {
        "name": name,
        "median_ms": round(times[len(times) // 2], 3),
        "p99_ms": round(times[int(len(times) * 0.99)], 3),
    }


class _Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class _Client:
    """One kept connection. One request is one segment, so the client adds no wait of its own."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=30)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def get(self, path: str, *headers: str) -> _Answer:
        lines = [f"GET {path} HTTP/1.1", "Host: bench", *headers]
        self._socket.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        status = int(self._file.readline().split()[1])
        fields = {}
        while line := self._file.readline().strip():
            key, _, value = line.decode("latin-1").partition(":")
            fields[key.lower()] = value.strip()
        body = self._file.read(int(fields.get("content-length", 0))) if status != 304 else b""
        return _Answer(status, fields, body)


@contextmanager
def _whimbrel(path: Path) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """A server in a process of its own: (where devices ask, where people ask)."""
    devices, admin = _free_port(), _free_port()
    command = [sys.executable, "-m", "whimbrel.cli", "serve", str(path)]
    with _process([*command, "--listen", f"127.0.0.1:{devices}", "--admin-listen", f"127.0.0.1:{admin}"], devices):
        yield ("127.0.0.1", devices), ("127.0.0.1", admin)


@contextmanager
def _peer(size: int) -> Iterator[tuple[str, int]]:
    environment = {**os.environ, "PEER_PORT": str(_free_port())}
    port = int(environment["PEER_PORT"])
    with _process([sys.executable, __file__, "--peer", str(size)], port, environment):
        yield "127.0.0.1", port


@contextmanager
def _process(command: list[str], port: int, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A process that listens at `port` when the block begins, and has ended when the block has."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{command[1:4]} ended with {process.returncode} before it listened")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _free_port() -> int:
    with bind("127.0.0.1:0") as opened:
        return int(opened.getsockname()[1])


class _Bare(asyncio.Protocol):
    """Answers whatever comes with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 (the name is the protocol's)
        self._transport.write(self._answer)


def _serve_peer(size: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size))

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        opened = bind(f"127.0.0.1:{os.environ['PEER_PORT']}")
        server = await loop.create_server(lambda: _Bare(answer), sock=opened)
        await stop.wait()
        server.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())


def _table(summary: dict[str, Any]) -> None:
    print(f"answers on a kept connection, {summary['requests']} a row, loop: {summary['loop']}")
    print(f"{'':28}{'median ms':>12}{'p99 ms':>10}{'ratio':>8}")
    for row in summary["rows"]:
        print(f"{row['name']:28}{row['median_ms']:12.3f}{row['p99_ms']:10.3f}{row['ratio']:8.2f}")
    print(f"ratio: to the {PEER} (one write from an event loop of the same kind, nothing else)")


if __name__ == "__main__":
    main()
