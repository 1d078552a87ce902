"""What does a patch say, before a byte of it is acted on?

    0   8  magic 89 57 48 44 0D 0A 1A, then the format's version
    8   4  head: bytes as compressed          12  4  head: bytes expanded
    16  16 first half of the SHA-256 of the head as compressed
    32  .. head: zstd of the msgpack array `Head`
    ..  .. parts, end to end, in the order in which `units` needs them

1. The ranges of a patch tile the target: each says how many bytes come from where, coded how. Nothing else is believed
   of either file, so the reader of a patch parses no container.
2. Every number is checked here against the sizes of base, target and patch; afterwards nobody checks again.
3. Which range lies in which segment follows from the ranges alone (`units`), for writer and reader alike.

Called by the codec, `inspect` and the advice. docs/reference/delta.md has the byte layout.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from whimbrel import limits
from whimbrel.delta import dtypes, opaque
from whimbrel.delta.artifact import FileEntry
from whimbrel.delta.dtypes import Dtype, Family
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.model.document_errors import sentence

MAGIC = b"\x89WHD\r\n\x1a"
VERSION = 2
PREFIX_BYTES = 32
DIGEST_BYTES = 32


class Mode(IntEnum):
    """How a range of the target is made. Numbers are the format's."""

    GLUE = 0
    COPY = 1
    ROWS = 2  # rows beyond those that the base has
    FLOAT = 3
    LOWRANK = 4
    QBLOCK = 5
    INT8 = 6
    RAW = 7
    WHOLE = 8


GROUPED = {Mode.FLOAT: Family.FLOAT, Mode.LOWRANK: Family.FLOAT, Mode.QBLOCK: Family.QBLOCK, Mode.INT8: Family.INT8}


