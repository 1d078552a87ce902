"""Clients that hold a server up: each phase has a bound, others are answered meanwhile, and the server recovers.

All of it is on 127.0.0.1, with some hundred connections (ten thousand idle ones once) and short deadlines.
"""

import gzip
import hashlib
import json
import logging
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from support.server import Running, repository, serving
from support.tls import certificate
from whimbrel import limits
from whimbrel.server.connection import Bounds
from whimbrel.server.tls import TlsFiles

BOUNDS = Bounds(connections=60, head_s=0.5, body_wait_s=0.5, idle_s=3, send_wait_s=1, close_s=0.5, room_after_s=0.2)
SOON_S = 15.0  # a deadline of half a second, a sweep a second, and a machine that has other work
ARTIFACT = bytes(48 * limits.MIB)  # more than all buffers on the way hold
DIGEST = hashlib.sha256(ARTIFACT).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = repository(tmp_path_factory.mktemp("flooded") / "repo", versions=0)
    with serving(folder, bounds=BOUNDS) as running:
        with running.people() as people:
            people.put(f"/artifacts/{DIGEST}", content=ARTIFACT).raise_for_status()
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with few connections and a server's own deadlines: what is busy stays busy while a test looks."""
    folder = repository(tmp_path_factory.mktemp("patient") / "repo", versions=0)
    with serving(folder, bounds=Bounds(connections=12, room_after_s=5)) as running:
        with running.people() as people:
            people.put(f"/artifacts/{DIGEST}", content=ARTIFACT).raise_for_status()
        yield running


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@contextmanager
def connections(url: str, number: int, *, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with ExitStack() as held:
        yield [
            held.enter_context(
                socket.create_connection(("127.0.0.1", port_of(url)), timeout=SOON_S, source_address=(source, 0))
            )
            for _ in range(number)
        ]


def rest_of(connection: socket.socket) -> bytes:
    """What the server sends until it closes. Fails where it does not close soon."""
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionError:
        pass
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def send(connection: socket.socket, content: bytes) -> bool:
    """Whether the other side still took it."""
    try:
        connection.sendall(content)
    except ConnectionError:
        return False
    return True


def answers_others(server: Running) -> None:
    """A client that does nothing wrong hears an answer at once."""
    with httpx.Client(trust_env=False, timeout=SOON_S) as http:
        assert http.get(f"{server.devices}/healthz").text == "ok\n"
        assert http.get(f"{server.devices}/default/metadata/timestamp.json").status_code == 200


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- heads ---
def test_slowloris_headers_end_at_their_deadline(server: Running) -> None:
    with connections(server.devices, 40) as clients:
        began = time.monotonic()
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        for _ in range(10):
            for client in clients:
                send(client, b"a: b\r\n")
            time.sleep(0.1)
        answers_others(server)
        answers = [rest_of(client) for client in clients]
        assert {status_of(answer) for answer in answers if answer} == {408}
        assert time.monotonic() - began < SOON_S
    answers_others(server)


def test_connections_that_say_nothing_are_closed(server: Running) -> None:
    with connections(server.devices, 40) as clients:
        assert {rest_of(client) for client in clients} == {b""}


def test_an_idle_connection_is_closed_after_a_while(server: Running) -> None:
    with connections(server.devices, 1) as (client,):
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        began = time.monotonic()
        assert status_of(rest_of(client)) == 200
        assert time.monotonic() - began >= BOUNDS.idle_s - 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nx: " + b"a" * limits.HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"a" * (limits.HEAD_BYTES + limits.MIB), 431),  # and it never ends
        (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * (limits.HEADERS + 1) + b"\r\n", 431),
        (b"GET /" + b"a" * limits.URL_BYTES + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"a" * limits.MIB, 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS, where there is none
    ],
    ids=["a huge header", "a header without an end", "many headers", "a long URL", "a URL without an end", "no HTTP"],
)
def test_a_huge_head_is_refused(server: Running, head: bytes, status: int) -> None:
    with connections(server.devices, 1) as (client,):
        send(client, head)
        answer = rest_of(client)
        if answer:  # the system may drop the answer where more came than was read
            assert status_of(answer) == status
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status
    answers_others(server)


