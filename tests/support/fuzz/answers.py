"""HTTP answers as an agent reads them: a status, headers, a body; of documents, artifacts, and errors.

The first byte is the status, then come lines of headers, an empty line, and the body.
"""

from collections.abc import Iterator
from contextlib import suppress

from whimbrel.agent.answers import check_artifact, check_document, coding_of, excerpt, is_page, is_problem
from whimbrel.agent.backoff import check_patience
from whimbrel.device.ports import Answer
from whimbrel.errors import WhimbrelError
from whimbrel.model.release import File

_STATUSES = (200, 206, 304, 401, 403, 404, 416, 429, 503, 507)
_FILE = File(name="model.onnx", size_bytes=100, sha256="a" * 64, format="onnx")
_URL = "https://models.example.com/default/artifacts/a"


class _Stream(Answer, frozen=True):
    def chunks(self) -> Iterator[bytes]:
        yield self.body


def read(content: bytes) -> None:
    status = _STATUSES[content[0] % len(_STATUSES)] if content else 200
    head, _, body = content[1:].partition(b"\n\n")
    lines = (line.partition(b":") for line in head.split(b"\n")[:32])
    headers = {name.decode("latin-1").strip().lower(): value.decode("latin-1").strip() for name, _, value in lines}
    answer = _Stream(status, headers, body)
    is_page(headers, body[:64])
    coding_of(headers)
    is_problem(answer)
    excerpt(answer).encode()
    with suppress(WhimbrelError):
        check_document(_URL, answer)
    for now in (0.0, 1_800_000_000.0):
        with suppress(WhimbrelError):
            check_patience(_URL, answer, now=now)
    for have in (0, 40):
        with suppress(WhimbrelError):
            end = check_artifact(_URL, answer, _FILE, have=have, etag='"1"')
            if not have * (status == 206) < end <= _FILE.size_bytes:
                raise AssertionError(f"an answer about byte {have} ends at byte {end} of {_FILE.size_bytes}")


def seeds() -> Iterator[bytes]:
    yield b'\x00content-type: application/json\netag: "1"\n\n{"signed": {}}'
    yield b'\x01content-range: bytes 40-99/100\ncontent-length: 60\netag: "1"\n\n'
    yield b"\x01content-range: bytes 40-99/*\ncontent-encoding: aws-chunked\n\n"
    yield b"\x08retry-after: 120\n\nbusy"
    yield b"\x07retry-after: Fri, 31 Dec 2027 23:59:59 GMT\n\n"
    yield b'\x04content-type: application/problem+json\n\n{"title": "no", "detail": "blocked"}'
    yield b"\x00content-type: text/html; charset=utf-8\n\n<!DOCTYPE html><title>sign in</title>"
