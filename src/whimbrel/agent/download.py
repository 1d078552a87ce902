"""How do an artifact's bytes come onto this device, also in pieces over many days? HTTP ranges (RFC 9110, section 14).

1. What came is kept in `<sha256>.part`; where from and its ETag beside it. If-Range makes a server that has other bytes
   start again; where there is no strong ETag, and at another mirror, it is asked without: the name is the hash.
2. 206 goes on, 200 starts again, 416 means that nothing is missing or that what we have is wrong. To a server that
   starts again and again, for it knows no ranges, ever longer passes are given, or it would never come to an end.
3. A body that is longer than the release says is thrown away as soon as it is too long. The hash is checked by the
   caller, over the whole file.
4. A mirror that fails gives way to the next one at once; the bytes that came stay.
5. What a bundle holds comes at once and to its end: there is no later, and no network whose bytes anybody counts.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from whimbrel import limits
from whimbrel.agent.allowance import Allowance
from whimbrel.agent.backoff import check_patience
from whimbrel.agent.disk import Disk
from whimbrel.agent.mirrors import Mirrors
from whimbrel.device.ports import Network, Stream
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.release import File

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")


class Download:
    """The folder of partial files, and how they grow. `moved`: bytes that came since it was made."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        network: Network,
        mirrors: Mirrors,
        allowance: Allowance,
        stopped: Callable[[], bool],
        offline: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self._disk = disk
        self._network = network
        self._mirrors = mirrors
        self._allowance = allowance
        self._stopped = stopped
        self._offline = offline
        self._now = now
        self._monotonic = monotonic
        self._from: dict[str, str] = {}  # digest -> the last base URL that gave bytes of it
        self.moved = 0

    def path(self, file: File) -> Path:
        """Where the bytes of `file` are collected."""
        return self.folder / f"{file.sha256}.part"

    def left_today(self) -> int | None:
        """Bytes that may still be fetched today; None without a bound."""
        return self._allowance.begin()

    def fetch(self, file: File) -> None:
        """Get what is missing of `file`. It then has its size, and is not durable.

        Raises `Unavailable` (call again: what came is kept; `Unfinished` where more is here than before),
        `UntrustedInput` (what came was thrown away).
        """
        path = self.path(file)
        have = self._disk.size(path) or 0
        if have > file.size_bytes:
            self.discard(file)
            have = 0
        if have == file.size_bytes and self._disk.size(path) is not None:
            return
        self._disk.make_folder(self.folder)
        if file.size_bytes == 0:
            self._disk.append(path, b"")
            return
        try:
            self._from_mirrors(file, path)
        except Unavailable as error:
            if not isinstance(error, Paused) and (self._disk.size(path) or 0) > have:
                raise Unfinished(str(error)) from error
            raise
        finally:
            self._allowance.end()

    def discard(self, file: File) -> None:
        """Throw away what came of `file`."""
        self._disk.remove(self.path(file))
        self._disk.remove(self._etag_path(file))

    def refuse(self, file: File) -> None:
        """Throw away what came of `file`, because its hash is wrong; who sent it is asked last for a while."""
        base = self._from.pop(file.sha256, None)
        if base is not None:
            self._mirrors.failed(base, UntrustedInput(f"{base} sent {file.sha256} with a wrong hash"))
        self.discard(file)

    def keep_only(self, digests: set[str]) -> None:
        """Throw away what nobody waits for any more."""
        for name in self._disk.names(self.folder):
            if name.split(".")[0] not in digests:
                self._disk.remove(self.folder / name)

    def _from_mirrors(self, file: File, path: Path) -> None:
        if self._offline():
            self._request(file, self._mirrors.last, path)
            return
        left = self._allowance.begin()
        if left == 0:
            raise Unavailable("what may be fetched in a day on a metered network is used up")
        problem: Exception | None = None
        for base in self._mirrors.order():
            try:
                self._request(file, base, path)
            except Paused:
                raise
            except (Unavailable, UntrustedInput) as error:
                self._mirrors.failed(base, error)
                problem = error
            else:
                self._mirrors.worked(base)
                return
        if problem is not None:
            raise problem

    def _etag_path(self, file: File) -> Path:
        return self.folder / f"{file.sha256}.etag"

    def _begun(self, file: File) -> tuple[str, str, int]:
        """ETag and base URL of what is here of `file`; how often servers began anew instead of going on."""
        lines = (self._disk.read(self._etag_path(file)) or b"").decode("latin-1").split("\n")
        etag, origin, anew = (*lines, "", "", "")[:3]
        return etag, origin, int(anew) if anew.isdecimal() and len(anew) < 4 else 0

    def _request(self, file: File, base: str, path: Path) -> None:
        url = f"{base}/{file.sha256}"
        have = self._disk.size(path) or 0
        headers = {"Accept-Encoding": "identity"}
        etag, origin, anew = self._begun(file)
        if have:
            headers["Range"] = f"bytes={have}-"
            if etag and origin == base:
                headers["If-Range"] = etag
        with self._network.stream(url, headers=headers) as answer:
            if answer.status == 416:
                self.discard(file)
                raise Unavailable(f"{url} says that byte {have} is past its end; starting again")
            if answer.status not in {200, 206}:
                check_patience(url, answer, now=self._now())
                raise Unavailable(f"{url} answered {answer.status}; expected 200 or 206")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise UntrustedInput(f"{url} was compressed on the way; artifacts must come as they are")
            if answer.status == 206 and not self._continues(answer, have, file):
                self.discard(file)
                raise Unavailable(f"{url} sent another range than was asked for; starting again")
            if answer.status == 200:
                anew = anew + 1 if have else 0
                self.discard(file)
                have = 0
                etag = answer.headers.get("etag", "")
                strong = "" if etag.startswith("W/") else etag  # If-Range wants a strong one
                self._disk.replace(self._etag_path(file), f"{strong}\n{base}\n{anew}".encode("latin-1", "replace"))
            self._from[file.sha256] = base
            pass_s = min(limits.DOWNLOAD_PASS_S * 2**anew, limits.DOWNLOAD_PASS_MOST_S)
            self._receive(answer, file, url, path, have, until=self._monotonic() + pass_s)

    @staticmethod
    def _continues(answer: Stream, have: int, file: File) -> bool:
        match = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
        return bool(match) and int(match[1]) == have and match[3] in {"*", str(file.size_bytes)} if match else False

    def _receive(self, answer: Stream, file: File, url: str, path: Path, have: int, *, until: float) -> None:
        for chunk in answer.chunks():
            if have + len(chunk) > file.size_bytes:
                self.discard(file)
                raise UntrustedInput(f"{url} is longer than the {file.size_bytes} bytes that the release says")
            self._disk.append(path, chunk)
            have += len(chunk)
            self.moved += len(chunk)
            here = f"{have} of {file.size_bytes} bytes of {url} are here"
            paced = not self._offline()
            if paced and not self._allowance.spend(len(chunk)) and have < file.size_bytes:
                raise Paused(f"{here}; no more today, by the budget")
            if (self._stopped() or (paced and self._monotonic() > until)) and have < file.size_bytes:
                raise Paused(here)
        if have < file.size_bytes:
            raise Unavailable(f"{have} of {file.size_bytes} bytes of {url} are here")


class Unfinished(Unavailable):
    """More is here than before, and not all."""


class Paused(Unfinished):
    """It was this device that stopped: asking another mirror would not help."""
