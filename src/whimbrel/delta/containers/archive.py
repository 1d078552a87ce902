"""Find the files of an uncompressed archive: tar, or zip with stored entries.

A folder that was packed as one artifact keeps its tensors this way. Sources: POSIX.1-2017 pax (ustar header blocks);
PKWARE APPNOTE 6.3.10 (sections 4.3.7, 4.3.12, 4.3.14-16). Compressed entries are left alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from whimbrel import limits
from whimbrel.delta.artifact import Member
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput

ZIP_MAGIC = b"PK\x03\x04"
_TAR_BLOCK = 512
_STORED = 0
_END = b"PK\x05\x06"
_END_BYTES, _END_SEARCH_BYTES = 22, 22 + 65535
_ENTRY = b"PK\x01\x02"
_MAX32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored file: its bytes are `[offset, offset + size_bytes)` of the archive."""

    name: str
    offset: int
    size_bytes: int


def is_tar(start: bytes) -> bool:
    """Is the first block a ustar header?"""
    return start[257:262] == b"ustar"


def parse_tar(cursor: Cursor, parse_member: Callable[[Member], list[Tensor]]) -> list[Tensor]:
    """The tensors of every file inside. Archives inside archives are not entered."""
    found: list[Tensor] = []
    for entry in _tar_entries(cursor):
        start = bytes(cursor.read(entry.offset, min(_TAR_BLOCK, entry.size_bytes)))
        if is_tar(start):
            continue
        found += _inner(cursor, entry, parse_member)
    return found


def _inner(cursor: Cursor, entry: Entry, parse_member: Callable[[Member], list[Tensor]]) -> list[Tensor]:
    def read(offset: int, size: int) -> bytes | memoryview:
        return cursor.read(entry.offset + offset, min(size, entry.size_bytes - offset))

    try:
        tensors = parse_member(Member(entry.name, entry.size_bytes, read))
    except UntrustedInput:
        return []
    prefix = f"{entry.name}:"
    return [Tensor(prefix + t.name, t.dtype, t.shape, entry.offset + t.offset, t.size_bytes) for t in tensors]


def _tar_entries(cursor: Cursor) -> list[Entry]:
    entries: list[Entry] = []
    place = 0
    while place + _TAR_BLOCK <= cursor.end:
        header = cursor.at(place).take(_TAR_BLOCK)
        if not is_tar(header):
            break
        size = _tar_number(header[124:136])
        place += _TAR_BLOCK
        if size > cursor.end - place:
            raise UntrustedInput("a tar entry is longer than its archive")
        if header[156:157] in (b"0", b"\0") and size:
            name = header[:100].split(b"\0")[0].decode("utf-8", "backslashreplace")
            entries.append(Entry(name, place, size))
        place += -(-size // _TAR_BLOCK) * _TAR_BLOCK
        if len(entries) > limits.DELTA_TENSORS:
            raise UntrustedInput(f"a tar archive has more than {limits.DELTA_TENSORS} files")
    return entries


def _tar_number(text: bytes) -> int:
    if text[0] & 0x80:  # GNU's binary form for large files
        return int.from_bytes(text, "big") & ((1 << 88) - 1)
    try:
        value = int(text.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise UntrustedInput("a tar entry has no proper size") from error
    if value < 0:
        raise UntrustedInput("a tar entry has a negative size")
    return value


def zip_entries(cursor: Cursor) -> list[Entry]:
    """The stored entries by the central directory. Raises `UntrustedInput`."""
    search = min(_END_SEARCH_BYTES, cursor.end)
    tail = cursor.at(cursor.end - search).take(search)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise UntrustedInput("a zip archive has no end record")
    end = cursor.end - search + at
    cursor.at(end + 10)
    count, _, place = cursor.u16(), cursor.u32(), cursor.u32()
    if (count == 0xFFFF or place == _MAX32) and end >= 20:
        cursor.at(end - 20)
        if cursor.take(4) == b"PK\x06\x07":
            cursor.skip(4)
            cursor.at(cursor.u64() + 32)
            count, _, place = cursor.u64(), cursor.u64(), cursor.u64()
    if count > limits.DELTA_TENSORS:
        raise UntrustedInput(f"a zip archive has {count} files; at most {limits.DELTA_TENSORS} are taken")
    entries = []
    for _ in range(count):
        entry, place = _zip_entry(cursor, place)
        if entry is not None:
            entries.append(entry)
    return entries


def _zip_entry(cursor: Cursor, place: int) -> tuple[Entry | None, int]:
    cursor.at(place)
    if cursor.take(4) != _ENTRY:
        raise UntrustedInput("a zip archive's directory is not where it says")
    cursor.skip(6)
    method = cursor.u16()
    cursor.skip(8)
    packed, size = cursor.u32(), cursor.u32()
    name_bytes, extra_bytes, comment_bytes = cursor.u16(), cursor.u16(), cursor.u16()
    cursor.skip(8)
    local = cursor.u32()
    name = cursor.take(name_bytes).decode("utf-8", "backslashreplace")
    extra = cursor.take(extra_bytes)
    following = cursor.place + comment_bytes
    packed, size, local = _zip64(extra, packed, size, local)
    if method != _STORED or packed != size:
        return None, following
    cursor.at(local)
    if cursor.take(4) != ZIP_MAGIC:
        raise UntrustedInput("a zip entry is not where the directory says")
    cursor.skip(22)
    offset = cursor.u16() + cursor.u16()
    return Entry(name, cursor.place + offset, size), following


def _zip64(extra: bytes, packed: int, size: int, local: int) -> tuple[int, int, int]:
    """Sizes of 4 GiB and more live in the extra field 1, in the order size, packed size, place."""
    while len(extra) >= 4:
        tag, length = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag != 1:
            continue
        values = [int.from_bytes(body[i : i + 8], "little") for i in range(0, len(body) - 7, 8)][::-1]
        size = values.pop() if size == _MAX32 and values else size
        packed = values.pop() if packed == _MAX32 and values else packed
        local = values.pop() if local == _MAX32 and values else local
    return packed, size, local
