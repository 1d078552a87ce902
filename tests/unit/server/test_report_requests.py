"""What devices tell and ask: POST announce, reports and check. What is acknowledged is stored, and counts once."""

import asyncio
import gzip
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from support.device_problems import problem_of
from support.server_in_memory import ServerInMemory, server_in_memory
from support.values import EPOCH, window
from whimbrel import limits
from whimbrel.errors import DiskFull, Unavailable, WhimbrelError
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.devices.records import DeviceAccess, EnrolTokenTerms
from whimbrel.health.report import Announcement, Batch, Window
from whimbrel.model.documents import encode
from whimbrel.server.http import read_body

BOARD = "dev-1"
NEEDS_TOKEN = "this needs a device token: Authorization: Bearer ...; get one with POST token"


@pytest.fixture
def server() -> Iterator[ServerInMemory]:
    with server_in_memory() as here:
        yield here


@pytest.fixture
def board(server: ServerInMemory) -> httpx.Client:
    """The client of a device that is enrolled, and has a token."""
    return server.device(BOARD)


def labelled(server: ServerInMemory) -> httpx.Client:
    """A device whose token gave it one label, and bounds another one."""
    secret = "enrol-token-of-batch"
    terms = EnrolTokenTerms(granted_labels={"site": "oslo"}, labels={"ring": ("beta",)})
    with server.stores() as stores:
        stores.enrolments.add_token("batch", [secret], terms=terms, at=server.clock.now)
    http = server.public()
    held = http.post("/device/v1/enrol", json={"device_id": BOARD, "enrol_token": secret}).json()
    return server.public(http.post("/device/v1/token", json=held).json()["token"])


def batch(*windows: Window, **changes: Any) -> bytes:
    return encode(Batch(**{"epoch": EPOCH, "windows": windows or (window(serial=1, cohorts=()),)} | changes))


def told(step: str = "activated", **changes: Any) -> bytes:
    return encode(Announcement(**{"model": "wake", "step": step, "serial": 1} | changes))


def send(http: httpx.Client, body: bytes, *, to: str = "reports", **headers: str) -> httpx.Response:
    return http.post(
        f"/device/v1/{to}", content=body, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


def stored(server: ServerInMemory) -> tuple[DeviceMessage, ...]:
    records: tuple[DeviceMessage, ...] = server.run(server.inbox.take(1000)).records
    return records


def runs(server: ServerInMemory, model: str = "wake") -> int | None:
    """The version that the device runs, as the server knows it."""
    with server.stores() as stores:
        row = stores.fleet.running_of(BOARD).get(model)
    return None if row is None else row.serial


# --- what is acknowledged is stored ---


@pytest.mark.parametrize(("name", "body"), [("reports", batch()), ("announce", told())])
def test_a_message_is_stored_as_it_came_before_it_is_acknowledged(
    server: ServerInMemory, board: httpx.Client, name: str, body: bytes
) -> None:
    server.clock.now += 7
    answer = send(board, body, to=name)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    (message,) = stored(server)
    assert message == DeviceMessage(namespace="default", device_id=BOARD, kind=name, body=body, at=server.clock.now)
    assert server.controllers.wake.is_set()  # the next round begins soon


class SickInbox:
    """An inbox that does not store."""

    def __init__(self, error: WhimbrelError) -> None:
        self.error = error

    async def write(self, records: Sequence[DeviceMessage]) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("the inbox does not answer"), 503), (DiskFull("the disk is full"), 507)]
)
def test_a_message_that_could_not_be_stored_is_to_come_again(
    server: ServerInMemory,
    board: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    error: WhimbrelError,
    status: int,
) -> None:
    monkeypatch.setattr(server.intake, "_inbox", SickInbox(error))
    answer = send(board, batch())
    assert problem_of(answer) == (status, error.title, str(error))
    assert answer.headers["retry-after"] == "5"
    assert stored(server) == ()


