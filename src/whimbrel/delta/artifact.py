"""An artifact as the codec sees it: one file, or the files of a folder, as one line of bytes.

1. The files lie end to end in the order given; an offset counts from the first byte of the first file.
2. Bytes are read through a callable of the caller, at most a few megabytes at a time: the codec holds no file.
3. A reader that comes back short means that the file changed while it was read, and that is said.

Called by the codec. The bodies make one from open files, the tests from `bytes`.
"""

import bisect
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from whimbrel import limits
from whimbrel.errors import UntrustedInput

Read = Callable[[int, int], bytes | memoryview]
"""`read(offset, size_bytes)` gives the bytes there; short at the end of the file."""
WriteAt = Callable[[int, bytes | memoryview], None]
"""`write_at(offset, content)` puts bytes into the output; from several threads perhaps, never twice for one place."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an artifact. `path` is relative with forward slashes, and empty for an artifact of a single file."""

    path: str
    size_bytes: int
    read: Read


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a patch knows of a file: `sha256` is the digest, 32 bytes."""

    path: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Description:
    """What says which bytes of a file are tensors, where the file does not: an ONNX graph, which calls it `path`."""

    graph: Member
    path: str


class Artifact:
    """Files end to end. The tails of their paths say what container to expect; `description`: of its only file."""

    def __init__(self, members: Sequence[Member], *, description: Description | None = None) -> None:
        if not 1 <= len(members) <= limits.DELTA_FILES:
            raise UntrustedInput(f"an artifact has {len(members)} files; it must have 1 to {limits.DELTA_FILES}")
        self.members = tuple(members)
        self.description = description
        self._starts = [0]
        for member in members:
            self._starts.append(self._starts[-1] + member.size_bytes)
        if self.size_bytes > limits.ARTIFACT_BYTES:
            raise UntrustedInput(f"an artifact has {self.size_bytes} bytes; at most {limits.ARTIFACT_BYTES} are taken")

    @property
    def size_bytes(self) -> int:
        return self._starts[-1]

    def starts(self) -> Iterator[tuple[Member, int]]:
        """Each file with the offset of its first byte."""
        return zip(self.members, self._starts[:-1], strict=True)

    def read(self, offset: int, size_bytes: int) -> bytes | memoryview:
        """Exactly these bytes. Raises `UntrustedInput` if the file underneath has become shorter."""
        if size_bytes == 0:
            return b""
        index = bisect.bisect_right(self._starts, offset) - 1
        if offset < 0 or offset + size_bytes > self.size_bytes:
            raise UntrustedInput(f"bytes {offset}+{size_bytes} lie outside an artifact of {self.size_bytes} bytes")
        pieces = []
        while size_bytes:
            member = self.members[index]
            inside = offset - self._starts[index]
            take = min(size_bytes, member.size_bytes - inside)
            if take:
                piece = member.read(inside, take)
                if len(piece) != take:
                    raise UntrustedInput(f"'{member.path or 'the file'}' changed while it was read: it became shorter")
                pieces.append(piece)
            offset += take
            size_bytes -= take
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def entries(self, advance: Callable[[int], None] = lambda _: None) -> tuple[FileEntry, ...]:
        """Hash every file. `advance` hears of the bytes read."""
        found = []
        for member in self.members:
            digest = hashlib.sha256()
            for offset in range(0, member.size_bytes, limits.HASH_CHUNK_BYTES):
                take = min(limits.HASH_CHUNK_BYTES, member.size_bytes - offset)
                chunk = member.read(offset, take)
                if len(chunk) != take:
                    raise UntrustedInput(f"'{member.path or 'the file'}' changed while it was read: it became shorter")
                digest.update(chunk)
                advance(take)
            found.append(FileEntry(member.path, member.size_bytes, digest.digest()))
        return tuple(found)


def of_bytes(content: bytes | memoryview, path: str = "") -> Artifact:
    """An artifact of one file that is in memory."""
    view = memoryview(content)
    return Artifact([Member(path, len(view), lambda offset, size: view[offset : offset + size])])
