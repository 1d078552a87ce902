"""What devices send, as the server reads it: enrolments, credentials, checks, announcements, batches, also as gzip."""

import asyncio
import atexit
import gzip
from collections.abc import Iterator
from functools import cache
from typing import Any

from vectors.test_documents import ANNOUNCEMENT, BATCH
from whimbrel import limits
from whimbrel.errors import WhimbrelError
from whimbrel.model.documents import encode, parse
from whimbrel.server.http import read_body
from whimbrel.trust.enrolment import Check, Credential, Enrolment

_VALUES: tuple[Any, ...] = (
    BATCH,
    ANNOUNCEMENT,
    Enrolment(device_id="dev-1", enrol_token="t" * 32, labels={"hardware": "pi3"}, models=("wake",)),
    Credential(device_id="dev-1", credential="c" * 32),
    Check(models={"wake": 2, "sleep": None}, labels={"hardware": "pi3"}),
)


def read(content: bytes) -> None:
    number = content[0] if content else 0
    kind = type(_VALUES[number % len(_VALUES)])
    try:
        value = parse(kind, _body(content[1:], packed=number > 127), what="what a device sent")
    except WhimbrelError:
        return
    if parse(kind, encode(value), what="the same") != value:
        raise AssertionError(f"{value!r} is another value after it was written and read")


def _body(content: bytes, *, packed: bool) -> bytes:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    scope = {"headers": [(b"content-encoding", b"gzip")] if packed else []}
    return _loop().run_until_complete(read_body(scope, receive, limit=limits.DOCUMENT_BYTES))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def seeds() -> Iterator[bytes]:
    for number, value in enumerate(_VALUES):
        yield bytes([number]) + encode(value)
        packed = next(each for each in range(128, 256) if each % len(_VALUES) == number)
        yield bytes([packed]) + gzip.compress(encode(value), mtime=0)
