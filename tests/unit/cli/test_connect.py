"""What a command makes of a server's answer: a view, one of our errors, or a sentence that says what is wrong."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from whimbrel.cli.connect import Client
from whimbrel.cli.output import print_json
from whimbrel.errors import Conflict, NotFound, Unavailable, UntrustedInput, WhimbrelError
from whimbrel.server.admin.views.artifacts import ArtifactView
from whimbrel.server.admin.views.models import NewAlias
from whimbrel.server.admin.views.versions import DeltaView

STORED = {"sha256": "a" * 64, "size_bytes": 7}


class Answering:
    """A server that gives one answer, and keeps what it was asked."""

    def __init__(self, status: int = 200, body: Any = None) -> None:
        self.status = status
        self.content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.requests: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.requests.append((scope["method"], f"{scope['path']}?{scope['query_string'].decode()}", body))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.content})


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def client_of(server: Answering, runner: asyncio.Runner) -> Client:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://folder")
    return Client(http, runner=runner, namespace="default", keys=None)


def test_an_answer_is_decoded_as_its_view_whatever_a_newer_server_adds(runner: asyncio.Runner) -> None:
    server = Answering(body=[STORED | {"new": 1}])
    artifacts = client_of(server, runner).get("artifacts", as_=list[ArtifactView], model="wake", rollout=None)
    assert artifacts == [ArtifactView(**STORED)]
    assert server.requests == [("GET", "/default/admin/v1/artifacts?model=wake", b"")]


def test_a_body_is_a_struct_and_nothing_is_answered_with_204(runner: asyncio.Runner) -> None:
    server = Answering(204, b"")
    assert client_of(server, runner).send("PUT", "x", NewAlias(version="1.0.0")) is None
    assert json.loads(server.requests[0][2]) == {"version": "1.0.0"}


@pytest.mark.parametrize(
    ("body", "words"), [({"sha256": 7}, "sha256"), (b"<html>", "it is no JSON"), ([], "it is a list")]
)
def test_an_answer_that_is_no_such_view_is_one_sentence(runner: asyncio.Runner, body: Any, words: str) -> None:
    client = client_of(Answering(body=body), runner)
    with pytest.raises(UntrustedInput, match=f"answer to GET /default/admin/v1/x cannot be read: .*{words}"):
        client.get("x", as_=ArtifactView)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, UntrustedInput), (404, NotFound), (409, Conflict), (503, Unavailable), (500, WhimbrelError)],
)
def test_a_problem_is_our_error_with_its_detail(runner: asyncio.Runner, status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="somebody was first"):
        client_of(Answering(status, {"detail": "somebody was first"}), runner).get("x", as_=ArtifactView)
    with pytest.raises(error, match="is the URL right"):
        client_of(Answering(status, b"<html>"), runner).get("x")


def test_views_are_printed_with_the_keys_of_the_wire(capsys: pytest.CaptureFixture[str]) -> None:
    wire = {"model": "wake", "base": "0", "target": "a", "target_bytes": 9, "sha256": None, "size_bytes": 8}
    wire |= {"advice": "", "listed": False, "from": "nothing", "file": None}
    print_json([msgspec.convert(wire, DeltaView)])
    assert json.loads(capsys.readouterr().out) == [wire]