def test_a_queue_that_is_full_sends_devices_away_for_a_while(
    server: ServerInMemory, board: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES", len(batch()) - 1)
    answer = send(board, batch())
    assert problem_of(answer) == (503, "Not available now", "too many reports at once; come again later")
    assert answer.headers["retry-after"] == "5"
    monkeypatch.setattr(limits, "INTAKE_BYTES", len(batch()))
    assert send(board, batch()).status_code == 204


def test_requests_that_come_together_are_one_write_and_a_bad_one_among_them_fails_alone(
    server: ServerInMemory, board: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    write = server.inbox.write

    async def counted(records: Sequence[DeviceMessage]) -> None:
        writes.append(len(records))
        await write(records)

    monkeypatch.setattr(server.inbox, "write", counted)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(server.devices)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://server/default", headers=board.headers
        ) as http:
            bodies = [told(), b"{}", batch(), told("committed")]
            names = ["announce", "reports", "reports", "announce"]
            answers = await asyncio.gather(
                *(http.post(f"/device/v1/{name}", content=body) for name, body in zip(names, bodies, strict=True))
            )
            return [each.status_code for each in answers]

    assert server.run(ask()) == [204, 400, 204, 204]
    assert sum(writes) == len(stored(server)) == 3
    assert len(writes) < 3


# --- who may tell ---


@pytest.mark.parametrize("name", ["announce", "reports", "check", "release-key"])
def test_what_devices_tell_and_ask_needs_a_token(server: ServerInMemory, name: str) -> None:
    answer = server.public().post(f"/device/v1/{name}", content=b"{}")
    assert problem_of(answer) == (401, "Not allowed", NEEDS_TOKEN)


def test_a_token_is_taken_for_an_hour_in_its_own_namespace(server: ServerInMemory, board: httpx.Client) -> None:
    other = server.client(server.devices, base="/other").post(
        "/device/v1/reports", content=batch(), headers=board.headers
    )
    assert problem_of(other) == (401, "Not allowed", "this device token is for namespace 'default'")
    server.clock.now += 3600
    assert send(board, batch()).status_code == 204
    server.clock.now += 0.5
    sentence = "this device token is over; get a new one with POST token"
    assert problem_of(send(board, batch())) == (401, "Not allowed", sentence)


def test_a_device_that_is_blocked_is_refused_with_a_good_token(server: ServerInMemory, board: httpx.Client) -> None:
    blocked = DeviceAccess(device_id=BOARD, state="blocked", since=server.clock.now)
    server.gatekeeper.note([("default", blocked)], now=server.clock.now)
    sentence = "the operator has blocked this device: nothing that it sends is taken, until it is unblocked"
    for name, body in (("reports", batch()), ("announce", told()), ("check", b'{"models":{}}')):
        assert problem_of(send(board, body, to=name)) == (403, "Refused", sentence)
    assert stored(server) == ()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("reports", lambda labels: batch(labels=labels)),
        ("reports", lambda labels: batch(window(serial=1, cohorts=(), slices=labels))),
        (
            "reports",
            lambda labels: batch(window(serial=1, cohorts=()), window(2, serial=1, cohorts=(), slices=labels)),
        ),
        ("announce", lambda labels: told(slices=labels)),
        ("check", lambda labels: json.dumps({"models": {}, "labels": labels}).encode()),
    ],
)
def test_a_device_tells_no_label_that_it_may_not(server: ServerInMemory, name: str, body: Any) -> None:
    board = labelled(server)
    good = send(board, body({"site": "oslo", "ring": "beta", "color": "any"}), to=name)
    assert good.status_code in {200, 204}
    sentence = "this device has the label site=oslo from the server, and cannot tell 'rome'"
    assert problem_of(send(board, body({"site": "rome"}), to=name)) == (403, "Refused", sentence)
    sentence = "the enrolment token lets a device claim ring as beta; it told 'all'"
    assert problem_of(send(board, body({"ring": "all"}), to=name)) == (403, "Refused", sentence)


# --- what is understood ---


def windows(count: int) -> tuple[Window, ...]:
    return tuple(window(number, serial=1, cohorts=()) for number in range(1, count + 1))


