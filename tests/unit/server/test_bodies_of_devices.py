"""How a body of a device is read: its size from both sides, its coding, and a client that leaves or waits."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterable
from typing import Any

import pytest

from support.server_in_memory import ServerInMemory
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.server.http import Budget, TooLarge, read_body

LIMIT = 1000


def read(chunks: Iterable[bytes], *, disconnects: bool = False, hangs: bool = False, **headers: str) -> bytes:
    """The body that comes in these chunks."""
    waiting = list(chunks)

    async def receive() -> dict[str, Any]:
        if waiting:
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting) or disconnects or hangs}
        if hangs:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return asyncio.run(read_body({"headers": given}, receive, limit=LIMIT, budget=Budget(10**6)))


def said(chunks: Iterable[bytes], kind: type[UntrustedInput] = UntrustedInput, **more: Any) -> tuple[int, str]:
    with pytest.raises(UntrustedInput) as caught:
        read(chunks, **more)
    assert type(caught.value) is kind
    return caught.value.status, str(caught.value)


def test_a_body_is_its_chunks_in_order() -> None:
    assert read([b"one", b"", b"two", b"three"]) == b"onetwothree"
    assert read([b""]) == b""


def test_the_largest_body_and_one_byte_more() -> None:
    assert read([bytes(LIMIT)]) == bytes(LIMIT)
    assert read([bytes(LIMIT - 1), b"x"]) == bytes(LIMIT - 1) + b"x"
    too_large = 413, "the body is over 1000 bytes; send less at once"
    assert said([bytes(LIMIT + 1)], TooLarge) == too_large
    assert said([bytes(LIMIT), b"x"], TooLarge) == too_large
    assert TooLarge.title == "Too large"


def test_a_length_that_is_promised_is_believed_before_a_byte_is_read() -> None:
    assert read([b"x"], content_length=str(LIMIT)) == b"x"
    assert said([], TooLarge, content_length=str(LIMIT + 1)) == (413, "the body has 1001 bytes; at most 1000 are taken")
    assert read([b"x"], content_length="-5") == b"x"
    assert read([b"x"], content_length="many") == b"x"


def test_a_compressed_body_has_the_limit_before_and_after() -> None:
    assert read([gzip.compress(bytes(LIMIT))], content_encoding="gzip") == bytes(LIMIT)
    assert said([gzip.compress(bytes(LIMIT + 1))], TooLarge, content_encoding="gzip") == (
        413,
        "the body unpacks to more than 1000 bytes",
    )
    assert read([b"plain"], content_encoding="identity") == b"plain"


@pytest.mark.parametrize(
    "body", [b"plain", b"", gzip.compress(b"text")[:-4], gzip.compress(b"text")[:-9] + b"x" * 9, zlib.compress(b"text")]
)
def test_what_is_not_gzip_is_refused(body: bytes) -> None:
    if body == b"":  # an empty file of no members is an empty body
        assert read([body], content_encoding="gzip") == b""
        return
    status, sentence = said([body], content_encoding="gzip")
    assert status == 400
    assert sentence.startswith("the body is not gzip: ")


def test_another_coding_is_refused_by_its_name() -> None:
    assert said([b"x"], content_encoding="br") == (
        400,
        "Content-Encoding 'br' is not understood; use gzip or none",
    )


def test_a_client_that_leaves_or_waits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said([b"x"], disconnects=True) == (400, "the connection closed before the body was complete")
    monkeypatch.setattr(limits, "DEVICE_BODY_S", 0.01)
    assert said([b"x"], hangs=True) == (400, "the body did not come within 0.01 s")


def test_every_body_gives_its_room_back() -> None:
    budget = Budget(LIMIT)

    async def body(content: bytes, *, then: str) -> None:
        parts: list[dict[str, Any]] = [{"type": "http.request", "body": content, "more_body": then != ""}]

        async def receive() -> dict[str, Any]:
            return parts.pop(0) if parts else {"type": then}

        await read_body({"headers": []}, receive, limit=LIMIT, budget=budget)

    for then in ("", "http.disconnect", ""):
        try:
            asyncio.run(body(bytes(LIMIT), then=then))
        except UntrustedInput:
            assert then
    budget.take(LIMIT)


@pytest.mark.parametrize("name", ["challenge", "enrol", "token", "reports", "announce", "check", "release-key"])
def test_every_request_of_devices_has_the_limit(server: ServerInMemory, name: str) -> None:
    most = limits.DEVICE_BODY_BYTES
    with server.public() as http:
        for size, status in ((most, {400, 401}), (most + 1, {413})):
            content = json.dumps({"x": ""}).encode()
            content = content[:-2] + b"x" * (size - len(content)) + content[-2:]
            answer = http.post(f"/device/v1/{name}", content=content)
            assert answer.status_code in status, answer.text
    assert answer.json()["detail"] == f"the body has {most + 1} bytes; at most {most} are taken"
