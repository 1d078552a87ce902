"""How is a patch made, and how is it applied?

    head = encode(base, target, emit)            # parts go to `emit` as they are made; head + parts is the patch
    patch = parse(read, size)                    # nothing but numbers, all checked
    check_base(patch, base)                      # before a byte is written
    for unit in patch.units():                   # in any order, from any thread
        Decoder(patch, read, base).run(unit, write_at)

1. `run` is `map` or something like it that keeps the order and may use threads: the codec starts none.
2. The caller must compare the target's SHA-256 with that of the patch and that of the release: the checks of
   parts are against accidents, not against enemies.
3. Working memory is a few segments, whatever the size of the files.

Called by the body `whimbrel.patchfile`, and through it by publish, the agent and the command line.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import xxhash

from whimbrel import limits
from whimbrel.delta import floats, lowrank, opaque
from whimbrel.delta.artifact import Artifact, FileEntry, WriteAt, of_bytes
from whimbrel.delta.dtypes import BYTES, Dtype, Family
from whimbrel.delta.patch import (
    GROUPED,
    Copy,
    Factor,
    Glue,
    Group,
    Head,
    Mode,
    Opaque,
    Patch,
    Piece,
    Range,
    Unit,
    build,
    pack_columns,
    parse,
    range_columns,
    units,
)
from whimbrel.delta.streams import U8, Array
from whimbrel.errors import UntrustedInput

if TYPE_CHECKING:  # imported where it is needed: a device that reads a patch of floats needs none of them
    from whimbrel.delta import integers, qblocks
    from whimbrel.delta.align import Plan

__all__ = ["Decoder", "check_base", "encode", "encode_bytes", "parse"]

Advance = Callable[[int], None]
Emit = Callable[[bytes], None]
A = TypeVar("A")
B = TypeVar("B")


class Run(Protocol):
    """`map`, or one that works ahead: results come in the order of the items."""

    def __call__(self, function: Callable[[A], B], items: Iterable[A], /) -> Iterable[B]: ...


def _quiet(_: int) -> None:
    return None


# --- writing ---


def encode(base: Artifact, target: Artifact, emit: Emit, *, run: Run = map, advance: Advance = _quiet) -> bytes:
    """Make a patch: the parts go to `emit` in order, the head comes back; the patch is head, then parts.

    `advance` hears of bytes of work done, `work_bytes(base, target)` in all. Raises `UntrustedInput` if a file changes
    while it is read.
    """
    from whimbrel.delta import align, containers  # here: a device, which only reads patches, does without

    entries = (base.entries(advance), target.entries(advance))
    old, new = containers.find(base), containers.find(target)
    planned = align.plan(base, target, old, new, advance=advance)
    encoder = _Encoder(base, target, planned, entries)
    if max(base.size_bytes, target.size_bytes) > limits.DELTA_WHOLE_BYTES or not target.size_bytes:
        return encoder.encode(emit, run, advance)
    parts: list[bytes] = []
    head = encoder.encode(parts.append, run, advance)
    size = len(head) + sum(map(len, parts))
    has_few_numbers = encoder.number_bytes <= limits.DELTA_WHOLE_NUMBER_BYTES and size < limits.DELTA_WHOLE_PATCH_BYTES
    if has_few_numbers or encoder.glue_bytes > target.size_bytes // 2:
        whole = _encode_whole(base, target, entries)
        if sum(map(len, whole)) < size:
            head, *parts = whole
    for part in parts:
        emit(part)
    return head


def encode_bytes(base: bytes, target: bytes, *, path: str = "") -> bytes:
    """A patch between two files in memory."""
    parts: list[bytes] = []
    head = encode(of_bytes(base, path), of_bytes(target, path), parts.append)
    return head + b"".join(parts)


def work_bytes(base: Artifact, target: Artifact) -> int:
    """The total that `encode` reports to `advance`: both files hashed, the target compared and coded."""
    return base.size_bytes + 3 * target.size_bytes


class _Encoder:
    """One patch in the making."""

    def __init__(
        self,
        base: Artifact,
        target: Artifact,
        planned: "Plan",
        entries: tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]],
    ) -> None:
        self._base = base
        self._target = target
        self._entries = entries
        self._ranges = planned.ranges
        self._dictionary = planned.dictionary
        self._factors: dict[int, bytes] = {}
        self.glue_bytes = sum(one.size_bytes for one in planned.ranges if one.mode in (Mode.GLUE, Mode.RAW))
        self.number_bytes = sum(one.size_bytes for one in planned.ranges if one.mode in GROUPED)
        self._opaque_bytes = sum(one.size_bytes for one in planned.ranges if one.mode in (Mode.RAW, Mode.ROWS))

    def encode(self, emit: Emit, run: Run, advance: Advance) -> bytes:
        self._ranges = list(run(self._with_factors, self._ranges))
        sizes, checks, outputs = array("Q"), array("Q"), array("Q")  # 10,000 of each for 4 GB
        for made in run(self._unit, self._units()):
            for part, output in made[1]:
                emit(part)
                sizes.append(len(part))
                checks.append(xxhash.xxh3_64_intdigest(part))
                outputs.append(output)
            advance(made[0])
        end = 0
        dictionary = []
        for offset, size in self._dictionary if any(one.mode is Mode.GLUE for one in self._ranges) else ():
            dictionary.append((offset - end, size))
            end = offset + size
        return build(
            Head(
                base=[(entry.path, entry.size_bytes, entry.sha256) for entry in self._entries[0]],
                target=[(entry.path, entry.size_bytes, entry.sha256) for entry in self._entries[1]],
                ranges=range_columns(self._ranges),
                names="".join(one.name + "\0" for one in self._ranges),
                dictionary=pack_columns(list(zip(*dictionary, strict=True)) if dictionary else [[], []]),
                sizes=pack_columns([sizes]),
                part_checks=pack_columns([checks]),
                output_checks=pack_columns([outputs]),
            )
        )

    def _units(self) -> Iterator[Unit]:
        return units(lambda: iter(self._ranges))

    def _with_factors(self, one: Range) -> Range:
        """A float range becomes low-rank where that pays."""
        rows = one.rows if one.mode is Mode.FLOAT else 0
        if not rows or one.size_bytes % one.row_bytes or not _may_be_low_rank(rows, one.columns):
            return one

        def read(first: int, last: int) -> tuple[Array, Array]:
            piece = Piece(one, first, last)
            both = (
                self._base.read(one.base_offset + piece.start, piece.size_bytes),
                self._target.read(one.target_offset + piece.start, piece.size_bytes),
            )
            shape = floats.SHAPES[one.dtype.code]
            before, after = (
                lowrank.to_float64(np.frombuffer(content, shape.unsigned), one.dtype).reshape(-1, one.columns)
                for content in both
            )
            return before, after

        resolution = 2.0 ** -floats.SHAPES[one.dtype.code].mantissa_bits
        found = lowrank.find(read, row_count=rows, columns=one.columns, resolution=resolution)
        if found is None:
            return one
        self._factors[one.index] = lowrank.write(found)
        return Range(
            one.index,
            Mode.LOWRANK,
            one.dtype,
            one.target_offset,
            one.size_bytes,
            one.base_offset,
            one.base_bytes,
            one.columns,
            one.name,
        )

    def _unit(self, unit: Unit) -> tuple[int, list[tuple[bytes, int]]]:
        """(bytes of the target, [(part, check of its output)])."""
        if isinstance(unit, Copy):
            return unit.size_bytes, []
        if isinstance(unit, Glue):
            content = b"".join(self._read_target(one.target_offset, one.size_bytes) for one in unit.ranges)
            window = b"".join(bytes(self._base.read(offset, size)) for offset, size in self._dictionary)
            return len(content), [(opaque.write(content, window=window), xxhash.xxh3_64_intdigest(content))]
        if isinstance(unit, Opaque):
            content = self._read_target(unit.target_offset, unit.size_bytes)
            window = bytes(self._base.read(unit.window_offset, unit.window_bytes))
            thorough = self._opaque_bytes <= limits.DELTA_GLUE_BYTES
            width = unit.range.dtype.block_bytes
            made = opaque.write(content, window=window, width=width, thorough=thorough)
            return len(content), [(made, xxhash.xxh3_64_intdigest(content))]
        if isinstance(unit, Factor):
            return 0, [(self._factors[unit.range.index], 0)]
        return self._group(unit)

    def _read_target(self, offset: int, size: int) -> bytes:
        return bytes(self._target.read(offset, size))

    def _group(self, group: Group) -> tuple[int, list[tuple[bytes, int]]]:
        writer = _writer(group.dtype)
        factors = _FactorCache(lambda one: self._factors[one.index])
        outputs = []
        size = 0
        for pieces in group.segments:
            content = b"".join(
                self._read_target(piece.range.target_offset + piece.start, piece.size_bytes) for piece in pieces
            )
            size += len(content)
            outputs.append(xxhash.xxh3_64_intdigest(content))
            _write_segment(writer, group.dtype, _old(self._base, pieces, factors), pieces, content)
            del content
        head, pages = writer.finish()
        return size, [(head, 0), *zip(pages, outputs, strict=True)]


def _may_be_low_rank(rows: int, columns: int) -> bool:
    return max(rows, columns) <= limits.DELTA_FACTOR_SIDE


def _encode_whole(
    base: Artifact, target: Artifact, entries: tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]]
) -> list[bytes]:
    """A byte-wise patch of everything: the head and the only part."""
    before, after = bytes(base.read(0, base.size_bytes)), bytes(target.read(0, target.size_bytes))
    part = opaque.write_whole(before, after)
    whole = Range(0, Mode.WHOLE, BYTES, 0, len(after), 0, len(before), 0, "")
    head = build(
        Head(
            base=[(entry.path, entry.size_bytes, entry.sha256) for entry in entries[0]],
            target=[(entry.path, entry.size_bytes, entry.sha256) for entry in entries[1]],
            ranges=range_columns([whole]),
            names="\0",
            dictionary=b"",
            sizes=pack_columns([[len(part)]]),
            part_checks=pack_columns([[xxhash.xxh3_64_intdigest(part)]]),
            output_checks=pack_columns([[xxhash.xxh3_64_intdigest(after)]]),
        )
    )
    return [head, part]


# --- reading ---


def check_base(patch: Patch, base: Artifact, *, advance: Advance = _quiet) -> None:
    """Check that every file of `base` is the one from which the patch was made. Raises `UntrustedInput`."""
    found = [(member.path, member.size_bytes) for member in base.members]
    expected = [(entry.path, entry.size_bytes) for entry in patch.base]
    if found != expected:
        raise UntrustedInput(
            f"the patch is for another base: it wants {_describe(expected)}, and found {_describe(found)}"
        )
    for have, want in zip(base.entries(advance), patch.base, strict=True):
        if have.sha256 != want.sha256:
            raise UntrustedInput(
                f"the patch is for another base: '{want.path or 'the file'}' has SHA-256 {have.sha256.hex()}, "
                f"and should have {want.sha256.hex()}"
            )


def _describe(files: list[tuple[str, int]]) -> str:
    if len(files) == 1:
        return f"one file of {files[0][1]} bytes"
    return f"{len(files)} files of {sum(size for _, size in files)} bytes"


class Decoder:
    """Applies the units of a patch. Threads may share one decoder."""

    def __init__(self, patch: Patch, read_patch: Callable[[int, int], bytes | memoryview], base: Artifact) -> None:
        self._patch = patch
        self._read = read_patch
        self._base = base
        self._factor_parts = {unit.range.index: unit.part for unit in patch.units() if isinstance(unit, Factor)}

    def run(self, unit: Unit, write_at: WriteAt, *, present: Callable[[int, int], bytes] | None = None) -> int:
        """Make the unit's bytes and write them; the number of them.

        `present(offset, size)` gives what the output holds already: a segment that is there and agrees with its check
        is not made again. Raises `UntrustedInput` for damage.
        """
        if isinstance(unit, Copy):
            write_at(unit.target_offset, self._base.read(unit.base_offset, unit.size_bytes))
            return unit.size_bytes
        if isinstance(unit, Factor):
            return 0
        if isinstance(unit, Glue):
            return self._glue(unit, write_at)
        if isinstance(unit, Opaque):
            return self._opaque(unit, write_at)
        return self._group(unit, write_at, present)

    def _part(self, index: int) -> bytes:
        offset, size = self._patch.part(index)
        content = bytes(self._read(offset, size))
        if len(content) != size or xxhash.xxh3_64_intdigest(content) != int(self._patch.part_checks[index]):
            raise UntrustedInput(f"the patch is damaged: its part {index} does not agree with its checksum")
        return content

    def _check_output(self, part: int, content: bytes | memoryview) -> None:
        if xxhash.xxh3_64_intdigest(content) != int(self._patch.output_checks[part]):
            raise UntrustedInput(f"part {part} made other bytes than it should: the base or the patch is damaged")

    def _glue(self, unit: Glue, write_at: WriteAt) -> int:
        window = b"".join(bytes(self._base.read(offset, size)) for offset, size in self._patch.dictionary)
        size = sum(one.size_bytes for one in unit.ranges)
        content = opaque.read(self._part(unit.part), size, window=window)
        self._check_output(unit.part, content)
        start = 0
        for one in unit.ranges:
            write_at(one.target_offset, content[start : start + one.size_bytes])
            start += one.size_bytes
        return size

    def _opaque(self, unit: Opaque, write_at: WriteAt) -> int:
        window = bytes(self._base.read(unit.window_offset, unit.window_bytes))
        reader = opaque.read_whole if unit.range.mode is Mode.WHOLE else opaque.read
        content = reader(self._part(unit.part), unit.size_bytes, window=window)
        self._check_output(unit.part, content)
        write_at(unit.target_offset, content)
        return unit.size_bytes

    def _group(self, group: Group, write_at: WriteAt, present: Callable[[int, int], bytes] | None) -> int:
        reader = None
        factors = _FactorCache(lambda one: self._part(self._factor_parts[one.index]))
        done = 0
        for part, pieces in enumerate(group.segments, group.part + 1):
            done += sum(piece.size_bytes for piece in pieces)
            if present is not None and self._is_there(part, pieces, present):
                continue
            reader = reader or _reader(group.dtype, self._part(group.part))
            self._segment(part, pieces, write_at, reader=reader, dtype=group.dtype, factors=factors)
        return done

    def _segment(
        self,
        part: int,
        pieces: tuple[Piece, ...],
        write_at: WriteAt,
        *,
        reader: "_Reader",
        dtype: Dtype,
        factors: "_FactorCache",
    ) -> None:
        # Of its own, so that nothing of one segment is in memory while the next is read.
        before = _old(self._base, pieces, factors)
        content = _read_segment(reader, dtype, before, pieces, self._part(part))
        view = content.reshape(-1).view(np.uint8).data
        self._check_output(part, view)
        start = 0
        for piece in pieces:
            write_at(piece.range.target_offset + piece.start, view[start : start + piece.size_bytes])
            start += piece.size_bytes

    def _is_there(self, part: int, pieces: tuple[Piece, ...], present: Callable[[int, int], bytes]) -> bool:
        digest = xxhash.xxh3_64()
        for piece in pieces:
            digest.update(present(piece.range.target_offset + piece.start, piece.size_bytes))
        return digest.intdigest() == int(self._patch.output_checks[part])


# --- both: the numbers of a segment ---

_Writer: TypeAlias = "floats.FloatWriter | qblocks.BlockWriter | integers.IntegerWriter"
_Reader: TypeAlias = "floats.FloatReader | qblocks.BlockReader | integers.IntegerReader"


class _FactorCache:
    """The factors of the last range: the pieces of one range follow each other."""

    def __init__(self, load: Callable[[Range], bytes]) -> None:
        self._load = load
        self._last: tuple[int, lowrank.Factors] | None = None

    def of(self, one: Range) -> lowrank.Factors:
        if self._last is None or self._last[0] != one.index:
            self._last = None  # let go before the next is made
            self._last = (one.index, lowrank.read(self._load(one), one.rows, one.columns))
        return self._last[1]


@dataclass(frozen=True, slots=True)
class _Old:
    """The old numbers of a segment end to end, predictions in the place of low-rank ranges; and `Segment.edges`."""

    content: bytes | memoryview
    edges: U8 | None


def _old(base: Artifact, pieces: tuple[Piece, ...], factors: _FactorCache) -> _Old:
    parts: list[bytes | memoryview] = []
    edges: list[Array] = []
    is_predicted = False
    for piece in pieces:
        content = base.read(piece.range.base_offset + piece.start, piece.size_bytes)
        dtype = piece.range.dtype
        edge = None
        if piece.range.mode is Mode.LOWRANK:
            old: Array = np.frombuffer(content, floats.SHAPES[dtype.code].unsigned)
            place = {"first": piece.first_row, "last": piece.last_row}
            bits, edge = factors.of(piece.range).predict(old, dtype, **place)
            content = bits.data.cast("B")
        is_predicted |= edge is not None
        edges.append(np.zeros(dtype.elements(piece.size_bytes), np.uint8) if edge is None else edge)
        parts.append(content)
    whole = parts[0] if len(parts) == 1 else b"".join(parts)
    return _Old(whole, np.concatenate(edges) if is_predicted else None)


def _writer(dtype: Dtype) -> _Writer:
    if dtype.family is Family.FLOAT:
        return floats.FloatWriter(dtype)
    from whimbrel.delta import integers, qblocks

    return qblocks.BlockWriter(dtype) if dtype.family is Family.QBLOCK else integers.IntegerWriter()


def _reader(dtype: Dtype, head: bytes) -> _Reader:
    if dtype.family is Family.FLOAT:
        return floats.FloatReader(dtype, head)
    from whimbrel.delta import integers, qblocks

    return qblocks.BlockReader(dtype, head) if dtype.family is Family.QBLOCK else integers.IntegerReader(head)


def _rows(pieces: tuple[Piece, ...]) -> Array:
    lengths = [piece.row_lengths for piece in pieces]
    return lengths[0] if len(lengths) == 1 else np.concatenate(lengths)


def _runs(pieces: tuple[Piece, ...]) -> Array:
    """How many bytes each piece has: 8-bit numbers have a level a piece."""
    return np.array([piece.size_bytes for piece in pieces], np.int64)


def _write_segment(writer: _Writer, dtype: Dtype, before: _Old, pieces: tuple[Piece, ...], after: bytes) -> None:
    if isinstance(writer, floats.FloatWriter):
        unsigned = floats.SHAPES[dtype.code].unsigned
        segment = floats.Segment(np.frombuffer(before.content, unsigned), _rows(pieces), before.edges)
        writer.add(segment, np.frombuffer(after, unsigned))
    elif dtype.family is Family.QBLOCK:
        cast("qblocks.BlockWriter", writer).add(
            _blocks(dtype, before, pieces), np.frombuffer(after, np.uint8).reshape(-1, dtype.block_bytes)
        )
    else:
        segment = floats.Segment(np.frombuffer(before.content, np.uint8), _runs(pieces))
        cast("integers.IntegerWriter", writer).add(segment, np.frombuffer(after, np.uint8))


def _read_segment(reader: _Reader, dtype: Dtype, before: _Old, pieces: tuple[Piece, ...], content: bytes) -> Array:
    if isinstance(reader, floats.FloatReader):
        segment = floats.Segment(
            np.frombuffer(before.content, floats.SHAPES[dtype.code].unsigned), _rows(pieces), before.edges
        )
        return np.ascontiguousarray(reader.read(segment, content))
    if dtype.family is Family.QBLOCK:
        blocks = cast("qblocks.BlockReader", reader).read(_blocks(dtype, before, pieces), content)
        return np.ascontiguousarray(blocks)
    segment = floats.Segment(np.frombuffer(before.content, np.uint8), _runs(pieces))
    return np.ascontiguousarray(cast("integers.IntegerReader", reader).read(segment, content))


def _blocks(dtype: Dtype, before: _Old, pieces: tuple[Piece, ...]) -> "qblocks.Segment":
    from whimbrel.delta import qblocks

    rows = _rows(pieces) // dtype.block_elements
    return qblocks.Segment(np.frombuffer(before.content, np.uint8).reshape(-1, dtype.block_bytes), rows)
