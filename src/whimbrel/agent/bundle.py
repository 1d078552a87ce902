"""A bundle brings versions without a network: a zip file, not compressed, with the paths of the static server.

1. It is a `Network` for as long as it is imported; every check is the same. Nothing in it is believed for being in it.
2. Signed metadata on a stick is as old as the journey took: what expired while it travelled counts, up to
   `BUNDLE_AGE_S` after its timestamp was signed. What the device has seen is never gone below.
"""

import io
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from whimbrel import limits
from whimbrel.device.ports import Answer, Network, Stream
from whimbrel.errors import Unavailable, UntrustedInput, reason_of
from whimbrel.model import documents
from whimbrel.trust import roles
from whimbrel.trust.sealing import BundledKeys, SealedReleaseKey

_PLACE = re.compile(r"/((?:metadata|targets|artifacts)/[^?#]+)\Z")
# What zipfile raises for a file that is none, is cut, or asks for what it does not know.
_NO_ZIP = (OSError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, OverflowError)
_POLICY = re.compile(r"^metadata/\d+\.policy-(.+)\.json$")  # `roles.policy_role`


class _BoundedFile(io.BufferedReader):
    """Reads no piece that is larger than a bundle's list of files may be. Zipfile reads that list at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(0, os.fstat(self.fileno()).st_size - self.tell())
        if size > limits.BUNDLE_LIST_BYTES:
            raise zipfile.BadZipFile(f"its list of files has {size} bytes; at most {limits.BUNDLE_LIST_BYTES} are read")
        return super().read(size)


class _Body:
    def __init__(self, status: int, pieces: Iterator[bytes]) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self._pieces = pieces

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces


class Bundle:
    """A `Network` of what the file at `path` holds. Raises `UntrustedInput` for a file that is no bundle."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = _BoundedFile(io.FileIO(path))
        except OSError as error:
            raise UntrustedInput(
                f"{path} is no bundle: {reason_of(error)}; make one with `whimbrel bundle export`"
            ) from error
        try:
            self._read_list(path)
        except BaseException:
            self._file.close()
            raise

    def _read_list(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._members = {each.filename: each for each in self._zip.infolist()}
        except _NO_ZIP as error:
            raise UntrustedInput(
                f"{path} is no bundle: {reason_of(error)}; make one with `whimbrel bundle export`"
            ) from error
        if len(self._zip.infolist()) > limits.BUNDLE_ENTRIES:
            raise UntrustedInput(
                f"{path} holds {len(self._zip.infolist())} files; a bundle has at most {limits.BUNDLE_ENTRIES}: export "
                "fewer models into one"
            )
        if any(each.compress_type != zipfile.ZIP_STORED for each in self._members.values()):
            raise UntrustedInput(
                f"{path} is no bundle: its files are compressed; make one with `whimbrel bundle export`"
            )
        if "metadata/timestamp.json" not in self._members:
            raise UntrustedInput(f"{path} is no bundle: it has no metadata/timestamp.json")

    @property
    def models(self) -> frozenset[str]:
        """What it says that it is about."""
        return frozenset(found[1] for name in self._members if (found := _POLICY.match(name)))

    def as_of(self, now: float) -> float:
        """The time to judge it by: `now`, or while it was valid. Raises `UntrustedInput` where it is too old."""
        content = self._read(self._members["metadata/timestamp.json"], limits.DOCUMENT_BYTES)
        timestamp = documents.parse(dict[str, Any], content, what="the bundle's timestamp")
        try:
            expires = datetime.fromisoformat(timestamp["signed"]["expires"]).timestamp()
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UntrustedInput(f"the bundle's timestamp cannot be read: {error}") from error
        signed = expires - roles.TIMESTAMP_LIFE.total_seconds()
        if now - signed > limits.BUNDLE_AGE_S:
            days = (now - signed) / 86400
            raise UntrustedInput(
                f"the bundle was signed {days:.0f} days ago; at most {limits.BUNDLE_AGE_S / 86400:.0f} are taken: "
                "export it anew"
            )
        return min(now, expires - 1)

    def release_key(self, model: str, serial: int, *, device_id: str) -> SealedReleaseKey | None:
        """The key of a sealed release, as it was sealed to a device; None where the bundle holds none for it."""
        member = self._members.get(f"release-keys/{model}.json")
        if member is None:
            return None
        content = self._read(member, limits.DOCUMENT_BYTES)
        keys = documents.parse(BundledKeys, content, what="the bundle's release keys").keys.get(device_id, ())
        return next((each for each in keys if (each.model, each.serial) == (model, serial)), None)

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()
        self._file.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,  # noqa: ARG002 (the port's names)
        body: bytes | None = None,  # noqa: ARG002
        bytes_max: int,
    ) -> Answer:
        """A GET of what it holds; 404 for anything else of the static server."""
        if method != "GET":
            raise Unavailable("nothing is told while a bundle is imported")
        member = self._member(url)
        return Answer(404, {}) if member is None else Answer(200, {}, self._read(member, bytes_max))

    @contextmanager
    def stream(self, url: str, *, headers: dict[str, str]) -> Iterator[_Body]:  # noqa: ARG002
        """A GET, from its beginning."""
        member = self._member(url)
        yield _Body(404, iter(())) if member is None else _Body(200, self._pieces(member))

    def _member(self, url: str) -> zipfile.ZipInfo | None:
        match = _PLACE.search(url)
        return self._members.get(match[1]) if match else None

    def _read(self, member: zipfile.ZipInfo, bytes_max: int) -> bytes:
        if member.file_size > bytes_max:
            raise UntrustedInput(f"the bundle's {member.filename} has {member.file_size} bytes; at most {bytes_max}")
        return b"".join(self._pieces(member))

    def _pieces(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._zip.open(member) as file:
                while chunk := file.read(limits.COPY_CHUNK_BYTES):
                    yield chunk
        except _NO_ZIP as error:
            raise Unavailable(f"the bundle's {member.filename} cannot be read: {error}") from error


def models_of(path: Path) -> list[str]:
    """The models that the bundle at `path` says that it is about. Raises `UntrustedInput`."""
    bundle = Bundle(path)
    try:
        return sorted(bundle.models)
    finally:
        bundle.close()


class Switched:
    """A `Network` that is a bundle for a while."""

    def __init__(self, network: Network) -> None:
        self._network: Network = network
        self._bundle: Bundle | None = None

    @property
    def offline(self) -> bool:
        """Whether a bundle stands in."""
        return self._bundle is not None

    def knows(self, model: str) -> bool:
        """Whether anything of `model` can be asked for now."""
        return self._bundle is None or model in self._bundle.models

    def release_key(self, model: str, serial: int, *, device_id: str) -> SealedReleaseKey | None:
        """The key of a sealed release that the bundle brings, if one stands in."""
        return None if self._bundle is None else self._bundle.release_key(model, serial, device_id=device_id)

    @contextmanager
    def through(self, bundle: Bundle) -> Iterator[None]:
        """Everything comes from `bundle` until the block ends."""
        self._bundle = bundle
        try:
            yield
        finally:
            self._bundle = None

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        bytes_max: int,
    ) -> Answer:
        """See the port."""
        return (self._bundle or self._network).ask(method, url, headers=headers, body=body, bytes_max=bytes_max)

    @contextmanager
    def stream(self, url: str, *, headers: dict[str, str]) -> Iterator[Stream]:
        """See the port."""
        network: Network = self._bundle or self._network
        with network.stream(url, headers=headers) as answer:
            yield answer
