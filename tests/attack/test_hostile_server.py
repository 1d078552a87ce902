"""One test for each way in which a server may mistreat a device. The device keeps its model, stops in time, says why.

Where a limit is a wait or a size that a test cannot sit out, a small one is injected.
"""

import datetime
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import urllib3

from support.agents import AllGood
from support.repository import Repository, Server, onnx_model
from support.tls import over_tls
from whimbrel import Agent, AgentOptions, limits
from whimbrel.agent import transport
from whimbrel.agent.app import CycleResult
from whimbrel.model.documents import digest_of
from whimbrel.trust import roles

ONE, TWO = onnx_model(factor=2.0), onnx_model(factor=3.0, padding=200_000)
ARTIFACT = f"artifacts/{digest_of(TWO)}"
Handle = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def server() -> Iterator[Server]:
    repository = Repository()
    repository.release("detector", 1, ONE)
    repository.release("detector", 2, TWO)
    repository.policy("detector", baseline=1)
    with Server(repository) as running:
        yield running


def opened(folder: Path, given_by: Server, **changes: Any) -> Agent:
    given = {
        "server": given_by.url,
        "root": given_by.repository.root_bytes,
        "models": ["detector"],
        "device_id": "dev-1",
        "probes": AllGood(),
    }
    return Agent.open(folder, AgentOptions(**{**given, **changes}))


@pytest.fixture
def agent(tmp_path: Path, server: Server) -> Iterator[Agent]:
    """A device that runs serial 1, and is about to be offered serial 2."""
    with opened(tmp_path, server) as made:
        made.cycle()
        for _ in range(limits.TRIAL_HEALTHY_SESSIONS):
            with made.session("detector"):
                pass
        assert made.cycle(force=True).models["detector"]["state"] == "committed"
        server.repository.policy("detector", baseline=2)
        yield made


def still_one(agent: Agent) -> CycleResult:
    """A cycle among enemies: what it said."""
    result = agent.cycle(force=True)
    assert result.models["detector"]["serial"] == 1
    assert result.problems
    with agent.session("detector") as model:
        assert model.path.read_bytes() == ONE
    return result


def until_two(agent: Agent, server: Server) -> None:
    """The enemy is gone."""
    server.faults.clear()
    for _ in range(5):
        time.sleep(0.11)
        if agent.cycle(force=True).models["detector"]["serial"] == 2:
            break
    with agent.session("detector") as model:
        assert model.path.read_bytes() == TWO


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()
    handler.close_connection = True


def endless(handler: BaseHTTPRequestHandler) -> None:
    answer(handler, 200, b"", {"Connection": "close"})
    try:
        while True:
            handler.wfile.write(bytes(limits.COPY_CHUNK_BYTES))
    except OSError:
        return  # the device hung up


@pytest.mark.parametrize("path", [ARTIFACT, "metadata/timestamp.json", "metadata/2.root.json"])
def test_endless_body_is_left_at_its_limit(agent: Agent, server: Server, path: str) -> None:
    server.faults[path] = endless
    still_one(agent)
    assert sum(each.stat().st_size for each in (agent.folder / "incoming").glob("*")) <= len(TWO)
    until_two(agent, server)


def test_body_longer_than_it_says_is_cut_there(agent: Agent, server: Server) -> None:
    server.faults[ARTIFACT] = lambda to: answer(to, 200, TWO + b"more", {"Content-Length": str(len(TWO) + 4)})
    assert any("longer than" in problem for problem in still_one(agent).problems)
    assert not list((agent.folder / "incoming").glob("*.part"))
    until_two(agent, server)


def test_body_shorter_than_it_says_is_taken_up_where_it_ended(agent: Agent, server: Server) -> None:
    etag = {"ETag": f'"{digest_of(TWO)}"'}
    server.faults[ARTIFACT] = lambda to: answer(to, 200, TWO[:1000], {**etag, "Content-Length": str(len(TWO))})
    still_one(agent)
    until_two(agent, server)
    assert server.ranges[-1] == "bytes=1000-"


def test_truncated_body_without_a_length_is_not_taken_for_whole(agent: Agent, server: Server) -> None:
    server.faults[ARTIFACT] = lambda to: answer(to, 200, TWO[:-1], {"Connection": "close"})
    still_one(agent)
    until_two(agent, server)


