"""Make a patch from two files, and make a file from a base and a patch: the file is right, or is not there at all.

1. The base's hash is checked before a byte is written; the output grows in a hidden temporary file (or folder) beside
   its place, its SHA-256 is compared, and only then it is renamed. A wrong file is never at `out`.
2. Files are read with positioned reads, not mapped: a base that is cut while we read is an error, not a SIGBUS.
3. An apply that was interrupted leaves its temporary file; the next one keeps the segments in it that are right.
4. Threads are started here, and only here. Memory is a few megabytes a thread, and the next segment gets what the last
   one freed (`_keep_freed_memory`); what is free before and after an apply is given back.

A body, beside `durable`: the device wing applies, the server wing encodes, the command line does both.
"""

import ctypes
import errno
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np

from whimbrel import limits
from whimbrel.delta import codec
from whimbrel.delta.artifact import Artifact, Description, Member
from whimbrel.delta.patch import Patch, is_safe
from whimbrel.durable import fsync, fsync_folder
from whimbrel.errors import DiskFull, InvariantBroken, Refused, Unavailable, UntrustedInput, reason_of

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Advance = Callable[[int], None]
A = TypeVar("A")
B = TypeVar("B")


def _quiet(_: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Encoded:
    """The result and the cost of an encode. `seconds` is wall time."""

    patch_bytes: int
    target_bytes: int
    seconds: float

    @property
    def ratio(self) -> float:
        return self.patch_bytes / self.target_bytes if self.target_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Described:
    """Where a file's tensors are described: the ONNX graph at `graph` calls the file `path`."""

    graph: Path
    path: str


def threads_for(threads: int, memory_bytes: int | None) -> int:
    """How many threads may run when each needs `DELTA_THREAD_BYTES`."""
    most = limits.DELTA_THREADS if memory_bytes is None else max(1, memory_bytes // limits.DELTA_THREAD_BYTES)
    return max(1, min(threads, most, limits.DELTA_THREADS))


def encode_files(
    base: Path,
    target: Path,
    patch: Path,
    *,
    described: tuple[Described | None, Described | None] = (None, None),
    threads: int = 1,
    memory_bytes: int | None = None,
    advance: Advance = _quiet,
    on_total: Advance = _quiet,
) -> Encoded:
    """Write the patch from `base` to `target`, which are files or folders. `patch` appears whole or not at all.

    `described`: where the tensors of the two are described, if elsewhere than in the files themselves.
    Raises `UntrustedInput` for a file that changes while it is read, `Unavailable` for a full disk, `Refused` for files
    that cannot be opened.
    """
    begun = time.monotonic()
    _keep_freed_memory()
    with ExitStack() as stack:
        before = stack.enter_context(open_artifact(base, described=described[0]))
        after = stack.enter_context(open_artifact(target, described=described[1]))
        on_total(codec.work_bytes(before, after))
        run = stack.enter_context(_runner(threads_for(threads, memory_bytes)))
        with _saying(patch):
            parts = stack.enter_context(tempfile.TemporaryFile(dir=patch.absolute().parent))
            head = codec.encode(before, after, _emitter(parts), run=run, advance=advance)
            parts.seek(0)
            with _replacing(patch) as file:
                file.write(head)
                shutil.copyfileobj(parts, file, limits.COPY_CHUNK_BYTES)
                size = file.tell()
        return Encoded(size, after.size_bytes, time.monotonic() - begun)


def _emitter(file: BinaryIO) -> Callable[[bytes], None]:
    def emit(part: bytes) -> None:
        file.write(part)

    return emit


def apply_files(
    base: Path,
    patch: Path,
    out: Path,
    *,
    threads: int = 1,
    memory_bytes: int | None = None,
    expect_sha256: bytes | None = None,
    expect_bytes: int | None = None,
    advance: Advance = _quiet,
    on_total: Advance = _quiet,
) -> int:
    """Make `out` from `base` and `patch`. Returns the bytes made. `out` is a folder where the target was one.

    `expect_sha256` and `expect_bytes` come from a signed release, for a single file: a patch that promises anything
    else is refused before it costs disk. Raises `UntrustedInput` (nothing is at `out` that was not there before),
    `Unavailable` for a full disk, `Refused` for files that cannot be opened or a folder that exists.
    """
    _give_back_freed_memory()  # an agent has just imported numpy, which freed more than an apply takes
    _keep_freed_memory()
    with ExitStack() as stack:
        stack.callback(_give_back_freed_memory)
        before = stack.enter_context(open_artifact(base))
        read, size = stack.enter_context(_open(patch))
        parsed = codec.parse(read, size)
        _check_promise(parsed, expect_sha256, expect_bytes)
        on_total(parsed.base_bytes + 2 * parsed.target_bytes)
        codec.check_base(parsed, before, advance=advance)
        run = stack.enter_context(_runner(threads_for(threads, memory_bytes)))
        with _saying(out):
            output = _Output(parsed, out)
            try:
                output.open(stack)
                decoder = codec.Decoder(parsed, read, before)
                present = output.read if output.is_resumed else None
                for done in run(lambda unit: decoder.run(unit, output.write, present=present), parsed.units()):
                    advance(done)
                output.check(advance)
                output.promote()
            except Exception:
                output.discard()
                raise
        return parsed.target_bytes


def inspect_file(patch: Path) -> Patch:
    """Parse a patch's head. Raises `UntrustedInput`, `Refused`."""
    with _open(patch) as (read, size):
        return codec.parse(read, size)


def _check_promise(patch: Patch, sha256: bytes | None, size: int | None) -> None:
    if size is not None and patch.target_bytes != size:
        raise UntrustedInput(f"the patch makes {patch.target_bytes} bytes; the release says {size}")
    if sha256 is not None and (len(patch.target) != 1 or patch.target[0].sha256 != sha256):
        raise UntrustedInput("the patch makes another file than the release says: their SHA-256 differ")


# --- files to read ---


@contextmanager
def open_artifact(path: Path, *, described: Described | None = None) -> Iterator[Artifact]:
    """A file, or all files of a folder in the order of their paths. `described`: of a file."""
    with ExitStack() as stack:
        if path.is_dir():
            below = list(path.rglob("*"))
            for link in (each for each in below if each.is_symlink()):
                raise Refused(f"{link} is a symbolic link: a patch carries plain files only")
            names = sorted(each.relative_to(path).as_posix() for each in below if each.is_file())
            for name in names:
                if not is_safe(name):
                    raise UntrustedInput(f"'{name}' in {path} cannot be carried to every system: rename it")
            files = [(name, path / name) for name in names]
        else:
            files = [("", path)]
        members = []
        for name, file in files:
            read, size = stack.enter_context(_open(file))
            members.append(Member(name, size, read))
        if not members:
            raise Refused(f"there are no files in {path}")
        if described is None or path.is_dir():
            yield Artifact(members)
            return
        read, size = stack.enter_context(_open(described.graph))
        yield Artifact(members, description=Description(Member("", size, read), described.path))


@contextmanager
def _open(path: Path) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise Refused(f"cannot read {path}: {reason_of(error)}") from error
    try:
        status = os.fstat(handle)

        def read(offset: int, size: int) -> bytes:
            try:
                return _pread(handle, offset, size)
            except OSError as error:
                raise Unavailable(f"cannot read {path} at byte {offset}: {reason_of(error)}") from error

        yield read, status.st_size
    finally:
        os.close(handle)


_seeking = threading.Lock()


def _seek_and_read(handle: int, size: int, offset: int) -> bytes:
    """`os.pread` where the system has none (Windows): one at a time, for a file has one position for all threads."""
    with _seeking:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, size)


def _seek_and_write(handle: int, content: memoryview, offset: int) -> int:
    with _seeking:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.write(handle, content)


_read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)
_write_at: Callable[[int, memoryview, int], int] = getattr(os, "pwrite", _seek_and_write)