def test_the_largest_head_of_all_is_taken(server: Running) -> None:
    with connections(server.devices, 1) as (client,):
        client.sendall(
            b"GET /healthz HTTP/1.1\r\nconnection: close\r\nx: " + b"a" * (limits.HEAD_BYTES - 200) + b"\r\n\r\n"
        )
        assert status_of(rest_of(client)) == 200


def test_many_requests_at_once_on_a_connection_end_it(server: Running) -> None:
    with connections(server.devices, 1) as (client,):
        send(client, f"GET /default/artifacts/{DIGEST} HTTP/1.1\r\nhost: x\r\n\r\n".encode() * 100)
        answer = rest_of(client)
        assert len(answer) < len(ARTIFACT)
    answers_others(server)


# --- bodies ---
def post(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", *headers, "", ""]).encode()


def test_a_dripped_body_ends_at_its_deadline(server: Running) -> None:
    with connections(server.devices, 40) as clients:
        for client in clients:
            client.sendall(post("/default/device/v1/reports", "content-length: 100000"))
        began = time.monotonic()
        while sum(send(client, b" ") for client in clients):
            assert time.monotonic() - began < SOON_S
            time.sleep(0.1)
        answers_others(server)


def test_a_body_that_stops_ends_at_its_deadline(server: Running) -> None:
    with connections(server.devices, 1) as (client,):
        client.sendall(post("/default/device/v1/reports", "content-length: 100000") + b" " * 5000)
        assert status_of(rest_of(client)) == 408


def test_trailers_and_framing_without_end_are_refused(server: Running) -> None:
    chunked = post("/default/device/v1/reports", "transfer-encoding: chunked")
    for endless in (b"x: y\r\n" * 5000, b"x: " + b"a" * limits.MIB):
        with connections(server.devices, 1) as (client,):
            client.sendall(chunked + b"1\r\n \r\n0\r\n")
            send(client, endless)
            answer = rest_of(client)
            assert not answer or status_of(answer) in {400, 431}
    with connections(server.devices, 1) as (client,):
        client.sendall(chunked + b"1")
        send(client, b";" + b"e" * limits.MIB)
        answer = rest_of(client)
        assert not answer or status_of(answer) == 400


def test_a_body_that_goes_on_after_its_answer_is_cut_off(server: Running) -> None:
    with connections(server.devices, 1) as (client,):
        client.sendall(post("/default/device/v1/reports", f"content-length: {limits.GIB}"))
        sent_mib = 0
        while send(client, bytes(limits.MIB)):
            sent_mib += 1
            assert sent_mib < 512


def test_a_small_body_that_is_refused_costs_no_connection(server: Running) -> None:
    with httpx.Client(base_url=server.devices, trust_env=False, timeout=SOON_S) as http:
        for _ in range(3):
            answer = http.post("/default/device/v1/reports", content=bytes(limits.DEVICE_BODY_BYTES + 1))
            assert answer.status_code == 413
        assert len(http._transport._pool.connections) == 1


def test_a_bomb_of_gzip_is_not_unpacked(server: Running) -> None:
    with server.enrolled("bomber") as device:
        bomb = gzip.compress(bytes(100 * limits.MIB))
        answer = device.post("/device/v1/reports", content=bomb, headers={"content-encoding": "gzip"})
        assert answer.status_code == 413


DOCUMENTS = {
    "post models", "post models/{model}/versions", "put models/{model}/line", "post keys/changes",
    "put models/{model}/floor", "post models/{model}/floor/lift",
}  # fmt: skip
FILES = {
    "patch models/{model}", "post models/{model}/fit", "post rollouts", "post plans/check", "post experiments",
    "post experiments/check",
}  # fmt: skip


def test_every_admin_route_limits_its_body(server: Running) -> None:
    limit_of = dict.fromkeys(DOCUMENTS, limits.ADMIN_DOCUMENT_BYTES) | dict.fromkeys(FILES, limits.ADMIN_FILE_BYTES)
    limit_of |= {"put artifacts/{sha256}": limits.ARTIFACT_BYTES, "post user-reports": limits.ADMIN_TICKETS_BYTES}
    with server.people() as people:
        document = people.get(f"{server.admin}/schema/openapi.json").json()
    limited = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            route = f"{method} {path.removeprefix('/{namespace}/admin/v1/')}"
            if "requestBody" not in operation and route != "put artifacts/{sha256}":
                continue
            limited += 1
            over = limit_of.get(route, limits.ADMIN_BODY_BYTES) + 1
            named = path.replace("{namespace}", "default").replace("{sha256}", DIGEST)
            head = post(
                re.sub("{.*?}", "x", named.replace("{sequence}", "1")),
                f"authorization: {server.bearer['authorization']}",
                "content-type: application/json",
                f"content-length: {over}",
            )
            with connections(server.admin, 1) as (client,):
                client.sendall(head.replace(b"POST", method.upper().encode(), 1))
                answer = b""
                while b"}" not in answer:
                    answer += client.recv(4096)
                assert status_of(answer) == 413, route
                assert str(over - 1).encode() in answer
    assert limited >= 15


# --- answers ---
def ask_for_artifact(client: socket.socket, *, forwarded: str | None = None) -> None:
    extra = f"x-forwarded-for: {forwarded}\r\n" if forwarded else ""
    client.sendall(f"GET /default/artifacts/{DIGEST} HTTP/1.1\r\nhost: x\r\n{extra}\r\n".encode())


def sent_bytes(server: Running) -> int:
    with server.people() as people:
        return int(people.get("/status").json()["sent"]["artifact_bytes"])


def test_a_client_that_never_reads_is_cut_off(server: Running) -> None:
    before = sent_bytes(server)
    with connections(server.devices, 5) as clients:
        for client in clients:
            ask_for_artifact(client)
        time.sleep(BOUNDS.send_wait_s + 2)
        answers_others(server)
        assert all(len(rest_of(client)) < len(ARTIFACT) for client in clients)
    assert sent_bytes(server) - before < 5 * len(ARTIFACT) / 2


def test_a_file_is_not_read_for_a_client_that_is_gone(server: Running) -> None:
    before = sent_bytes(server)
    for _ in range(10):
        with connections(server.devices, 1) as (client,):
            ask_for_artifact(client)
            client.recv(1000)
    time.sleep(0.5)
    assert sent_bytes(server) - before < 10 * len(ARTIFACT) / 2


def test_one_client_behind_a_proxy_has_so_many_requests_under_way(patient: Running) -> None:
    def refused(forwarded: str) -> bool:
        with connections(patient.devices, 1) as (client,):
            ask_for_artifact(client, forwarded=forwarded)
            return status_of(client.recv(4096)) == 503

    with pytest.MonkeyPatch.context() as patch, ExitStack() as held:
        patch.setattr(limits, "REQUESTS_AN_ADDRESS", 8)
        for client in held.enter_context(connections(patient.devices, 8)):
            ask_for_artifact(client, forwarded="203.0.113.7")
            assert status_of(client.recv(4096)) == 200
        assert refused("203.0.113.7")
        assert refused("198.51.100.1, 203.0.113.7")  # what the client itself says of where it comes from
        assert not refused("203.0.113.8")


# --- connections ---
def test_idle_connections_give_way_where_there_are_too_many(server: Running) -> None:
    with connections(server.devices, BOUNDS.connections) as idle:
        for client in idle:
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert status_of(client.recv(4096)) == 200
        time.sleep(BOUNDS.room_after_s)
        answers_others(server)
        assert rest_of(idle[0]) == b""  # it was idle longest


def test_more_connections_than_there_may_be_hear_503_at_once(patient: Running) -> None:
    until(lambda: not_refused(patient))
    time.sleep(0.5)  # and that connection is gone
    with connections(patient.devices, 12) as busy:
        for client in busy:
            client.sendall(post("/default/device/v1/reports", "content-length: 1000", "expect: 100-continue"))
            assert status_of(client.recv(1000)) == 100  # the body is waited for
        with connections(patient.devices, 1) as (late,):
            answer = rest_of(late)
            assert status_of(answer) == 503
            assert b"retry-after: " in answer
    until(lambda: not_refused(patient))


def not_refused(server: Running) -> bool:
    with httpx.Client(trust_env=False, timeout=SOON_S) as http:
        try:
            return http.get(f"{server.devices}/healthz").status_code == 200
        except httpx.TransportError:
            return False


def test_requests_that_do_not_come_on_give_way(tmp_path: Path) -> None:
    """Half a head, or a body of which nothing comes, held a place for ten seconds, or thirty: five addresses that
    opened them again and again shut out everybody who wanted to take a version back.
    """
    bounds = Bounds(connections=12, room_after_s=0.2, head_s=600, body_wait_s=600)
    with serving(repository(tmp_path / "repo", versions=0), bounds=bounds) as server:
        for request in (b"GET /", post("/default/device/v1/reports", "content-length: 1000")):
            time.sleep(0.5)  # the last connection of before is gone: the next twelve are all that there may be
            with connections(server.devices, 12) as held:
                for client in held:
                    client.sendall(request)
                time.sleep(2 * bounds.room_after_s)
                until(lambda: not_refused(server))
                assert status_of(rest_of(held[0])) == 503
            until(lambda: not_refused(server))


def test_handshakes_that_never_end_give_way(tmp_path: Path) -> None:
    """Half-open handshakes from some addresses shut everybody out for as long as they went on: none gave way."""
    cert, key = certificate(tmp_path, name="127.0.0.1")
    bounds = Bounds(connections=12, room_after_s=0.2, handshake_s=600)
    served = {"tls": TlsFiles(certificate=str(cert), key=str(key)), "bounds": bounds}
    with ExitStack() as held:
        server = held.enter_context(serving(repository(tmp_path / "repo", versions=0), **served))
        half_open = held.enter_context(connections(server.devices, 12))
        for client in half_open:
            client.sendall(b"\x16\x03\x01")  # as a handshake begins
        time.sleep(bounds.room_after_s)
        trusted = ssl.create_default_context(cafile=cert)
        http = held.enter_context(httpx.Client(trust_env=False, verify=trusted, timeout=SOON_S))
        until(lambda: healthy(http, server))
        assert rest_of(half_open[0]) == b""


def healthy(http: httpx.Client, server: Running) -> bool:
    try:
        return http.get(f"{server.devices}/healthz").status_code == 200
    except httpx.TransportError:  # turned away, as the ones before give way in this moment
        return False


def test_one_address_cannot_take_all_connections(tmp_path: Path) -> None:
    folder = repository(tmp_path / "repo", versions=0)
    with serving(folder, bounds=Bounds(an_address=8), proxies=()) as server:
        with connections(server.devices, 8), connections(server.devices, 1) as (late,):
            assert status_of(rest_of(late)) == 503
            with connections(server.devices, 1, source="127.0.0.2") as (other,):
                other.sendall(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
                assert status_of(rest_of(other)) == 200
        until(lambda: not_refused(server))


def test_addresses_that_take_whatever_becomes_free_leave_room_for_another(tmp_path: Path) -> None:
    """A few addresses that connected again and again had each place as soon as it was free."""
    folder = repository(tmp_path / "repo", versions=0)
    with serving(folder, bounds=Bounds(connections=16, room_after_s=600), proxies=()) as server, ExitStack() as held:
        for number in range(2, 6):  # four are a quarter, which one address may have
            held.enter_context(connections(server.devices, 4, source=f"127.0.0.{number}"))
        (late,) = held.enter_context(connections(server.devices, 1, source="127.0.0.2"))
        assert status_of(rest_of(late)) == 503
        for number in (70, 71):
            (other,) = held.enter_context(connections(server.devices, 1, source=f"127.0.0.{number}"))
            other.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert status_of(other.recv(4096)) == 200


def test_refusals_are_some_lines_of_the_log_however_many_there_are(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(200):
            with connections(server.devices, 1) as (client,):
                client.sendall(b"rubbish\r\n\r\n")
                rest_of(client)
    assert len(caplog.records) < 10
    answers_others(server)


# --- descriptors, with a process that may have few ---
FEW = 300


@contextmanager
def process(
    folder: Path, *command: str, files: int | None = FEW
) -> Iterator[tuple[Running, Path, subprocess.Popen[str]]]:
    log = folder.parent / "log.txt"
    limit = f"ulimit -n {files}" if files else "true"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            ["sh", "-c", f'{limit}; exec "$@"', "sh", sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as started,
    ):
        try:
            assert started.stdout is not None
            words = started.stdout.readline().split()
            assert len(words) > 3, log.read_text()
            yield Running(words[1].rpartition("/")[0], words[3], folder), log, started
        finally:
            started.send_signal(signal.SIGTERM)
            assert started.wait(30) == 0, log.read_text()


@pytest.mark.long
def test_a_server_never_runs_out_of_descriptors(tmp_path: Path) -> None:
    """It knows how many it has, and holds fewer connections; people's listener has its own."""
    folder = repository(tmp_path / "repo", versions=0)
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    with process(folder, "-m", "whimbrel.cli", "serve", str(folder), *listen) as (server, log, _):
        with connections(server.devices, 2 * FEW):
            time.sleep(limits.ROOM_AFTER_S)
            answers_others(server)
            with server.people() as people:
                assert people.get("/status").status_code == 200
        answers_others(server)
        assert "give way" in log.read_text()
        assert "too many files open" not in log.read_text()
        assert len(log.read_text().splitlines()) < 30


UNAWARE = """
import asyncio, sys
from pathlib import Path
from whimbrel.server.app import Served, serve_until_stopped
from whimbrel.server.config import Folder
from whimbrel.server.connection import Bounds
from whimbrel.server.tls import TlsFiles
from whimbrel.server.logs import start_logging

async def main():
    served = Served("127.0.0.1:0", "127.0.0.1:0", bounds=Bounds(connections=100_000, room_after_s=60))
    async for listening in serve_until_stopped(Folder.open(Path(sys.argv[1])), served):
        print(f"devices: {listening.devices}/default people: {listening.admin}", flush=True)

start_logging("text")
asyncio.run(main())
"""


@pytest.mark.long
def test_accepting_pauses_where_the_system_has_no_descriptor(tmp_path: Path) -> None:
    """Of a server that believes to have more than it has: it does not spin, says so once, and recovers."""
    folder = repository(tmp_path / "repo", versions=0)
    with process(folder, "-c", UNAWARE, str(folder)) as (server, log, started):
        with connections(server.devices, FEW + 50):
            time.sleep(1)
            before = cpu_s(started.pid)
            time.sleep(2)
            assert cpu_s(started.pid) - before < 1
        until(lambda: not_refused(server))
        assert log.read_text().count("too many files open") <= 3


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


@pytest.mark.long
def test_ten_thousand_idle_connections_leave_a_server_prompt(tmp_path: Path) -> None:
    """Or as many as this process and the server may have."""
    folder = repository(tmp_path / "repo", versions=0)
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with process(folder, "-m", "whimbrel.cli", "serve", str(folder), *listen, files=None) as (server, _, _):
        with connections(server.devices, min(10_000, soft - 500)):
            began = time.monotonic()
            answers_others(server)
            with server.people() as people:
                assert people.get("/status").status_code == 200
            assert time.monotonic() - began < SOON_S
        answers_others(server)
