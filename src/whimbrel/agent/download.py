"""Download an artifact, if need be in pieces over many days, by HTTP ranges (RFC 9110, section 14).

1. What came is kept in `<sha256>.part`; where from and its ETag beside it. If-Range makes a server that has other bytes
   start again; where there is no strong ETag, and at another mirror, it is asked without: the name is the hash.
2. What is here is kept until other bytes are proven. 206 goes on. 200 begins anew: where its beginning is what is here,
   the rest is appended; where it differs, it is collected beside (`<sha256>.other`), and takes the place only with the
   right hash. To a server that begins anew again and again ever longer passes are given, or it would never come to an
   end. After 416 or a wrong range the whole is asked for.
3. An answer that does not fit what was asked (`answers`) is dropped at once. The hash is checked by the caller, over
   the whole file; where it is wrong, the mirrors that sent of it are asked last for a while.
4. A mirror that fails gives way to the next one at once; the bytes that came stay.
5. A request asks for no more than a day's budget has left: what is on its way when a budget ends was paid for, too. A
   server that knows no ranges is left before its body, where all of it is more.
6. What a bundle holds comes at once and to its end: there is no later, and no network whose bytes anybody counts.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.agent.allowance import Allowance
from whimbrel.agent.answers import SNIFFED_BYTES, Misfit, check_artifact, is_page
from whimbrel.agent.backoff import check_patience
from whimbrel.agent.disk import Disk
from whimbrel.agent.mirrors import Mirrors
from whimbrel.agent.progress import ProgressMeter
from whimbrel.device.ports import Network, Stream
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.release import File


class Begun(msgspec.Struct, frozen=True):
    """What is known of a partial file. `origin`: the base URL whose `etag` it has; `anew`: how often servers began anew
    instead of going on; `senders`: base URLs that sent bytes of it.
    """

    etag: str = ""
    origin: str = ""
    anew: int = 0
    senders: tuple[str, ...] = ()


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
        meter: ProgressMeter | None = None,
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
        self.meter = meter or ProgressMeter(monotonic=monotonic)
        self._whole_next: set[tuple[str, str]] = set()  # base URL and digest, where a range was answered wrongly
        self._doubted: set[str] = set()  # digests, where a server began anew with other bytes than those here
        self.moved = 0

    def path(self, file: File) -> Path:
        """Where the bytes of `file` are collected."""
        return self.folder / f"{file.sha256}.part"

    def left_today(self) -> int | None:
        """Bytes that may still be fetched today; None without a bound."""
        return self._allowance.begin()

    def fetch(self, file: File) -> None:
        """Get what is missing of `file`. It then has its size, and is not durable.

        Raises `Unavailable`: call again, what came is kept (`Unfinished`: more is here than before).
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
        for path in (self.path(file), self._record_path(file), self._other_path(file)):
            self._disk.remove(path)

    def refuse(self, file: File) -> None:
        """Throw away what came of `file`, because its hash is wrong; who sent it is asked last for a while.

        Where a mirror and the server sent parts of it, the mirror is to blame.
        """
        senders = self._begun(file).senders
        for base in [base for base in senders if base != self._mirrors.last] or senders:
            self._blame(file, base)
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

    def _blame(self, file: File, base: str) -> None:
        error = UntrustedInput(f"{base} sent {file.sha256} with a wrong hash")
        self._mirrors.failed(base, error, rest_s=limits.WRONG_BYTES_FIRST_S)

    # --- what is known of a partial file ---

    def _record_path(self, file: File) -> Path:
        return self.folder / f"{file.sha256}.etag"

    def _other_path(self, file: File) -> Path:
        return self.folder / f"{file.sha256}.other"

    def _begun(self, file: File) -> Begun:
        lines = (self._disk.read(self._record_path(file)) or b"").decode("latin-1").split("\n")
        etag, origin, anew = (*lines, "", "", "")[:3]
        senders = tuple(dict.fromkeys(line for line in lines[3:] if line)) or ((origin,) if origin else ())
        return Begun(etag, origin, int(anew) if anew.isdecimal() and len(anew) < 4 else 0, senders)

    def _remember(self, file: File, begun: Begun) -> Begun:
        if begun != self._begun(file):
            lines = (begun.etag, begun.origin, str(begun.anew), *begun.senders)
            self._disk.replace(self._record_path(file), "\n".join(lines).encode("latin-1", "replace"))
        return begun

    # --- one mirror ---

    def _request(self, file: File, base: str, path: Path) -> None:
        """Ask `base` until all is here; more than once where it gives less than the range that was asked for."""
        since = self._monotonic()
        while not self._one_answer(file, base, path, since=since):
            if self._stopped() or self._monotonic() > since + limits.DOWNLOAD_PASS_S:
                raise Paused(f"{self._disk.size(path)} of {file.size_bytes} bytes of {base}/{file.sha256} are here")

    def _one_answer(self, file: File, base: str, path: Path, *, since: float) -> bool:
        """Whether all is here after one request. False: what the answer promised came, and more is to be asked for."""
        url, have, begun = f"{base}/{file.sha256}", self._disk.size(path) or 0, self._begun(file)
        etag = begun.etag if begun.origin == base else ""
        left = None if self._offline() else self._allowance.left
        if left == 0:
            raise Paused(f"{have} of {file.size_bytes} bytes of {url} are here; no more today, by the budget")
        headers = {"Accept-Encoding": "identity"}
        last = have + left - 1 if left is not None and left < file.size_bytes - have else None
        if (have or last is not None) and (base, file.sha256) not in self._whole_next:
            headers["Range"] = f"bytes={have}-{'' if last is None else last}"
            if etag:
                headers["If-Range"] = etag
        with self._network.stream(url, headers=headers) as answer:
            if answer.status == 416:
                self._whole_next.add((base, file.sha256))
                raise Unavailable(f"{url} says that byte {have} is past its end; all of it is asked for next")
            if answer.status not in {200, 206}:
                check_patience(url, answer, now=self._now())
                raise Unavailable(f"{url} answered {answer.status}; expected 200 or 206")
            try:
                end = check_artifact(url, answer, file, have=have, etag=etag)
            except Misfit:
                if answer.status == 206:
                    self._whole_next.add((base, file.sha256))
                raise
            if answer.status == 206:
                first = Begun(_strong_etag(answer), base) if not have else begun
                self._remember(file, msgspec.structs.replace(first, senders=_with(first.senders, base)))
                part = _Part(url, file.size_bytes, here=have, start=have, end=end, until=since + _pass_s(begun))
                chunks = answer.chunks() if have else _without_page(url, answer)
                self._receive(chunks, part, functools.partial(self._disk.append, path))
                return end == file.size_bytes
            self._whole_next.discard((base, file.sha256))
            if left is not None and left < file.size_bytes:
                raise Unavailable(
                    f"{url} sends all {file.size_bytes} bytes or none, and the day's budget has {left} left"
                )
            self._begin_anew(answer, file, base, begun, since=since)
            return True

    def _begin_anew(self, answer: Stream, file: File, base: str, begun: Begun, *, since: float) -> None:
        """Take an answer that begins at the first byte."""
        path, url = self.path(file), f"{base}/{file.sha256}"
        have = self._disk.size(path) or 0
        begun = msgspec.structs.replace(begun, anew=begun.anew + 1) if have else Begun()
        own = Begun(_strong_etag(answer), base, begun.anew, (base,))
        part = _Part(url, file.size_bytes, here=have, start=0, end=file.size_bytes, until=since + _pass_s(begun))
        chunks = _without_page(url, answer)
        if not have:
            self._remember(file, own)
            try:
                self._receive(chunks, part, functools.partial(self._disk.append, path))
            except (Misfit, _Ended) as error:  # all that is here is of this answer
                if isinstance(error, Misfit) or "chunked" in answer.headers.get("transfer-encoding", "").lower():
                    self.discard(file)  # chunks that ended as they should, so it was never this file
                raise
            return
        self._remember(file, begun)
        if file.sha256 in self._doubted:
            self._collect_beside(chunks, part, file, own)
            return
        agreed = msgspec.structs.replace(own, senders=_with(begun.senders, base))
        same = _SameBeginning(self._disk, path, have=have, url=url, on_agreed=lambda: self._remember(file, agreed))
        try:
            self._receive(chunks, part, same.take)
        except _Differs:
            self._doubted.add(file.sha256)
            raise

    def _collect_beside(self, chunks: Iterator[bytes], part: "_Part", file: File, own: Begun) -> None:
        other = self._other_path(file)
        self._disk.remove(other)
        try:
            self._receive(chunks, part, functools.partial(self._disk.append, other))
            if self._disk.sha256(other) != file.sha256:
                self._blame(file, own.origin)
                raise Misfit(f"{part.url} sent other bytes than those here, and their hash is wrong")
            self._disk.move(other, self.path(file))
            self._remember(file, own)
            self._doubted.discard(file.sha256)
        finally:
            self._disk.remove(other)

    def _receive(self, chunks: Iterator[bytes], part: "_Part", take: Callable[[bytes], None]) -> None:
        have, before = part.start, part.here
        for chunk in chunks:
            if have + len(chunk) > part.end:
                raise Misfit(f"{part.url} is longer than the {part.size_bytes} bytes that the release says")
            take(chunk)
            have += len(chunk)
            self.moved += len(chunk)
            self.meter.at(max(have, before))
            here = f"{have} of {part.size_bytes} bytes of {part.url} are here"
            paced = not self._offline()
            if paced and not self._allowance.spend(len(chunk)) and have < part.size_bytes:
                raise Paused(f"{here}; no more today, by the budget")
            if (self._stopped() or (paced and self._monotonic() > part.until)) and have < part.end:
                raise Paused(here)
        if have < part.end:
            raise _Ended(f"{have} of {part.size_bytes} bytes of {part.url} are here")


