"""Which old tensor does each new tensor follow, and how is each range of the target made?

1. By name, where the kind of numbers agrees; then, among those left over, by equal bytes; then by shape and order
   (exporters renumber: `onnx::MatMul_123`).
2. What lies between tensors is glue. Glue that did not change joins the copies around it, so that a file whose tensors
   all stayed is one copy and a header.
3. Modes are chosen from the bytes without trying them all; only a tensor that changed beyond recognition is tried, on a
   sample.

Called by the encoder and the advice.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from whimbrel import limits
from whimbrel.delta import dtypes, floats, opaque
from whimbrel.delta.artifact import Artifact
from whimbrel.delta.dtypes import Dtype, Family
from whimbrel.delta.patch import Mode, Range
from whimbrel.delta.streams import Array
from whimbrel.delta.tensor import Tensor

_CODED = {Family.FLOAT: Mode.FLOAT, Family.QBLOCK: Mode.QBLOCK, Family.INT8: Mode.INT8}
_CUT_ROW_ELEMENTS = 8 * limits.KIB  # what a row without an end is cut to: a multiple of every block
_NARROW_ELEMENTS = 64  # rows shorter than that are one row: their levels would cost more than they tell
_SAMPLE_ELEMENTS = 32 * limits.KIB
_SMALLEST_SAMPLE = 1024
_STRANGE = 0.7  # the change is that large beside the numbers: worth a trial; unrelated weights give 1.4


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranges of a target, and the base's glue as (offset, size)."""

    ranges: list[Range]
    dictionary: list[tuple[int, int]]


def pair(old: list[Tensor], new: list[Tensor], *, base: Artifact, target: Artifact) -> list[Tensor | None]:
    """For each new tensor the old one to start from, or none."""
    by_name: dict[tuple[str, int, tuple[int, ...]], list[Tensor]] = defaultdict(list)
    for tensor in reversed(old):
        by_name[_identity(tensor)].append(tensor)
    found: list[Tensor | None] = []
    for tensor in new:
        same = by_name.get(_identity(tensor))
        found.append(same.pop() if same else None)
    used = {tensor.offset for tensor in found if tensor is not None}
    rest: dict[tuple[int, tuple[int, ...]], list[Tensor]] = defaultdict(list)
    for tensor in old:
        if tensor.offset not in used:
            rest[tensor.dtype.code, tensor.shape].append(tensor)
    orphans = [index for index, tensor in enumerate(found) if tensor is None]
    by_bytes: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
    for candidates in rest.values() if orphans else ():
        for tensor in candidates:
            by_bytes[tensor.size_bytes, _checksum(base, tensor)].append(tensor)
    for index in orphans:
        twins = by_bytes.get((new[index].size_bytes, _checksum(target, new[index]) if by_bytes else 0))
        if twins:
            found[index] = twins[0]
            candidates = rest[twins[0].dtype.code, twins[0].shape]
            if twins[0] in candidates:
                candidates.remove(twins[0])
    for index in orphans:
        waiting = rest.get((new[index].dtype.code, new[index].shape))
        if found[index] is None and waiting:
            found[index] = waiting.pop(0)
    return found


def _identity(tensor: Tensor) -> tuple[str, int, tuple[int, ...]]:
    """The first dimension may grow: a vocabulary does."""
    return tensor.name, tensor.dtype.code, tensor.shape[1:] if len(tensor.shape) > 1 else tensor.shape


def _checksum(artifact: Artifact, tensor: Tensor) -> int:
    digest = xxhash.xxh3_64()
    for offset, size in _chunks(tensor.offset, tensor.size_bytes):
        digest.update(artifact.read(offset, size))
    return digest.intdigest()


def _chunks(offset: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, limits.DELTA_COPY_BYTES):
        yield offset + start, min(limits.DELTA_COPY_BYTES, size - start)