def test_a_batch_has_at_most_256_windows(server: ServerInMemory, board: httpx.Client) -> None:
    many = [json.loads(encode(each)) for each in windows(257)]
    body = {"epoch": EPOCH, "windows": many}
    status, title, detail = problem_of(board.post("/device/v1/reports", json=body))
    assert (status, title) == (400, "The input cannot be accepted")
    assert detail.startswith("a batch of reports cannot be read: windows")
    assert "256" in detail
    assert board.post("/device/v1/reports", json=body | {"windows": many[:256]}).status_code == 204


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("reports", b"", "a batch of reports cannot be read: "),
        ("reports", b"no JSON", "a batch of reports cannot be read: "),
        ("reports", b"{}", "a batch of reports cannot be read: "),
        ("reports", json.dumps({"epoch": "0" * 15}).encode(), "a batch of reports cannot be read: epoch is "),
        ("reports", json.dumps({"epoch": EPOCH, "more": 1}).encode(), "a batch of reports cannot be read: "),
        ("announce", b"{}", "an announcement cannot be read: "),
        ("announce", json.dumps({"model": "wake", "step": "eaten"}).encode(), "an announcement cannot be read: step"),
        ("check", b"{}", "a check cannot be read: "),
        ("enrol", b"{}", "an enrolment cannot be read: "),
        ("token", b"{}", "a credential cannot be read: "),
        ("challenge", b"[]", "a request for a challenge cannot be read: "),
    ],
)
def test_a_body_that_is_not_understood_is_refused_and_says_which(
    server: ServerInMemory, board: httpx.Client, name: str, body: bytes, sentence: str
) -> None:
    status, title, detail = problem_of(send(board, body, to=name))
    assert (status, title, detail.startswith(sentence)) == (400, "The input cannot be accepted", True), detail
    assert stored(server) == ()


def test_windows_come_in_order(server: ServerInMemory, board: httpx.Client) -> None:
    one, two = (json.loads(encode(each)) for each in windows(2))
    body = {"epoch": EPOCH, "windows": [two, one]}
    status, _, detail = problem_of(board.post("/device/v1/reports", json=body))
    assert (status, "window 1 does not come after 2" in detail) == (400, True), detail


# --- bodies ---


def test_a_body_may_be_gzip(server: ServerInMemory, board: httpx.Client) -> None:
    assert send(board, gzip.compress(batch()), content_encoding="gzip").status_code == 204
    assert send(board, batch(), content_encoding="identity").status_code == 204
    assert [message.body for message in stored(server)] == [batch(), batch()]


@pytest.mark.parametrize(
    ("body", "coding", "sentence"),
    [
        (batch(), "gzip", "the body is not gzip: "),
        (gzip.compress(batch())[:-9], "gzip", "the body is not gzip: "),
        (gzip.compress(batch())[:-4] + b"\0\0\0\0", "gzip", "the body is not gzip: "),
        (batch(), "br", "Content-Encoding 'br' is not understood; use gzip or none"),
        (batch(), "GZIP", "Content-Encoding 'GZIP' is not understood; use gzip or none"),
    ],
)
def test_a_body_in_another_coding_is_refused(board: httpx.Client, body: bytes, coding: str, sentence: str) -> None:
    status, title, detail = problem_of(send(board, body, content_encoding=coding))
    assert (status, title, detail.startswith(sentence)) == (400, "The input cannot be accepted", True), detail


def spaces(size_bytes: int) -> bytes:
    """A batch of exactly so many bytes."""
    return batch() + b" " * (size_bytes - len(batch()))


def test_a_body_of_a_mebibyte_is_taken_and_not_a_byte_more(server: ServerInMemory, board: httpx.Client) -> None:
    most = limits.DEVICE_BODY_BYTES
    assert send(board, spaces(most)).status_code == 204
    declared = send(board, spaces(most + 1))
    assert problem_of(declared) == (413, "Too large", "the body has 1048577 bytes; at most 1048576 are taken")
    bomb = gzip.compress(spaces(most + 1))
    assert send(board, gzip.compress(spaces(most)), content_encoding="gzip").status_code == 204
    answer = send(board, bomb, content_encoding="gzip")
    assert problem_of(answer) == (413, "Too large", "the body unpacks to more than 1048576 bytes")