def test_flipped_bit_is_thrown_away_and_fetched_again(agent: Agent, server: Server) -> None:
    flipped = bytes([TWO[0] ^ 1]) + TWO[1:]
    server.faults[ARTIFACT] = lambda to: answer(to, 200, flipped, {"Content-Length": str(len(TWO))})
    assert any("SHA-256" in problem for problem in still_one(agent).problems)
    until_two(agent, server)


def test_range_that_is_answered_with_everything_begins_anew(agent: Agent, server: Server) -> None:
    etag = {"ETag": f'"{digest_of(TWO)}"'}
    server.faults[ARTIFACT] = lambda to: answer(to, 200, TWO[:1000], {**etag, "Content-Length": str(len(TWO))})
    still_one(agent)
    server.faults[ARTIFACT] = lambda to: answer(to, 200, TWO, {**etag, "Content-Length": str(len(TWO))})
    time.sleep(0.11)
    assert agent.cycle(force=True).models["detector"]["serial"] == 2
    with agent.session("detector") as model:
        assert model.path.read_bytes() == TWO


def test_another_range_than_was_asked_for_is_refused(agent: Agent, server: Server) -> None:
    etag = {"ETag": f'"{digest_of(TWO)}"'}
    server.faults[ARTIFACT] = lambda to: answer(to, 200, TWO[:1000], {**etag, "Content-Length": str(len(TWO))})
    still_one(agent)
    server.faults[ARTIFACT] = lambda to: answer(
        to, 206, TWO[5:], {"Content-Range": f"bytes 5-{len(TWO) - 1}/{len(TWO)}", "Content-Length": str(len(TWO) - 5)}
    )
    time.sleep(0.11)
    still_one(agent)
    until_two(agent, server)


def drip(handler: BaseHTTPRequestHandler) -> None:
    answer(handler, 200, b"", {"Content-Length": str(len(TWO)), "ETag": f'"{digest_of(TWO)}"'})
    try:
        for place in range(len(TWO)):
            handler.wfile.write(TWO[place : place + 1])
            handler.wfile.flush()
            time.sleep(0.01)
    except OSError:
        return