def plan(
    base: Artifact,
    target: Artifact,
    old: list[Tensor],
    new: list[Tensor],
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Plan:
    """Tile the target. `advance` hears of the target's bytes as they are compared."""
    ranges: list[Range] = []
    end = base_end = 0
    for tensor, before in zip(new, pair(old, new, base=base, target=target), strict=True):
        ranges += _gap(base, target, end, tensor.offset, base_end)
        ranges += _cut(base, target, tensor, before)
        end = tensor.end
        base_end = before.end if before is not None else base_end
        advance(tensor.size_bytes)
    ranges += _gap(base, target, end, target.size_bytes, base_end)
    advance(target.size_bytes - sum(tensor.size_bytes for tensor in new))
    ranges = _join_copies(_within_glue(ranges), base, target)
    return Plan([replace(one, index=index) for index, one in enumerate(ranges)], _dictionary(old, base.size_bytes))


def _range(
    mode: Mode,
    offset: int,
    size: int,
    base: tuple[int, int] = (0, 0),
    *,
    name: str = "",
    dtype: Dtype = dtypes.BYTES,
    columns: int = 0,
) -> Range:
    return Range(0, mode, dtype, offset, size, base[0], base[1], columns, name.replace("\0", "?"))


def _cut(base: Artifact, target: Artifact, new: Tensor, old: Tensor | None) -> list[Range]:
    if old is None:
        return [_range(Mode.RAW, new.offset, new.size_bytes, name=new.name, dtype=new.dtype)]
    shared = min(old.size_bytes, new.size_bytes)
    columns = _columns(new)
    where = {"name": new.name, "dtype": new.dtype, "columns": columns}
    mode = _CODED.get(new.dtype.family, Mode.RAW)
    if _is_equal(base, old.offset, target, new.offset, shared):
        mode = Mode.COPY
    elif mode is not Mode.RAW and _is_stranger(base, target, new, old, shared):
        return [_range(Mode.RAW, new.offset, new.size_bytes, name=new.name, dtype=new.dtype)]
    ranges = [_range(mode, new.offset, shared, (old.offset, shared), **where)]  # type: ignore[arg-type]
    if shared < new.size_bytes:
        ranges.append(_range(Mode.ROWS, new.offset + shared, new.size_bytes - shared, name=new.name, dtype=new.dtype))
    return ranges


def _columns(tensor: Tensor) -> int:
    """Numbers a row: all but the first dimension for plain numbers, the last one for blocks."""
    count = tensor.dtype.elements(tensor.size_bytes)
    if tensor.dtype.family is Family.QBLOCK:
        columns = tensor.shape[-1] if len(tensor.shape) > 1 else count
        if columns % tensor.dtype.block_elements:
            columns = _CUT_ROW_ELEMENTS
    else:
        columns = count // tensor.shape[0] if len(tensor.shape) > 1 else count
        if columns < _NARROW_ELEMENTS:
            columns = count
    return columns if columns <= limits.DELTA_ROW_ELEMENTS else _CUT_ROW_ELEMENTS


def _is_equal(base: Artifact, base_offset: int, target: Artifact, offset: int, size: int) -> bool:
    for (at, take), (base_at, _) in zip(_chunks(offset, size), _chunks(base_offset, size), strict=True):
        if base.read(base_at, take) != target.read(at, take):
            return False
    return True


def _is_stranger(base: Artifact, target: Artifact, new: Tensor, old: Tensor, shared: int) -> bool:
    """Whether the new tensor is cheaper without the old one. Judged by a sample from the middle."""
    if new.dtype.family is Family.QBLOCK:
        return False
    sample = min(shared, _SAMPLE_ELEMENTS * new.dtype.block_bytes)
    start = (shared - sample) // 2 // new.dtype.block_bytes * new.dtype.block_bytes
    before, after = bytes(base.read(old.offset + start, sample)), bytes(target.read(new.offset + start, sample))
    if new.dtype.family is Family.INT8:
        values = [np.frombuffer(content, np.int8).astype(np.float32) for content in (before, after)]
    else:
        shape = floats.SHAPES[new.dtype.code]
        values = [floats.to_float32(np.frombuffer(c, shape.unsigned), new.dtype) for c in (before, after)]
    with np.errstate(all="ignore"):
        change, size = (np.abs(one) for one in (values[1] - values[0], values[1]))
        told = np.isfinite(change) & np.isfinite(size)
        known = change[told].sum(dtype=np.float64) < _STRANGE * size[told].sum(dtype=np.float64)
    if len(change) < _SMALLEST_SAMPLE or known:
        return False
    width = new.dtype.block_bytes
    raw = len(opaque.write(after, width=width, thorough=False))
    if new.dtype.family is Family.INT8:
        return len(opaque.write((values[1] - values[0]).astype(np.int8).tobytes(), thorough=False)) >= raw
    writer = floats.FloatWriter(new.dtype)
    bits: list[Array] = [np.frombuffer(content, floats.SHAPES[new.dtype.code].unsigned) for content in (before, after)]
    writer.add(floats.Segment(bits[0], np.array([len(bits[0])])), bits[1])
    head, pages = writer.finish()
    return len(head) + len(pages[0]) >= raw


def _gap(base: Artifact, target: Artifact, start: int, end: int, base_start: int) -> list[Range]:
    """Bytes between two tensors: glue, or opaque bytes beside the gap of the base in the same place."""
    if start == end:
        return []
    size = end - start
    if size <= limits.DELTA_GLUE_GAP_BYTES:
        return [_range(Mode.GLUE, start, size)]
    if base_start + size <= base.size_bytes and _is_equal(base, base_start, target, start, size):
        return [_range(Mode.COPY, start, size, (base_start, size))]
    window = min(base.size_bytes - base_start, size + limits.DELTA_WINDOW_MARGIN_BYTES)
    return [_range(Mode.RAW, start, size, (base_start, window))]


def _within_glue(ranges: list[Range]) -> list[Range]:
    """Where the gaps together are too much for one part, the largest become opaque."""
    total = sum(one.size_bytes for one in ranges if one.mode is Mode.GLUE)
    if total <= limits.DELTA_GLUE_BYTES:
        return ranges
    largest = sorted((one.size_bytes for one in ranges if one.mode is Mode.GLUE), reverse=True)
    bound = 0
    for size in largest:
        if total <= limits.DELTA_GLUE_BYTES:
            break
        total -= size
        bound = size
    return [replace(one, mode=Mode.RAW) if one.mode is Mode.GLUE and one.size_bytes >= bound else one for one in ranges]


def _join_copies(ranges: list[Range], base: Artifact, target: Artifact) -> list[Range]:
    """Neighbours that are neighbours in the base too become one; unchanged glue between them as well."""
    joined: list[Range] = []
    for one in ranges:
        last = joined[-1] if joined else None
        if last is not None and last.mode is Mode.COPY:
            end = last.base_offset + last.size_bytes
            fits = one.mode is Mode.COPY and one.base_offset == end
            if one.mode is Mode.GLUE and end + one.size_bytes <= base.size_bytes:
                fits = _is_equal(base, end, target, one.target_offset, one.size_bytes)
            if fits:
                size = last.size_bytes + one.size_bytes
                joined[-1] = replace(last, size_bytes=size, base_bytes=size, name="", dtype=dtypes.BYTES, columns=0)
                continue
        joined.append(one)
    return joined


def _dictionary(old: list[Tensor], size_bytes: int) -> list[tuple[int, int]]:
    """The base's glue, as much as there is room for."""
    found = []
    end = 0
    room = limits.DELTA_GLUE_BYTES
    for start, stop in [*((tensor.offset, tensor.end) for tensor in old), (size_bytes, size_bytes)]:
        take = min(start - end, room)
        if take > 0 and start - end <= limits.DELTA_GLUE_GAP_BYTES:
            found.append((end, take))
            room -= take
        end = stop
    return found
