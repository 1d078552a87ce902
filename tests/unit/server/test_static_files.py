"""The files that anybody may fetch: ranges, tags, encodings, caches, and paths that lead nowhere."""

import gzip
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from support.accounts import refusal
from support.server_in_memory import NAMESPACE, ServerInMemory
from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.model.documents import digest_of
from whimbrel.server import static
from whimbrel.server.downloads import Downloads
from whimbrel.server.http import CONNECTION

CONTENT = bytes(range(256)) * 4
DIGEST = digest_of(CONTENT)
ETAG = f'"{DIGEST}"'
PATH = f"/artifacts/{DIGEST}"
IMMUTABLE, BRIEF = "public, max-age=31536000, immutable", "public, max-age=5"
TIMESTAMP = "/metadata/timestamp.json"


@pytest.fixture
def http(server: ServerInMemory) -> httpx.Client:
    server.run(server.blobs.put(f"{NAMESPACE}{PATH}", CONTENT))
    return server.public()


# --- artifacts ---
def test_an_artifact_comes_whole_and_may_be_kept_for_ever(server: ServerInMemory, http: httpx.Client) -> None:
    answer = http.get(PATH)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert dict(answer.headers) == {
        "cache-control": IMMUTABLE,
        "etag": ETAG,
        "accept-ranges": "bytes",
        "content-type": "application/octet-stream",
        "content-length": "1024",
    }
    assert (server.static.sent.artifact_bytes, server.static.sent.document_bytes) == (1024, 0)


