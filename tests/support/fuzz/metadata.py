"""TUF metadata as our client reads it. The first byte names the role whose file is replaced.

A `signed` part that is JSON gets the signature of the right key, so that what a thief of each key can write is tried,
and not only that a wrong signature is noticed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical

from support.repository import Repository
from whimbrel.agent.tuf_client import TrustClient
from whimbrel.device.ports import Answer, Stream
from whimbrel.errors import InvariantBroken, WhimbrelError
from whimbrel.sim.disk import ModelledDisk
from whimbrel.trust import roles

_MODEL = "detector"
_ROLES = (
    roles.TIMESTAMP,
    roles.SNAPSHOT,
    roles.TARGETS,
    roles.ROOT,
    roles.publisher_role(_MODEL),
    roles.policy_role(_MODEL),
    roles.floor_role(_MODEL),
)


@cache
def _repository() -> Repository:
    made = Repository((_MODEL,))
    made.release(_MODEL, 1, b"a model")
    made.floor(_MODEL)
    made.policy(_MODEL, baseline=1)
    return made


class _Memory:
    """A network that has the repository's files, and one of its own."""

    def __init__(self, path: str, content: bytes) -> None:
        self._files = {**_repository().files, path: content}

    def ask(self, method: str, url: str, **more: Any) -> Answer:
        content = self._files.get(url.partition("/default/")[2])
        return Answer(404, {}) if content is None else Answer(200, {"etag": '"1"'}, content)

    @contextmanager
    def stream(self, url: str, *, headers: dict[str, str]) -> Iterator[Stream]:
        raise InvariantBroken(f"{url}: no artifact is asked for")
        yield


def read(content: bytes) -> None:
    repository = _repository()
    role = _ROLES[content[0] % len(_ROLES)] if content else roles.TIMESTAMP
    network = _Memory(_path_of(role), _signed(role, content[1:]))
    disk, folder = ModelledDisk(), Path("/device/trust")
    disk.make_folder(folder)
    client = TrustClient(
        folder,
        url="http://server/default",
        root=repository.root_bytes,
        models=(_MODEL,),
        disk=disk,
        network=network,
    )
    now = repository.now.timestamp()
    try:
        client.refresh(now)
        client.release(_MODEL, 1, now)
        client.deltas(_MODEL, 1, now)
    except InvariantBroken:
        raise
    except WhimbrelError:
        return
    client.refresh(now + 1)


def seeds() -> Iterator[bytes]:
    for number, role in enumerate(_ROLES):
        path = _path_of(role)
        content = _repository().files.get(path) or _repository().root_bytes
        yield bytes([number]) + json.dumps(json.loads(content)["signed"]).encode()
        yield bytes([number]) + content


def _path_of(role: str) -> str:
    repository = _repository()
    if role == roles.TIMESTAMP:
        return "metadata/timestamp.json"
    if role == roles.ROOT:
        return f"metadata/{repository.root.version + 1}.root.json"
    snapshot = repository.snapshot
    version = snapshot.version if role == roles.SNAPSHOT else snapshot.meta[f"{role}.json"].version
    return f"metadata/{version}.{role}.json"


def _signed(role: str, content: bytes) -> bytes:
    try:
        signed = json.loads(content)
        if "signed" in signed:
            return content
        signature = _repository().signers[role].sign(encode_canonical(signed).encode())
    except (ValueError, TypeError, RecursionError, FormatError, AttributeError):
        return content
    return json.dumps({"signatures": [signature.to_dict()], "signed": signed}).encode()