@dataclass(frozen=True, slots=True)
class Range:
    """`size_bytes` of the target from `target_offset`. `columns` is the row's length in numbers (the last row may be
    shorter); `base_offset` and `base_bytes` are where the old numbers, or the window for opaque bytes, lie.
    """

    index: int
    mode: Mode
    dtype: Dtype
    target_offset: int
    size_bytes: int
    base_offset: int
    base_bytes: int
    columns: int
    name: str

    @property
    def row_bytes(self) -> int:
        return self.columns // self.dtype.block_elements * self.dtype.block_bytes

    @property
    def rows(self) -> int:
        return -(-self.size_bytes // self.row_bytes)


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a range, inside one segment: where they go, where the old ones are, how many rows and numbers."""

    range: Range
    first_row: int
    last_row: int

    @property
    def start(self) -> int:
        return self.first_row * self.range.row_bytes

    @property
    def size_bytes(self) -> int:
        return min(self.last_row * self.range.row_bytes, self.range.size_bytes) - self.start

    @property
    def row_lengths(self) -> npt.NDArray[np.int64]:
        """How many numbers each row has."""
        lengths = np.full(self.last_row - self.first_row, self.range.columns, np.int64)
        lengths[-1] = self.range.dtype.elements(self.size_bytes) - self.range.columns * (len(lengths) - 1)
        return lengths


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of the base as they are, at most `DELTA_COPY_BYTES`."""

    target_offset: int
    base_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Glue:
    """All glue ranges as one part."""

    ranges: tuple[Range, ...]
    part: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """Up to `DELTA_COPY_BYTES` of a range, or a whole target, with the window of the base that its dictionary is."""

    range: Range
    target_offset: int
    size_bytes: int
    window_offset: int
    window_bytes: int
    part: int


@dataclass(frozen=True, slots=True)
class Factor:
    """The two thin matrices of a low-rank range; `Group` readers ask for it by the range's index."""

    range: Range
    part: int


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that share tables: part `part` is the group's head, the segments' parts follow."""

    dtype: Dtype
    segments: tuple[tuple[Piece, ...], ...]
    part: int


Unit = Copy | Glue | Opaque | Factor | Group


def units(ranges: Callable[[], Iterator[Range]]) -> Iterator[Unit]:
    """The units of work, in the order of their parts. Units do not depend on each other, but for a group's factors,
    which come before it. `ranges` is called more than once.
    """
    part = 0
    glue = tuple(one for one in ranges() if one.mode is Mode.GLUE)
    if glue:
        yield Glue(glue, part)
        part += 1
    for one in ranges():
        if one.mode is Mode.COPY:
            for start in range(0, one.size_bytes, limits.DELTA_COPY_BYTES):
                size = min(limits.DELTA_COPY_BYTES, one.size_bytes - start)
                yield Copy(one.target_offset + start, one.base_offset + start, size)
        elif one.mode is Mode.WHOLE:
            yield Opaque(one, one.target_offset, one.size_bytes, one.base_offset, one.base_bytes, part)
            part += 1
        elif one.mode in (Mode.ROWS, Mode.RAW):
            for start in range(0, one.size_bytes, limits.DELTA_COPY_BYTES):
                size = min(limits.DELTA_COPY_BYTES, one.size_bytes - start)
                first = max(0, min(start - limits.DELTA_WINDOW_MARGIN_BYTES, one.base_bytes))
                last = min(start + size + limits.DELTA_WINDOW_MARGIN_BYTES, one.base_bytes)
                yield Opaque(one, one.target_offset + start, size, one.base_offset + first, last - first, part)
                part += 1
        elif one.mode is Mode.LOWRANK:
            yield Factor(one, part)
            part += 1
    yield from _groups(ranges(), part)


def _groups(ranges: Iterator[Range], part: int) -> Iterator[Group]:
    """Numbers of one kind, from range to range, cut into segments by rows and into groups by segments."""
    filling: dict[int, list[list[Piece]]] = {}
    filled: dict[int, int] = {}
    kinds: dict[int, Dtype] = {}
    for one in ranges:
        if one.mode not in GROUPED:
            continue
        kind = int(Family.INT8) if one.dtype.family is Family.INT8 else 16 + one.dtype.code
        kinds.setdefault(kind, one.dtype)
        segments = filling.setdefault(kind, [[]])
        row = 0
        while row < one.rows:
            room = _segment_elements(one.dtype) - filled.get(kind, 0)
            take = min(one.rows - row, max(1, room // one.columns))
            if room < one.columns and segments[-1]:
                if len(segments) >= _group_segments(one.dtype):
                    yield Group(one.dtype, tuple(tuple(segment) for segment in segments), part)
                    part += 1 + len(segments)
                    segments.clear()
                segments.append([])
                filled[kind] = 0
                continue
            segments[-1].append(Piece(one, row, row + take))
            filled[kind] = filled.get(kind, 0) + take * one.columns
            row += take
    for kind, segments in filling.items():
        yield Group(kinds[kind], tuple(tuple(segment) for segment in segments), part)
        part += 1 + len(segments)


def _width(dtype: Dtype) -> int:
    """Bytes of a difference: as wide as a plain number, and one for quantised ones."""
    return dtype.block_bytes if dtype.block_elements == 1 else 1


def _segment_elements(dtype: Dtype) -> int:
    """Fewer of the wide ones: working memory goes by their bytes."""
    return limits.DELTA_SEGMENT_ELEMENTS // _width(dtype)


def _group_segments(dtype: Dtype) -> int:
    return max(1, limits.DELTA_GROUP_BYTES // (_segment_elements(dtype) * _width(dtype)))


def count_parts(unit: Unit) -> int:
    """How many parts a unit has, from `unit.part` on."""
    if isinstance(unit, Copy):
        return 0
    return 1 + len(unit.segments) if isinstance(unit, Group) else 1


Files = Annotated[list[tuple[str, int, bytes]], msgspec.Meta(max_length=limits.DELTA_FILES)]


class Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The head as it is written. Tables are columns of little-endian u64, byte planes together."""

    base: Files
    target: Files
    ranges: bytes  # size, mode | dtype << 8, base offset - where the last one ended, base bytes, columns
    names: str  # one a range, each closed by a zero
    dictionary: bytes  # the base's glue: offset - where the last one ended, size
    sizes: bytes  # bytes of each part
    part_checks: bytes  # XXH3-64 of each part
    output_checks: bytes  # XXH3-64 of what each part makes; 0 where it makes nothing alone


_RANGE_COLUMNS, _PIECE_COLUMNS = 5, 2
U64 = npt.NDArray[np.uint64]


def pack_columns(columns: Sequence[Sequence[int] | U64] | U64) -> bytes:
    """Columns of numbers (modulo 2**64) as byte planes."""
    table = np.array(columns, dtype=np.uint64) if len(columns) else np.zeros((0, 0), np.uint64)
    return np.ascontiguousarray(
        table.astype("<u8").view(np.uint8).reshape(len(columns), -1, 8).transpose(0, 2, 1)
    ).tobytes()


def unpack_columns(content: bytes, count: int) -> U64:
    """(count, rows). Raises `UntrustedInput` where the bytes are no whole rows."""
    if len(content) % (8 * count):
        raise UntrustedInput("a table in a patch's head is cut short")
    planes = np.frombuffer(content, np.uint8).reshape(count, 8, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(planes).view("<u8").reshape(count, -1).astype(np.uint64, copy=False)


class Patch:
    """A parsed head: every number in it is inside the base, the target and the patch."""

    def __init__(self, head: Head, *, size_bytes: int, parts_offset: int) -> None:
        self.size_bytes = size_bytes
        self.base = _files(head.base)
        self.target = _files(head.target)
        self.base_bytes = sum(entry.size_bytes for entry in self.base)
        self.target_bytes = sum(entry.size_bytes for entry in self.target)
        self._ranges = unpack_columns(head.ranges, _RANGE_COLUMNS)
        self._names = head.names.split("\0")[:-1]
        self.dictionary = self._parse_dictionary(head.dictionary)
        sizes = unpack_columns(head.sizes, 1)[0]
        self.part_checks = unpack_columns(head.part_checks, 1)[0]
        self.output_checks = unpack_columns(head.output_checks, 1)[0]
        if not len(sizes) == len(self.part_checks) == len(self.output_checks):
            raise UntrustedInput("a patch's tables of parts have different lengths")
        if (sizes > np.uint64(size_bytes)).any() or parts_offset + int(sizes.sum()) != size_bytes:
            raise UntrustedInput(f"a patch's parts do not add up to its {size_bytes} bytes: it is cut short or damaged")
        ends = parts_offset + np.cumsum(sizes.astype(np.int64))
        self._starts = np.concatenate(([parts_offset], ends))
        self._check()

    def part(self, index: int) -> tuple[int, int]:
        """(offset, size) of a part in the patch."""
        start = int(self._starts[index])
        return start, int(self._starts[index + 1]) - start

    def ranges(self) -> Iterator[Range]:
        """From the start of the target to its end."""
        target_offset = base_end = 0
        for index, row in enumerate(self._ranges.T.tolist()):
            size, kind, gap, base_bytes, columns = row
            base_offset = (base_end + gap) & 0xFFFF_FFFF_FFFF_FFFF
            mode, dtype = _MODES.get(kind & 0xFF), dtypes.BY_CODE.get(kind >> 8)
            if mode is None or dtype is None:
                raise UntrustedInput(f"a patch's range has mode {kind & 0xFF} and dtype {kind >> 8}: not known here")
            yield Range(index, mode, dtype, target_offset, size, base_offset, base_bytes, columns, self._names[index])
            target_offset += size
            base_end = base_offset + base_bytes

    def units(self) -> Iterator[Unit]:
        return units(self.ranges)

    def _parse_dictionary(self, content: bytes) -> tuple[tuple[int, int], ...]:
        end = total = 0
        found = []
        table = unpack_columns(content, _PIECE_COLUMNS)
        if table.shape[1] > limits.DELTA_RANGES:
            raise UntrustedInput("a patch's dictionary has too many pieces")
        for gap, size in table.T.tolist():
            offset = end + gap
            end = offset + size
            total += size
            found.append((offset, size))
            if end > self.base_bytes or total > limits.DELTA_GLUE_BYTES:
                raise UntrustedInput("a patch's dictionary lies outside the base, or is too large")
        return tuple(found)

    def _check(self) -> None:
        count = self._ranges.shape[1]
        if count > limits.DELTA_RANGES or len(self._names) != count:
            raise UntrustedInput(f"a patch has {count} ranges and {len(self._names)} names")
        end = glue = 0
        for one in self.ranges():
            end += one.size_bytes
            glue += one.size_bytes if one.mode is Mode.GLUE else 0
            if one.size_bytes < 1 or end > self.target_bytes:
                raise UntrustedInput(f"a patch's ranges do not fit its target of {self.target_bytes} bytes")
            if one.base_offset + one.base_bytes > self.base_bytes:
                raise UntrustedInput(f"a patch's range lies outside its base of {self.base_bytes} bytes")
            _check_range(one)
        if end != self.target_bytes:
            raise UntrustedInput(f"a patch's ranges make {end} bytes; its target has {self.target_bytes}")
        if glue > limits.DELTA_GLUE_BYTES:
            raise UntrustedInput(f"a patch has {glue} bytes of glue; at most {limits.DELTA_GLUE_BYTES} are taken")
        parts = 0
        most = len(self.part_checks)
        for unit in self.units():
            parts += count_parts(unit)
            if parts > most:
                break
        if parts != most:
            raise UntrustedInput(f"a patch has {most} parts; its ranges need another number")


_MODES = {int(mode): mode for mode in Mode}


def _check_range(one: Range) -> None:
    if one.mode in GROUPED:
        whole = one.columns % one.dtype.block_elements == 0 and one.size_bytes % one.dtype.block_bytes == 0
        if not whole or not 1 <= one.columns <= limits.DELTA_ROW_ELEMENTS:
            raise UntrustedInput(f"a patch's range has rows of {one.columns} numbers of {one.dtype.name}")
        if one.dtype.family is not GROUPED[one.mode] or one.base_bytes != one.size_bytes:
            raise UntrustedInput(
                f"a patch's range of {one.dtype.name} has mode {one.mode.name} and another size before"
            )
    elif one.mode is Mode.COPY and one.base_bytes != one.size_bytes:
        raise UntrustedInput("a patch copies another number of bytes than it has room for")
    elif one.mode is Mode.WHOLE and max(one.size_bytes, one.base_bytes) > limits.DELTA_WHOLE_BYTES:
        raise UntrustedInput(f"a patch wants {one.size_bytes} bytes at once; {limits.DELTA_WHOLE_BYTES} are taken")


def _files(entries: list[tuple[str, int, bytes]]) -> tuple[FileEntry, ...]:
    if not 1 <= len(entries) <= limits.DELTA_FILES:
        raise UntrustedInput(f"a patch names {len(entries)} files; 1 to {limits.DELTA_FILES} are taken")
    found = tuple(FileEntry(*entry) for entry in entries)
    if len({entry.path for entry in found}) != len(found):
        raise UntrustedInput("a patch names a file twice")
    for entry in found:
        if entry.size_bytes < 0 or len(entry.sha256) != DIGEST_BYTES:
            raise UntrustedInput("a patch names a file with an impossible size or digest")
        if not (entry.path == "" and len(found) == 1) and not is_safe(entry.path):
            raise UntrustedInput(f"a patch names the file '{entry.path[:80]}', which is no plain relative path")
    if sum(entry.size_bytes for entry in found) > limits.ARTIFACT_BYTES:
        raise UntrustedInput(f"a patch is for more than {limits.ARTIFACT_BYTES} bytes")
    return found


def is_safe(path: str) -> bool:
    """Relative, forward slashes, no empty, `.` or `..` step, nothing that Windows reads as a drive or a device."""
    steps = path.split("/")
    return (
        0 < len(path) <= limits.DELTA_PATH_CHARS
        and not any(ord(char) < 32 or char in '\\:*?"<>|' for char in path)
        and all(step not in ("", ".", "..") for step in steps)
    )


def parse(read: Callable[[int, int], bytes | memoryview], size_bytes: int) -> Patch:
    """Read and check a patch's head. Raises `UntrustedInput`; reads nothing but the head."""
    prefix = bytes(read(0, min(PREFIX_BYTES, size_bytes)))
    if len(prefix) < PREFIX_BYTES or prefix[: len(MAGIC)] != MAGIC:
        raise UntrustedInput("this is no Whimbrel patch: it does not begin like one")
    if prefix[len(MAGIC)] != VERSION:
        what_to_do = "update it" if prefix[len(MAGIC)] > VERSION else "make the patch anew"
        raise UntrustedInput(f"the patch has format {prefix[len(MAGIC)]}; this Whimbrel reads {VERSION}: {what_to_do}")
    packed, expanded = int.from_bytes(prefix[8:12], "little"), int.from_bytes(prefix[12:16], "little")
    if packed > size_bytes - PREFIX_BYTES or max(packed, expanded) > limits.DELTA_HEAD_BYTES:
        raise UntrustedInput(f"the patch's head claims {packed} and {expanded} bytes: it is cut short or damaged")
    content = bytes(read(PREFIX_BYTES, packed))
    if hashlib.sha256(content).digest()[:16] != prefix[16:32]:
        raise UntrustedInput("the patch's head is damaged: its hash does not agree")
    try:
        head = msgspec.msgpack.decode(opaque.expand(content, expanded), type=Head)
    except msgspec.DecodeError as error:
        raise UntrustedInput(f"the patch's head is not what the format says: {sentence(str(error))}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UntrustedInput(f"the patch's head is not what the format says: {reason_of(error)}") from error
    return Patch(head, size_bytes=size_bytes, parts_offset=PREFIX_BYTES + packed)


def build(head: Head) -> bytes:
    """The bytes before the parts."""
    content = msgspec.msgpack.encode(head)
    packed = opaque.shrink(content)
    sizes = len(packed).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return MAGIC + bytes([VERSION]) + sizes + hashlib.sha256(packed).digest()[:16] + packed


def range_columns(ranges: Sequence[Any]) -> bytes:
    """`Head.ranges` of `Range`s in order."""
    rows = []
    base_end = 0
    for one in ranges:
        gap = (one.base_offset - base_end) & 0xFFFF_FFFF_FFFF_FFFF
        rows.append((one.size_bytes, one.mode | one.dtype.code << 8, gap, one.base_bytes, one.columns))
        base_end = one.base_offset + one.base_bytes
    return pack_columns(list(zip(*rows, strict=True)) if rows else [[]] * _RANGE_COLUMNS)
