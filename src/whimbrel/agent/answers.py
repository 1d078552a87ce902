"""Is an answer the server's, or does it come from somebody on the way: a captive portal, a proxy, a cache?

1. A body counts only when it fits what was asked: its type, its length, its ETag, its range, its first bytes.
2. What does not fit is a `Misfit`: nothing of it is kept, another mirror is asked, and later the same one again. It
   says nothing about the version that was asked for.
3. A `Content-Encoding` that changes no byte (none, `identity` in any case, `aws-chunked` of S3's clients) is none.
"""

import re
from collections.abc import Mapping

import msgspec

from whimbrel.device.ports import Answer, Stream
from whimbrel.errors import Unavailable
from whimbrel.model.release import File

SNIFFED_BYTES = 64  # of a body's beginning: a page says so in less

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)\Z")
_DIGEST_TAG = re.compile(r'^"([0-9a-f]{64})"\Z')  # our server's ETag of an artifact
_PAGE = re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype|!--|\?xml|html|head|body|meta|title|script)", re.IGNORECASE)
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_NO_CODING = frozenset({"", "identity", "aws-chunked"})


class Misfit(Unavailable):
    """What came is no answer to what was asked."""


def is_page(headers: Mapping[str, str], first: bytes = b"") -> bool:
    """Whether a body is a page for people, by its type or its first bytes."""
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    return kind in _PAGE_TYPES or _PAGE.match(first) is not None


def coding_of(headers: Mapping[str, str]) -> str:
    """How a body was packed on the way: "" where it is as it was, "gzip", or another word."""
    words = [word.strip().lower() for word in headers.get("content-encoding", "").split(",")]
    codings = ["gzip" if word == "x-gzip" else word for word in words if word not in _NO_CODING]
    return ", ".join(codings)


def is_problem(answer: Answer) -> bool:
    """Whether an error is the server's own word: a problem document (RFC 9457). Anybody may answer 401 or 413."""
    return isinstance(_object(answer).get("title"), str)


def _object(answer: Answer) -> dict[str, object]:
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return body if isinstance(body, dict) else {}


def _detail(answer: Answer) -> str:
    """The sentence of a problem document; "" where there is none."""
    detail = _object(answer).get("detail") if is_problem(answer) else None
    return detail[:300] if isinstance(detail, str) else ""


def excerpt(answer: Answer) -> str:
    """What an answer says, for a message."""
    if is_page(answer.headers, answer.body[:SNIFFED_BYTES]):
        return "a page for people; something on the way (a sign-in page, a proxy) answers instead of the server"
    return _detail(answer) or answer.body[:300].decode("utf-8", "replace")


def check_document(url: str, answer: Answer) -> None:
    """Raise `Misfit` where a 200 brings no JSON object: all signed documents are such."""
    if answer.status == 200 and (is_page(answer.headers) or answer.body.lstrip()[:1] != b"{"):
        raise Misfit(f"{url} answered 200 with what is no signed document: {excerpt(answer)[:120]}")


def check_artifact(url: str, answer: Stream, file: File, *, have: int, etag: str) -> int:
    """The offset behind the last byte of an answer 200 or 206 about `file`, of which `have` bytes are here.

    `etag`: the one that this server gave for these bytes. Raises `Misfit`.
    """
    headers = answer.headers
    if is_page(headers):
        raise Misfit(f"{url} answered with a page for people; something on the way answers instead of the server")
    if coding := coding_of(headers):
        raise Misfit(f"{url} was compressed on the way ({coding}); artifacts must come as they are")
    tag = headers.get("etag", "")
    digest = _DIGEST_TAG.match(tag)
    if digest and digest[1] != file.sha256:
        raise Misfit(f"{url} answered with the ETag of another file: {tag}")
    first, end = (0, file.size_bytes) if answer.status == 200 else _range_of(url, answer, file, have)
    if answer.status == 206 and etag and tag and tag != etag and not tag.startswith("W/"):
        raise Misfit(f"{url} went on with other bytes: their ETag is {tag}; before it was {etag}")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > end - first:
        raise Misfit(f"{url} is longer than the {end - first} bytes that the release says: it has {length}")
    if length.isdecimal() and int(length) < end - first:
        raise Misfit(f"{url} has {length} bytes; the release says {end - first}, so it is another file")
    return end


def _range_of(url: str, answer: Stream, file: File, have: int) -> tuple[int, int]:
    found = answer.headers.get("content-range", "")
    match = _CONTENT_RANGE.match(found)
    if match is not None:
        first, last, total = int(match[1]), int(match[2]), match[3]
        if first == have <= last < file.size_bytes and total in {"*", str(file.size_bytes)}:
            return first, last + 1
    raise Misfit(f"{url} sent another range than was asked for: {found!r}; expected one from byte {have}")
