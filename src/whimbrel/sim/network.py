"""The network between a device and the server: a pool without sockets, and an edge that may give wrong answers.

The agent's own HTTP code runs on top: it gets this as its `PoolManager`. Static files come from the edge, with ETags
and ranges. The product's device API answers what is posted. Each request may meet one fault.
"""

import random
from typing import Any

from urllib3.exceptions import ProtocolError

from whimbrel.sim.backend import Backend
from whimbrel.sim.checkers import Checkers
from whimbrel.sim.faults import LINK, Faults
from whimbrel.sim.world import Timeline

HOST = "https://server.invalid"
_STALE_S = 1800.0  # the oldest timestamp that an edge may serve


class Response:
    """A response as urllib3 has it: a status, headers, and a body that may break off."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, breaks: bool = False) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._breaks = breaks
        self._read = 0

    def read1(self, amt: int, *, decode_content: bool) -> bytes:  # noqa: ARG002 (urllib3's names)
        """The next piece of the body. Empty at its end."""
        if self._read >= len(self._body):
            if self._breaks:
                raise ProtocolError("the connection broke")
            return b""
        piece = self._body[self._read : self._read + min(amt, max(1, len(self._body) // 3))]
        self._read += len(piece)
        return piece

    def release_conn(self) -> None:
        """Do nothing: no connection is held."""

    def close(self) -> None:
        """Do nothing: no connection is held."""


class Link:
    """The network of one device."""

    def __init__(
        self, device_id: str, timeline: Timeline, backend: Backend, faults: Faults, checkers: Checkers
    ) -> None:
        self.down = False
        self.lacks_policy = False  # the edge does not serve the policy's document
        self.lag_s = 0.0
        self._device_id = device_id
        self._timeline = timeline
        self._backend = backend
        self._faults = faults
        self._checkers = checkers
        self._chance: random.Random = timeline.chance(f"link/{device_id}")

    def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None = None, **_: Any
    ) -> Response:
        """Answer a request, as `urllib3.PoolManager.request` does."""
        if self.down:
            raise ProtocolError("there is no network")
        fault = self._fault()
        if fault == "request lost":
            raise ProtocolError("no answer came")
        if fault == "slow":
            self.lag_s += self._chance.uniform(1, 20)
        if fault == "server error":
            return Response(self._chance.choice([500, 502, 503, 429]), {"Retry-After": "30"}, b"<html>sorry</html>")
        path = url.removeprefix(f"{HOST}/")
        answer = self._post(path, headers, body or b"", fault) if method == "POST" else self._get(path, headers, fault)
        if fault == "answer lost":
            raise ProtocolError("the answer did not come")
        return answer

    def _fault(self) -> str:
        for kind in LINK:
            rate = self._faults.rate(kind)
            if rate and self._chance.random() < rate:
                self._timeline.injected[kind] += 1
                return kind
        return ""

    # --- what the device sends ---

    def _post(self, path: str, headers: dict[str, str], body: bytes, fault: str) -> Response:
        name = path.rpartition("/")[2]
        status, answer = self._send(name, headers, body)
        if fault == "said twice":
            self._send(name, headers, body)
        if fault == "said again later" and name in {"reports", "announce"}:
            delay_s = self._chance.uniform(60, 1500)
            self._timeline.after(delay_s, lambda: self._send_again(name, headers, body))
        if fault == "cut short":
            return Response(status, {}, answer[: len(answer) // 2], breaks=True)
        return Response(status, {}, answer)

    def _send_again(self, name: str, headers: dict[str, str], body: bytes) -> None:
        self._send(name, headers, body)

    def _send(self, name: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self._checkers.sent(self._device_id, name, body)
        status, answer = self._backend.answer(name, headers, body)
        if status == 204:
            self._checkers.accepted(self._device_id, name, headers, body)
        return status, answer

    # --- what the device reads ---

    def _get(self, path: str, headers: dict[str, str], fault: str) -> Response:
        edge = self._backend.edge
        content, tag = edge.files.get(path), edge.tags.get(path, "")
        if fault == "not found" and "root.json" not in path:
            content = None
        if self.lacks_policy and "/targets/policy/" in path:
            return Response(self._chance.choice([404, 503]), {}, b"not here")
        if content is None:
            return Response(404, {}, b"not here")
        stale = fault == "stale timestamp" and path.endswith("/timestamp.json")
        if stale:
            old = [body for at, body in edge.timestamps if at >= self._timeline.now - _STALE_S]
            content = self._chance.choice(old) if old else content
            tag = f'"stale-{len(content)}-{content[-40:-30].hex()}"'
            self._checkers.misled(self._device_id)
        if headers.get("If-None-Match") == tag:
            return Response(304, {"ETag": tag}, b"")
        if fault == "bit flipped" and content:
            place = self._chance.randrange(len(content))
            content = (
                content[:place] + bytes([content[place] ^ (1 << self._chance.randrange(8))]) + content[place + 1 :]
            )
        if fault == "too long":
            content += b"x" * self._chance.randrange(1, 2000)
        status, sent = 200, {"ETag": tag}
        if "Range" in headers and headers.get("If-Range") == tag and fault != "range ignored":
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return Response(416, {}, b"")
            sent["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[start:]
        if "/artifacts/" in path:
            self._checkers.carried(self._device_id, path.rpartition("/")[2], len(content))
        if fault == "cut short":
            return Response(status, sent, content[: self._chance.randrange(len(content) + 1)], breaks=True)
        if fault not in {"bit flipped", "too long", "answer lost"}:
            self._checkers.delivered(self._device_id, path, content)
        return Response(status, sent, content)

    def clear(self) -> None:
        """Do nothing: a pool would close its connections here."""