def _pread(handle: int, offset: int, size: int) -> bytes:
    content = _read_at(handle, size, offset)
    while len(content) < size:
        more = _read_at(handle, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


def _pwrite(handle: int, content: memoryview, offset: int) -> None:
    while content:
        written = _write_at(handle, content, offset)
        content, offset = content[written:], offset + written


# --- files to write ---


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` when the block ends without an error."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.chmod(temporary, 0o644)
            yield file
            file.flush()
            fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_folder(path.absolute().parent)


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    """Turn the system's errors into the project's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room to write {path}, the disk is full: free some space and run it again") from error
        if error.errno == errno.EFBIG:
            raise Unavailable(f"{path} is too large for its file system: name another place for it") from error
        raise Refused(f"cannot write {path}: {reason_of(error)}") from error


class _Output:
    """A target in the making: one file, or a folder of files, in a temporary place beside `out`."""

    def __init__(self, patch: Patch, out: Path) -> None:
        self._patch = patch
        self._out = out
        self._is_folder = not (len(patch.target) == 1 and patch.target[0].path == "")
        if self._is_folder and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise Refused(f"{out} is there already, and the target is a folder: name a new one")
        if not self._is_folder and out.is_dir():
            raise Refused(f"{out} is a folder, and the target is one file")
        digest = patch.target[0].sha256.hex()[:16]
        self._temporary = out.absolute().parent / f".{out.name}.{digest}.part"
        self._handles: list[int] = []
        self.is_resumed = False

    def open(self, stack: ExitStack) -> None:
        self.is_resumed = os.path.lexists(self._temporary)
        stack.callback(self._close)
        if self._is_folder:
            self._temporary.mkdir(exist_ok=True)
        for entry in self._patch.target:
            path = self._temporary / entry.path if self._is_folder else self._temporary
            path.parent.mkdir(parents=self._is_folder, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            handle = os.open(path, flags, 0o644)
            self._handles.append(handle)
            os.ftruncate(handle, entry.size_bytes)

    def _places(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """(file, offset in it, bytes) for bytes that may cross from one file to the next."""
        start = 0
        for entry, handle in zip(self._patch.target, self._handles, strict=True):
            inside = offset - start
            if 0 <= inside < entry.size_bytes and size:
                take = min(size, entry.size_bytes - inside)
                yield handle, inside, take
                offset += take
                size -= take
            start += entry.size_bytes
        if size:
            raise InvariantBroken(f"{size} bytes were to be written past the end of the target")

    def write(self, offset: int, content: bytes | memoryview) -> None:
        view = memoryview(content)
        for handle, inside, take in self._places(offset, len(view)):
            _pwrite(handle, view[:take], inside)
            view = view[take:]

    def read(self, offset: int, size: int) -> bytes:
        return b"".join(_pread(handle, inside, take) for handle, inside, take in self._places(offset, size))

    def check(self, advance: Advance) -> None:
        """Read everything back and compare."""
        members = [
            Member(entry.path, entry.size_bytes, lambda offset, size, handle=handle: _pread(handle, offset, size))  # type: ignore[misc]
            for entry, handle in zip(self._patch.target, self._handles, strict=True)
        ]
        for made, due in zip(Artifact(members).entries(advance), self._patch.target, strict=True):
            if made.sha256 != due.sha256:
                raise UntrustedInput(
                    f"what the patch made has SHA-256 {made.sha256.hex()}, and should have {due.sha256.hex()}: the "
                    "base changed while it was read, or the patch is wrong"
                )

    def promote(self) -> None:
        for handle in self._handles:
            fsync(handle)
        self._close()  # an open file cannot be renamed on Windows
        if self._is_folder:
            for folder, _, _ in os.walk(self._temporary, topdown=False):
                fsync_folder(Path(folder))
            if self._out.is_dir():
                self._out.rmdir()
        os.replace(self._temporary, self._out)
        fsync_folder(self._out.absolute().parent)

    def _close(self) -> None:
        while self._handles:
            os.close(self._handles.pop())

    def discard(self) -> None:
        self._close()
        if self._is_folder:
            shutil.rmtree(self._temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                self._temporary.unlink()


# --- memory and threads ---


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of one segment for the next. Otherwise it returns the memory to the system and asks
    again: a page fault every 4 KiB, which took a third of a decode's time.

    Freeing a block raises glibc's threshold for that to twice the block's size (mallopt(3), "dynamic" threshold). No
    page of the block is touched, and other allocators take no notice.
    """
    np.empty(limits.DELTA_KEPT_BYTES // 2, np.uint8)


def _give_back_freed_memory() -> None:
    """Let glibc return the whole pages that lie free between blocks in use (malloc_trim(3))."""
    with suppress(OSError, AttributeError, TypeError):  # musl, macOS and Windows have none
        ctypes.CDLL(None).malloc_trim(0)


class _Pool:
    """`map` that works a few items ahead and keeps the order."""

    def __init__(self, pool: "ThreadPoolExecutor", threads: int) -> None:
        self._pool = pool
        self._ahead = threads + 1

    def __call__(self, function: Callable[[A], B], items: Iterable[A], /) -> Iterator[B]:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) >= self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            for future in waiting:
                with suppress(Exception, BaseException):
                    future.exception()


@contextmanager
def _runner(threads: int) -> Iterator[codec.Run]:
    if threads == 1:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor  # here: an agent uses one thread

    with ThreadPoolExecutor(threads, thread_name_prefix="delta") as pool:
        yield _Pool(pool, threads)
