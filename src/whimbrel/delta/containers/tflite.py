"""Find the constant tensors of a TFLite model.

Source: tensorflow/lite/schema/schema.fbs (Model.subgraphs = field 2, Model.buffers = 4; SubGraph.tensors = 0; Tensor
shape = 0, type = 1, buffer = 2, name = 3; Buffer data = 0, offset = 1, size = 2) and the FlatBuffers internals page.
"""

import struct

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput

_TYPES = {
    0: "f32",
    1: "f16",
    2: "i32",
    3: "u8",
    4: "i64",
    6: "bool",
    7: "i16",
    8: "c64",
    9: "i8",
    10: "f64",
    11: "c128",
    12: "u64",
    15: "u32",
    16: "u16",
    18: "bf16",
}
_SMALL_BYTES = 64


def parse(cursor: Cursor) -> list[Tensor]:
    """The tensors that have bytes in the file, one a buffer. Raises `UntrustedInput`."""
    model = cursor.at(0).u32()
    buffers = [_buffer(cursor, table) for table in _tables(cursor, model, 4)]
    found: list[Tensor] = []
    seen: set[int] = set()
    for graph in _tables(cursor, model, 2):
        for table in _tables(cursor, graph, 0):
            index = _scalar(cursor, table, 2, "<I")
            if index in seen or index >= len(buffers) or buffers[index][1] < _SMALL_BYTES:
                continue
            seen.add(index)
            start, size = buffers[index]
            name = _vector(cursor, table, 3)
            label = cursor.at(name[0]).name(name[1]) if name else f"buffer {index}"
            dtype = dtypes.BY_NAME[_TYPES.get(_scalar(cursor, table, 1, "<b"), "bytes")]
            found.append(Tensor(label, dtype, _shape(cursor, table), start, size))
    return found


def _field(cursor: Cursor, table: int, index: int) -> int:
    """The place of a table's field, 0 where it has its default."""
    vtable = table - cursor.at(table).i32()
    if 6 + 2 * index > cursor.at(vtable).u16():
        return 0
    inside = cursor.at(vtable + 4 + 2 * index).u16()
    return table + inside if inside else 0


def _scalar(cursor: Cursor, table: int, index: int, form: str) -> int:
    place = _field(cursor, table, index)
    return int(struct.unpack(form, cursor.at(place).take(struct.calcsize(form)))[0]) if place else 0


def _vector(cursor: Cursor, table: int, index: int) -> tuple[int, int] | None:
    """(place of the first element, how many)."""
    place = _field(cursor, table, index)
    if not place:
        return None
    start = place + cursor.at(place).u32()
    return start + 4, cursor.at(start).u32()


def _tables(cursor: Cursor, table: int, index: int) -> list[int]:
    found = _vector(cursor, table, index)
    if found is None:
        return []
    start, count = found
    if count > limits.DELTA_TENSORS:
        raise UntrustedInput(f"a TFLite model has {count} entries; at most {limits.DELTA_TENSORS} are taken")
    return [place + cursor.at(place).u32() for place in range(start, start + 4 * count, 4)]


def _buffer(cursor: Cursor, table: int) -> tuple[int, int]:
    inside = _vector(cursor, table, 0)
    if inside is not None:
        return inside
    offset = _scalar(cursor, table, 1, "<Q")
    return (offset, _scalar(cursor, table, 2, "<Q")) if offset > 1 else (0, 0)


def _shape(cursor: Cursor, table: int) -> tuple[int, ...]:
    found = _vector(cursor, table, 0)
    if found is None:
        return ()
    start, count = found
    if count > limits.DELTA_DIMENSIONS:
        raise UntrustedInput(f"a TFLite tensor has {count} dimensions")
    return tuple(max(0, size) for size in struct.unpack(f"<{count}i", cursor.at(start).take(4 * count)))