class _Part(msgspec.Struct, frozen=True):
    """What one answer promised: bytes [start, end) of a file, of which `here` were here before; and until when it may
    take.
    """

    url: str
    size_bytes: int
    here: int
    start: int
    end: int
    until: float


class _SameBeginning:
    """Where an answer's first `have` bytes are those at `path`, the rest is appended. Raises `_Differs`."""

    def __init__(self, disk: Disk, path: Path, *, have: int, url: str, on_agreed: Callable[[], object]) -> None:
        self._disk = disk
        self._path = path
        self._have = self._left = have
        self._url = url
        self._on_agreed = on_agreed
        self._expected = disk.sha256(path)
        self._beginning = hashlib.sha256()

    def take(self, chunk: bytes) -> None:
        if self._left:
            beginning, chunk = chunk[: self._left], chunk[self._left :]
            self._beginning.update(beginning)
            self._left -= len(beginning)
            if self._left:
                return
            if self._beginning.hexdigest() != self._expected:
                raise _Differs(f"{self._url} begins with other bytes than the {self._have} that are here")
            self._on_agreed()
        if chunk:
            self._disk.append(self._path, chunk)


def _without_page(url: str, answer: Stream) -> Iterator[bytes]:
    """The body, where its first bytes are not those of a page. Raises `Misfit`."""
    first = b""
    chunks = answer.chunks()
    for chunk in chunks:
        first += chunk
        if len(first) >= SNIFFED_BYTES:
            break
    if is_page({}, first[:SNIFFED_BYTES]):
        raise Misfit(f"{url} answered with a page for people; something on the way answers instead of the server")
    if first:
        yield first
    yield from chunks


def _strong_etag(answer: Stream) -> str:
    """The ETag of an answer where If-Range takes it; "" for none and for a weak one."""
    tag = answer.headers.get("etag", "")
    return "" if tag.startswith("W/") else tag


def _pass_s(begun: Begun) -> float:
    return min(limits.DOWNLOAD_PASS_S * 2.0**begun.anew, limits.DOWNLOAD_PASS_MOST_S)


def _with(senders: tuple[str, ...], base: str) -> tuple[str, ...]:
    return senders if base in senders else (*senders, base)


class Unfinished(Unavailable):
    """More is here than before, and not all."""


class Paused(Unfinished):
    """It was this device that stopped: asking another mirror would not help."""


class _Ended(Unavailable):
    """The body came to its end, and all was not here yet."""


class _Differs(Misfit):
    """A server that began anew has other bytes than those here."""