def read(chunks: Sequence[bytes], *, limit: int, length: bytes | None = None, ends: bool = True) -> bytes:
    """What is read of a body that comes in chunks. `length`: as it was declared. Not `ends`: the other side hung up."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": each, "more_body": True} for each in chunks]
    messages.append({"type": "http.request"} if ends else {"type": "http.disconnect"})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [] if length is None else [(b"content-length", length)]
    return asyncio.run(read_body({"headers": headers}, receive, limit=limit))


def test_a_body_in_chunks_is_taken_up_to_its_limit_whatever_it_declared() -> None:
    assert read([b"abc", b"", b"de"], limit=5) == b"abcde"
    assert read([b"abcde"], limit=5, length=b"5") == b"abcde"
    assert read([b"abcde"], limit=5, length=b"many") == b"abcde"
    for chunks in ([b"abcdef"], [b"abc", b"def"]):
        with pytest.raises(WhimbrelError, match="the body is over 5 bytes; send less at once") as caught:
            read(chunks, limit=5, length=b"5")
        assert caught.value.status == 413


def test_a_body_that_is_cut_off_is_refused() -> None:
    with pytest.raises(WhimbrelError, match="the connection closed before the body was complete") as caught:
        read([b"abc"], limit=5, ends=False)
    assert caught.value.status == 400


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICE_BODY_S", 0.01)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(WhimbrelError, match=r"the body did not come within 0\.01 s"):
        asyncio.run(read_body({"headers": []}, never, limit=5))


# --- which requests there are ---


def test_a_request_that_there_is_not_is_told_which_there_are(server: ServerInMemory, board: httpx.Client) -> None:
    there_are = "challenge, enrol, token, announce, reports, check, release-key"
    for path, name in (("v1/eat", "eat"), ("v2/reports", "v2/reports"), ("v1/reports/1", "reports/1")):
        answer = board.post(f"/device/{path}")
        sentence = f"there is no device request '{name}'; there are: {there_are}"
        assert problem_of(answer) == (404, "Not found", sentence)


@pytest.mark.parametrize("name", ["challenge", "enrol", "token", "announce", "reports", "check", "release-key"])
def test_a_device_posts(server: ServerInMemory, name: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = server.public().request(method, f"/device/v1/{name}")
        assert problem_of(answer) == (405, "Not supported here", f"{method} is not possible here; use POST")


def test_the_description_of_this_api_is_public_and_may_be_kept_for_an_hour(server: ServerInMemory) -> None:
    http = server.public()
    answer = http.get("/device/v1/openapi.json")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=3600")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["openapi"].startswith("3.1")
    head = http.head("/device/v1/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == answer.headers["content-length"] == str(len(answer.content))
    posted = http.post("/device/v1/openapi.json")
    assert problem_of(posted) == (405, "Not supported here", "POST is not possible here; use GET")


# --- what is counted ---


def test_a_window_counts_once_by_its_number(server: ServerInMemory, board: httpx.Client) -> None:
    for number, serial, expected in ((1, 1, 1), (1, 2, 1), (2, 2, 2), (1, 1, 2)):  # two of them come again
        assert send(board, batch(window(number, serial=serial, cohorts=()))).status_code == 204
        server.round()
        assert stored(server) == ()
        assert runs(server) == expected
    with server.stores() as stores:
        assert stores.fleet.sequences([BOARD])[BOARD, EPOCH].last == 2


def test_a_model_that_there_is_not_fills_no_table(server: ServerInMemory, board: httpx.Client) -> None:
    assert send(board, batch(window(1, serial=1, cohorts=(), model="sleep"))).status_code == 204
    assert send(board, told(model="sleep"), to="announce").status_code == 204
    server.round()
    assert (runs(server, "sleep"), runs(server)) == (None, None)


def test_an_announcement_says_what_the_device_runs(server: ServerInMemory, board: httpx.Client) -> None:
    assert send(board, told("activated", serial=2), to="announce").status_code == 204
    assert runs(server) is None  # it is counted later
    server.round()
    assert runs(server) == 2


# --- the thin check ---


def test_a_client_that_cannot_decide_is_told_what_to_run_and_of_what_it_is_made(
    server: ServerInMemory, board: httpx.Client
) -> None:
    answer = board.post("/device/v1/check", json={"models": {"wake": None}})
    assert (answer.status_code, list(answer.json())) == (200, ["models"])
    decision = answer.json()["models"]["wake"]
    assert (decision["offer"], decision["serial"], decision["semantic_version"]) == ("run", 1, "1.0.0")
    (file,) = decision["files"]
    assert server.public().get(f"/artifacts/{file['sha256']}").content == b"wake 1"
    assert runs(server) is None


def test_a_check_says_what_the_device_runs(server: ServerInMemory, board: httpx.Client) -> None:
    board.post("/device/v1/check", json={"models": {"wake": 2}})
    assert runs(server) == 2
    with server.stores() as stores:
        assert [each.model for each in stores.inventory.models_of([BOARD])] == ["wake"]


def test_a_check_of_a_model_that_there_is_not_is_answered_and_written_nowhere(
    server: ServerInMemory, board: httpx.Client
) -> None:
    answer = board.post("/device/v1/check", json={"models": {"sleep": 3}})
    assert answer.json()["models"] == {
        "sleep": {"offer": "keep", "serial": None, "because": "there is no policy for a model 'sleep'"}
    }
    assert runs(server, "sleep") is None
