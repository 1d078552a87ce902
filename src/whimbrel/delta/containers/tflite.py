"""Find the constant tensors of a TFLite model.

Source: tensorflow/lite/schema/schema.fbs (Model.subgraphs = field 2, Model.buffers = 4; SubGraph.tensors = 0; Tensor
shape = 0, type = 1, buffer = 2, name = 3; Buffer data = 0, offset = 1, size = 2).
"""

import struct

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.containers.flatbuffer import scalar, tables, vector
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
    buffers = [_buffer(cursor, table) for table in tables(cursor, model, 4)]
    found: list[Tensor] = []
    seen: set[int] = set()
    for graph in tables(cursor, model, 2):
        for table in tables(cursor, graph, 0):
            index = scalar(cursor, table, 2, "<I")
            if index in seen or index >= len(buffers) or buffers[index][1] < _SMALL_BYTES:
                continue
            seen.add(index)
            start, size = buffers[index]
            name = vector(cursor, table, 3)
            label = cursor.at(name[0]).name(name[1]) if name else f"buffer {index}"
            dtype = dtypes.BY_NAME[_TYPES.get(scalar(cursor, table, 1, "<b"), "bytes")]
            found.append(Tensor(label, dtype, _shape(cursor, table), start, size))
    return found


def _buffer(cursor: Cursor, table: int) -> tuple[int, int]:
    inside = vector(cursor, table, 0)
    if inside is not None:
        return inside
    offset = scalar(cursor, table, 1, "<Q")
    return (offset, scalar(cursor, table, 2, "<Q")) if offset > 1 else (0, 0)


def _shape(cursor: Cursor, table: int) -> tuple[int, ...]:
    found = vector(cursor, table, 0)
    if found is None:
        return ()
    start, count = found
    if count > limits.DELTA_DIMENSIONS:
        raise UntrustedInput(f"a TFLite tensor has {count} dimensions")
    return tuple(max(0, size) for size in struct.unpack(f"<{count}i", cursor.at(start).take(4 * count)))