def test_slow_drip_of_an_artifact_ends_with_the_pass(
    agent: Agent, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_PASS_S", 0.2)
    server.faults[ARTIFACT] = drip
    begun = time.monotonic()
    still_one(agent)
    assert time.monotonic() - begun < 20  # all of it would take half an hour
    monkeypatch.undo()
    until_two(agent, server)


def test_slow_drip_of_metadata_ends_in_time(agent: Agent, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_S", 0.2)
    server.faults["metadata/timestamp.json"] = drip
    begun = time.monotonic()
    still_one(agent)
    assert time.monotonic() - begun < 20
    monkeypatch.undo()
    until_two(agent, server)


def drip_of(*head: bytes) -> Handle:
    """A byte at a time, more often than the socket's own wait ends, and never to the end."""

    def handle(handler: BaseHTTPRequestHandler) -> None:
        try:
            for piece in head:
                handler.wfile.write(piece)
            while True:
                handler.wfile.write(b"1")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            return  # the device hung up
        finally:
            handler.close_connection = True

    return handle


@pytest.mark.parametrize("path", [ARTIFACT, "metadata/timestamp.json", "metadata/2.root.json"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param((), id="status"),
        pytest.param((b"HTTP/1.1 200 OK\r\nX-Slow: ",), id="head"),
        pytest.param((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",), id="length of a chunk"),
        pytest.param(
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;",), id="and closes"
        ),
    ],
)
def test_slow_drip_of_anything_before_the_bytes_ends_in_time(
    agent: Agent, server: Server, monkeypatch: pytest.MonkeyPatch, path: str, head: tuple[bytes, ...]
) -> None:
    """It held the agent for as long as the server liked: no wait of a socket ends while bytes come."""
    monkeypatch.setattr(limits, "ANSWER_S", 0.3)
    server.faults[path] = drip_of(*head)
    still_one(agent)
    monkeypatch.undo()
    until_two(agent, server)


def test_device_that_takes_its_time_between_two_pieces_is_not_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWER_S", 0.1)
    monkeypatch.setattr(limits, "COPY_CHUNK_BYTES", 400_000)
    content = bytes(500_000)
    network = transport.HttpNetwork()
    came = 0
    with network.stream(f"{server.url}/default/artifacts/{server.repository.blob(content)}", headers={}) as body:
        for piece in body.chunks():
            time.sleep(0.15)
            came += len(piece)
    network.close()
    assert came == len(content)


def test_silence_on_an_open_connection_ends_in_time(
    agent: Agent, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_TIMEOUT", urllib3.Timeout(connect=1.0, read=0.2))
    let_go = threading.Event()
    server.faults["metadata/timestamp.json"] = lambda _: (let_go.wait(20), None)[1]
    still_one(agent)
    let_go.set()
    monkeypatch.undo()
    until_two(agent, server)


@pytest.mark.parametrize("path", [ARTIFACT, "metadata/timestamp.json", "metadata/2.root.json"])
def test_redirect_is_not_followed_and_so_no_loop_of_them(agent: Agent, server: Server, path: str) -> None:
    server.faults[path] = lambda to: answer(to, 302, b"", {"Location": f"/default/{path}", "Content-Length": "0"})
    server.asked.clear()
    still_one(agent)
    until_two(agent, server)


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "metadata/2.root.json"])
def test_gzip_bomb_in_metadata_is_left_at_its_limit(agent: Agent, server: Server, path: str) -> None:
    bomb = gzip.compress(bytes(64 * limits.MIB))
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(bomb))}
    server.faults[path] = lambda to: answer(to, 200, bomb, headers)
    assert any("more than" in problem or "bytes" in problem for problem in still_one(agent).problems)
    until_two(agent, server)


def test_artifact_that_comes_compressed_is_refused(agent: Agent, server: Server) -> None:
    packed = gzip.compress(TWO)
    headers = {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}
    server.faults[ARTIFACT] = lambda to: answer(to, 200, packed, headers)
    assert any("compressed on the way" in problem for problem in still_one(agent).problems)
    until_two(agent, server)


def test_metadata_from_last_year_moves_nothing(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    repository = Repository(now=now - datetime.timedelta(days=365))
    repository.root.expires = now + roles.ROOT_LIFE
    repository.publish_root()
    repository.root_bytes = repository.files["metadata/1.root.json"]
    repository.release("detector", 1, ONE)
    repository.policy("detector", baseline=1)
    with Server(repository) as server, opened(tmp_path, server) as agent:
        result = agent.cycle()
        assert result.models["detector"]["serial"] is None
        assert any("cannot be trusted" in problem and "expired" in problem for problem in result.problems)


def test_metadata_from_last_year_is_not_taken_by_a_device_that_has_newer(agent: Agent, server: Server) -> None:
    files = server.repository.files
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    server.repository.timestamp.expires = now - datetime.timedelta(days=365)
    server.repository.renew()
    assert "metadata/timestamp.json" in files
    assert any("expired" in problem for problem in still_one(agent).problems)
    server.repository.timestamp.expires = now + roles.TIMESTAMP_LIFE
    server.repository.renew()
    until_two(agent, server)


# --- TLS ---


@pytest.mark.parametrize(
    ("name", "trusted", "refused"),
    [("127.0.0.1", True, False), ("models.example.com", True, True), ("127.0.0.1", False, True)],
    ids=["right name", "wrong name", "unknown issuer"],
)
def test_tls_server_is_believed_by_its_name_and_its_issuer_only(
    tmp_path: Path, server: Server, name: str, trusted: bool, refused: bool
) -> None:
    with over_tls(server, tmp_path, name=name) as (url, place):
        pool = urllib3.PoolManager(ca_certs=str(place)) if trusted else urllib3.PoolManager()
        with opened(tmp_path / "device", server, server=url, pool=pool) as agent:
            result = agent.cycle()
        pool.clear()
    assert (result.models["detector"]["serial"] is None) is refused
    if refused:
        assert any("its certificate is not trusted: " in problem for problem in result.problems)
    else:
        assert not result.problems