def test_a_head_is_the_same_without_the_bytes(server: ServerInMemory, http: httpx.Client) -> None:
    head, whole = http.head(PATH), http.get(PATH)
    assert (head.status_code, head.content, head.headers) == (200, b"", whole.headers)
    assert server.static.sent.artifact_bytes == 1024


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1023", 0, 1024),
        ("bytes=5-9", 5, 10),
        ("bytes=5-5", 5, 6),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1023-", 1023, 1024),
        ("bytes=1000-5000", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=-1", 1023, 1024),
        ("bytes=-5000", 0, 1024),
        (" bytes=5-9 ", 5, 10),
    ],
)
def test_a_part_is_answered_as_that_part(
    server: ServerInMemory, http: httpx.Client, asked: str, start: int, end: int
) -> None:
    answer = http.get(PATH, headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1024"
    assert answer.headers["content-length"] == str(end - start)
    assert (answer.headers["etag"], answer.headers["cache-control"]) == (ETAG, IMMUTABLE)
    assert server.static.sent.artifact_bytes == end - start
    assert http.head(PATH, headers={"range": asked}).status_code == 206


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=1024-2000", "bytes=-0", "bytes=999999999999999999-"])
def test_a_part_beyond_the_end_is_416_with_the_size(http: httpx.Client, asked: str) -> None:
    answer = http.get(PATH, headers={"range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == "bytes */1024"
    assert answer.headers["content-length"] == "0"


@pytest.mark.parametrize(
    "asked", ["bytes=-", "bytes=9-5", "bytes=0-1,5-9", "lines=0-1", "bytes=a-b", "bytes=0-1x", "0-1", "bytes= 0-1", ""]
)
def test_a_range_that_is_not_understood_is_ignored(http: httpx.Client, asked: str) -> None:
    answer = http.get(PATH, headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("", 200)])
def test_a_part_of_another_content_is_not_answered(http: httpx.Client, condition: str, status: int) -> None:
    answer = http.get(PATH, headers={"range": "bytes=0-9", "if-range": condition})
    assert answer.status_code == status
    assert answer.content == (CONTENT[:10] if status == 206 else CONTENT)


@pytest.mark.parametrize(
    ("tags", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), ("*", 304), (f'"a", {ETAG} ,"b"', 304), ('"a"', 200), (DIGEST, 200), ("", 200)],
)
def test_what_a_client_has_is_not_sent_again(http: httpx.Client, tags: str, status: int) -> None:
    further = {"range": "bytes=0-9"} if status == 304 else {}
    answer = http.get(PATH, headers={"if-none-match": tags} | further)
    assert (answer.status_code, answer.content) == (status, b"" if status == 304 else CONTENT)
    assert (answer.headers["etag"], answer.headers["cache-control"]) == (ETAG, IMMUTABLE)
    assert ("content-length" in answer.headers) == (status == 200)


def test_an_artifact_of_no_bytes(server: ServerInMemory, http: httpx.Client) -> None:
    path = f"/artifacts/{digest_of(b'')}"
    server.run(server.blobs.put(f"{NAMESPACE}{path}", b""))
    assert (http.get(path).status_code, http.get(path).content) == (200, b"")
    assert http.get(path, headers={"range": "bytes=0-"}).status_code == 416
    assert http.get(path, headers={"range": "bytes=-5"}).status_code == 416


def test_an_artifact_of_several_chunks_is_read_in_order(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COPY_CHUNK_BYTES", 100)
    assert http.get(PATH).content == CONTENT
    assert http.get(PATH, headers={"range": "bytes=99-301"}).content == CONTENT[99:302]


# --- downloads have places ---
def test_a_big_download_takes_a_place_and_a_small_one_does_not(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_COUNTS_BYTES", 1024)
    server.static._downloads = Downloads(most=0)
    answer = http.get(PATH)
    assert refusal(answer, status=503) == "0 downloads are under way; come again later"
    assert answer.headers["retry-after"] == "5"
    assert "cache-control" not in answer.headers
    assert http.get(PATH, headers={"range": "bytes=1-"}).status_code == 206  # a byte less
    assert http.head(PATH).status_code == 200
    server.static._downloads = Downloads(most=1)
    assert [http.get(PATH).status_code for _ in range(2)] == [200, 200]  # a place is given back


def test_downloads_are_counted_by_the_client_that_asks(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_COUNTS_BYTES", 1024)
    server.static._downloads = Downloads(an_address=0)
    assert refusal(http.get(PATH), status=503) == "0 downloads to this address are under way; come again later"
    with server.public(address="127.0.0.1") as proxy:  # brings many clients
        assert proxy.get(PATH).status_code == 200


class Connection:
    """A connection whose client is gone after some chunks."""

    def __init__(self, chunks: int) -> None:
        self.chunks, self.aborted = chunks, 0

    @property
    def gone(self) -> bool:
        self.chunks -= 1
        return self.chunks < 0

    def abort(self) -> None:
        self.aborted += 1


@pytest.mark.parametrize(("takes", "sent", "aborted"), [(0, 0, 1), (3, 300, 1), (99, 1024, 0)])
def test_nothing_is_read_any_more_for_a_client_that_is_gone(
    server: ServerInMemory,
    http: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    takes: int,
    sent: int,
    aborted: int,
) -> None:
    monkeypatch.setattr(limits, "COPY_CHUNK_BYTES", 100)
    connection, messages = Connection(takes), []

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "GET", "headers": [], CONNECTION: connection}
    server.run(server.static.answer(scope, send, namespace=NAMESPACE, path=PATH.lstrip("/")))
    assert server.static.sent.artifact_bytes == sent
    assert connection.aborted == aborted
    assert (messages[-1] == {"type": "http.response.body", "body": b""}) == (aborted == 0)


# --- documents ---
def test_a_signed_document_never_changes_and_the_timestamp_does(http: httpx.Client) -> None:
    for path, caching in ((TIMESTAMP, BRIEF), ("/metadata/1.root.json", IMMUTABLE)):
        answer = http.get(path, headers={"accept-encoding": "identity"})
        assert answer.status_code == 200
        assert dict(answer.headers) == {
            "cache-control": caching,
            "etag": f'"{digest_of(answer.content)[:32]}"',
            "vary": "accept-encoding",
            "content-length": str(len(answer.content)),
            "content-type": "application/json",
        }


def test_a_document_is_compressed_for_who_accepts_it(server: ServerInMemory, http: httpx.Client) -> None:
    plain = http.get("/metadata/1.root.json", headers={"accept-encoding": "identity"})
    sent = server.static.sent.document_bytes
    assert (sent, "content-encoding" in plain.headers) == (len(plain.content), False)
    for accepted in ("gzip", "br, gzip;q=0.5"):
        zipped = http.get("/metadata/1.root.json", headers={"accept-encoding": accepted})
        assert zipped.content == plain.content
        assert zipped.headers["content-encoding"] == "gzip"
        assert int(zipped.headers["content-length"]) == len(gzip.compress(plain.content, 9, mtime=0)) < sent
        assert zipped.headers["etag"] == plain.headers["etag"]
    assert server.static.sent.document_bytes == sent + 2 * int(zipped.headers["content-length"])
    assert server.static.sent.artifact_bytes == 0


@pytest.mark.parametrize(("form", "status"), [("{}", 304), ("W/{}", 304), ("*", 304), ('"other"', 200)])
def test_a_document_that_a_client_has_is_not_sent_again(http: httpx.Client, form: str, status: int) -> None:
    etag = http.get(TIMESTAMP).headers["etag"]
    answer = http.get(TIMESTAMP, headers={"if-none-match": form.format(etag)})
    assert answer.status_code == status
    assert (answer.headers["etag"], answer.headers["cache-control"]) == (etag, BRIEF)
    assert (answer.content == b"") == (status == 304)


def test_the_head_of_a_document_has_its_length(http: httpx.Client) -> None:
    head, whole = http.head(TIMESTAMP), http.get(TIMESTAMP)
    assert (head.status_code, head.content, head.headers) == (200, b"", whole.headers)


def test_the_timestamp_is_read_again_after_a_moment_and_other_documents_never(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(static.time, "monotonic", lambda: now)
    before = {path: http.get(path).json() for path in (TIMESTAMP, "/metadata/1.root.json")}
    for path in before:
        server.run(server.blobs.put(f"{NAMESPACE}{path}", b"{}"))
    now += 0.19
    assert http.get(TIMESTAMP).json() == before[TIMESTAMP]
    now += 0.02
    assert http.get(TIMESTAMP).json() == {}
    assert http.get("/metadata/1.root.json").json() == before["/metadata/1.root.json"]


def test_documents_of_longest_ago_are_forgotten_first(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEPT_DOCUMENTS", 2)
    names = [f"/metadata/{number}.note.json" for number in range(3)]
    for name in names:
        server.run(server.blobs.put(f"{NAMESPACE}{name}", b'"first"'))
    for name in (names[0], names[1], names[0], names[2]):
        http.get(name).raise_for_status()
    for name in names:
        server.run(server.blobs.put(f"{NAMESPACE}{name}", b'"second"'))
    assert [http.get(names[n]).json() for n in (0, 2, 1)] == ["first", "first", "second"]


def test_documents_in_memory_have_a_limit_in_bytes(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = len(b'"first."') + len(gzip.compress(b'"first."', 9, mtime=0))
    monkeypatch.setattr(limits, "KEPT_DOCUMENT_BYTES", 2 * one)
    names = [f"/metadata/{number}.note.json" for number in range(3)]
    for name in names:
        server.run(server.blobs.put(f"{NAMESPACE}{name}", b'"first."'))
    for name in names[:2]:
        http.get(name).raise_for_status()
    for name in names:
        server.run(server.blobs.put(f"{NAMESPACE}{name}", b'"second"'))
    assert [http.get(name).json() for name in names[:2]] == ["first."] * 2
    assert http.get(names[2]).json() == "second"
    assert [http.get(names[n]).json() for n in (1, 2, 0)] == ["first.", "second", "second"]


# --- nothing there ---
@pytest.mark.parametrize(
    "path",
    [
        f"/artifacts/{'0' * 64}",
        "/metadata/99.root.json",
        f"/targets/wake/{'0' * 64}.line.json",
    ],
)
def test_what_is_not_there_is_404_and_kept_for_a_moment(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert refusal(answer, status=404) == f"there is no {NAMESPACE}{path}"
    assert answer.headers["cache-control"] == BRIEF
    assert answer.headers["content-type"] == "application/problem+json"
    head = http.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (404, b"", str(len(answer.content)))


@pytest.mark.parametrize(
    "path",
    [
        "/artifacts/abc",
        f"/artifacts/{DIGEST}/",
        f"/artifacts/{DIGEST.upper()}",
        f"/artifacts/{DIGEST}%0A",
        f"/artifacts/{DIGEST}.upload",
        "/metadata/..%2Fx.json",
        "/metadata/a/../1.root.json",
        "/metadata/%2e%2e%2fwhimbrel.db.json",
        "/metadata/..json",
        "/metadata/1.root.json%00",
        "/metadata/1.root.json%0A",
        "/metadata/1.root.txt",
        f"/metadata/{'x' * 201}.json",
        f"/targets/{'0' * 64}.line.json",
        f"/targets/a/b/c/{'0' * 64}.line.json",
        f"/targets/wake/{'0' * 63}.line.json",
        f"/targets/../{'0' * 64}.line.json",
        f"/targets/wake/{'0' * 64}...json",
    ],
)
def test_a_path_that_leads_elsewhere_is_nothing_at_all(server: ServerInMemory, path: str) -> None:
    scope = {"type": "http", "method": "GET", "path": unquote(f"/{NAMESPACE}{path}"), "headers": []}
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    server.run(server.devices(scope, send, send))
    assert messages[0]["status"] == 404
    assert b"there is nothing at this path" in messages[1]["body"]


@pytest.mark.parametrize("path", ["/", "/default", "/default/", "/default/secrets/x", "/Default/metadata/1.root.json"])
def test_other_paths_are_nothing_and_say_where_to_read(server: ServerInMemory, path: str) -> None:
    with server.client(server.devices, base="") as http:
        answer = http.get(path)
    assert refusal(answer, status=404) == "there is nothing at this path; see docs/reference/http.md"


def test_one_namespace_does_not_reach_into_another(server: ServerInMemory, http: httpx.Client) -> None:
    with server.client(server.devices, base="/other") as other:
        assert other.get(PATH).status_code == 404
        assert other.get(TIMESTAMP).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [PATH, TIMESTAMP, "/metadata/none"])
def test_files_are_only_fetched(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert refusal(answer, status=405) == f"{method} is not possible here; use GET or HEAD"
    assert answer.json()["title"] == "Not supported here"
    assert "cache-control" not in answer.headers


def test_a_store_that_does_not_answer_is_503(server: ServerInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(path: str) -> bytes:
        raise Unavailable("the store does not answer")

    monkeypatch.setattr(server.blobs, "get", fails)
    answer = server.public().get(TIMESTAMP)
    assert refusal(answer, status=503) == "the store does not answer"
    assert answer.headers["retry-after"] == "5"
    assert "cache-control" not in answer.headers


# --- the listener's own ---
def test_a_probe_is_answered_without_the_database(server: ServerInMemory) -> None:
    with server.client(server.devices, base="") as http:
        answer = http.get("/healthz")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"ok\n", "text/plain")


def test_a_bug_is_500_and_tells_nobody_more_than_its_kind(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(path: str) -> bytes:
        raise ZeroDivisionError("secret words")

    monkeypatch.setattr(server.blobs, "get", breaks)
    answer = server.public().get(TIMESTAMP)
    assert refusal(answer, status=500) == "ZeroDivisionError; see the server's log"
    assert caplog.messages == ["a request failed"]


def test_an_answer_that_breaks_half_way_is_cut(
    server: ServerInMemory, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(path: str, *, start: int, end: int) -> Any:
        yield CONTENT[:10]
        raise ZeroDivisionError

    monkeypatch.setattr(server.blobs, "read", breaks)
    with pytest.raises(ZeroDivisionError):
        http.get(PATH)


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.1"])
def test_an_address_has_so_many_requests_under_way_and_a_proxy_many(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(limits, "REQUESTS_AN_ADDRESS", 0)
    answer = server.public(address=address).get(TIMESTAMP)
    if address == "127.0.0.1":
        assert answer.status_code == 200
    else:
        assert refusal(answer, status=503) == "0 requests of this address are under way; come again later"
        monkeypatch.setattr(limits, "REQUESTS_AN_ADDRESS", 1)
        assert [server.public(address=address).get(TIMESTAMP).status_code for _ in range(3)] == [200] * 3


def test_what_is_no_request_of_http_is_not_answered(server: ServerInMemory) -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("it was answered")

    server.run(server.devices({"type": "websocket"}, never, never))
