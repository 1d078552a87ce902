"""How do an artifact's bytes come onto this device, also in pieces over many days? HTTP ranges (RFC 9110, section 14).

1. What came is kept in `<sha256>.part`, its ETag beside it; If-Range makes a server that has other bytes start again.
2. 206 goes on, 200 starts again, 416 means that nothing is missing or that what we have is wrong.
3. A body that is longer than the release says is thrown away as soon as it is too long. The hash is checked by the
   caller, over the whole file.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.disk import Disk
from whimbrel.device.ports import Network, Stream
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.release import File

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")


class Download:
    """The folder of partial files, and how they grow."""

    def __init__(self, folder: Path, *, disk: Disk, network: Network, stopped: Callable[[], bool]) -> None:
        self.folder = folder
        self._disk = disk
        self._network = network
        self._stopped = stopped

    def path(self, file: File) -> Path:
        """Where the bytes of `file` are collected."""
        return self.folder / f"{file.sha256}.part"

    def fetch(self, file: File, url: str) -> int:
        """Get what is missing of `file`; the bytes that were moved. The file then has its size, and is not durable.

        Raises `Unavailable` (call again: what came is kept), `UntrustedInput` (what came was thrown away).
        """
        path = self.path(file)
        have = self._disk.size(path) or 0
        if have > file.size_bytes:
            self.discard(file)
            have = 0
        if have == file.size_bytes and self._disk.size(path) is not None:
            return 0
        self._disk.make_folder(self.folder)
        if file.size_bytes == 0:
            self._disk.append(path, b"")
            return 0
        return self._request(file, url, path, have)

    def discard(self, file: File) -> None:
        """Throw away what came of `file`."""
        self._disk.remove(self.path(file))
        self._disk.remove(self._etag_path(file))

    def keep_only(self, digests: set[str]) -> None:
        """Throw away what nobody waits for any more."""
        for name in self._disk.names(self.folder):
            if name.split(".")[0] not in digests:
                self._disk.remove(self.folder / name)

    def _etag_path(self, file: File) -> Path:
        return self.folder / f"{file.sha256}.etag"

    def _request(self, file: File, url: str, path: Path, have: int) -> int:
        headers = {"Accept-Encoding": "identity"}
        etag = (self._disk.read(self._etag_path(file)) or b"").decode("latin-1")
        if have and etag:
            headers |= {"Range": f"bytes={have}-", "If-Range": etag}
        elif have:
            self.discard(file)
            have = 0
        with self._network.stream(url, headers=headers) as answer:
            if answer.status == 416:
                self.discard(file)
                raise Unavailable(f"{url} says that byte {have} is past its end; starting again")
            if answer.status not in {200, 206}:
                raise Unavailable(f"{url} answered {answer.status}; expected 200 or 206")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise UntrustedInput(f"{url} was compressed on the way; artifacts must come as they are")
            if answer.status == 206 and not self._continues(answer, have, file):
                self.discard(file)
                raise Unavailable(f"{url} sent another range than was asked for; starting again")
            if answer.status == 200:
                self.discard(file)
                have = 0
                etag = answer.headers.get("etag", "")
                if etag and not etag.startswith("W/"):  # If-Range wants a strong one
                    self._disk.replace(self._etag_path(file), etag.encode("latin-1", "replace"))
            return self._receive(answer, file, url, path, have)

    @staticmethod
    def _continues(answer: Stream, have: int, file: File) -> bool:
        match = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
        return bool(match) and int(match[1]) == have and match[3] in {"*", str(file.size_bytes)} if match else False

    def _receive(self, answer: Stream, file: File, url: str, path: Path, have: int) -> int:
        moved = 0
        until = time.monotonic() + limits.DOWNLOAD_PASS_S
        try:
            for chunk in answer.chunks():
                if have + moved + len(chunk) > file.size_bytes:
                    self.discard(file)
                    raise UntrustedInput(f"{url} is longer than the {file.size_bytes} bytes that the release says")
                self._disk.append(path, chunk)
                moved += len(chunk)
                if self._stopped() or time.monotonic() > until:
                    break
        except Unavailable as error:
            raise Unfinished(moved, f"{have + moved} of {file.size_bytes} bytes are here; {error}") from error
        if have + moved < file.size_bytes:
            raise Unfinished(moved, f"{have + moved} of {file.size_bytes} bytes of {url} are here")
        return moved


class Unfinished(Unavailable):
    """Some bytes came, and more are missing."""

    def __init__(self, moved: int, message: str) -> None:
        super().__init__(message)
        self.moved = moved
