"""Bundles (zip) and packed folders (tar), as an agent reads them from a stick and from a server."""

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.bundle import Bundle
from whimbrel.errors import WhimbrelError
from whimbrel.packing import unpack

_NOW = 1_800_000_000.0
_TIMESTAMP = b'{"signed": {"expires": "2027-01-16T00:00:00Z"}}'


def read(content: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="whimbrel-fuzz-") as name:
        path, out = Path(name) / "given", Path(name) / "out"
        path.write_bytes(content)
        with suppress(WhimbrelError):
            unpack(path, out)
        if {each.name for each in Path(name).iterdir()} - {"given", "out"}:
            raise AssertionError("an archive wrote beside its folder")
        with suppress(WhimbrelError):
            bundle = Bundle(path)
            try:
                _use(bundle)
            finally:
                bundle.close()


def _use(bundle: Bundle) -> None:
    with suppress(WhimbrelError):
        bundle.as_of(_NOW)
    for name in sorted(bundle.models)[:4]:
        name.encode()
    for path in ("metadata/timestamp.json", "metadata/1.root.json"):
        with suppress(WhimbrelError):
            bundle.ask("GET", f"http://server/default/{path}", bytes_max=limits.MIB)
    with (
        suppress(WhimbrelError),
        bundle.stream(f"http://server/default/artifacts/{'a' * 64}", headers={}) as answer,
    ):
        for _ in answer.chunks():
            pass


def seeds() -> Iterator[bytes]:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as bundle:
        for path, body in (
            ("metadata/timestamp.json", _TIMESTAMP),
            ("metadata/2.policy-wake.json", b"{}"),
            (f"artifacts/{'a' * 64}", b"a model"),
        ):
            bundle.writestr(zipfile.ZipInfo(path), body)
    yield content.getvalue()
    for form in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=form) as tar:
            for path in ("model.mlmodel", "weights/weight.bin", f"{'long' * 20}.bin"):
                member = tarfile.TarInfo(path)
                member.size = 5
                tar.addfile(member, io.BytesIO(b"bytes"))
        yield content.getvalue()
