"""Find the tensors of a GGUF file.

Source: `docs/gguf.md` in ggml-org/ggml, versions 2 and 3, little-endian. Key-values are stepped over, except
`general.alignment`. Dimensions lie fastest first; ours are slowest first.
"""

import math
import struct

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.dtypes import Dtype
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import GGUF_MAGIC

_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_ARRAY_DEPTH = 4
_PLAIN = {0: "f32", 1: "f16", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 30: "bf16"}


def parse(cursor: Cursor) -> list[Tensor]:
    """Tensors in the file's order. Raises `UntrustedInput`."""
    cursor.skip(len(GGUF_MAGIC))
    version = cursor.u32()
    if version not in (2, 3):
        raise UntrustedInput(f"GGUF version {version}; 2 and 3 are known")
    tensor_count, value_count = cursor.u64(), cursor.u64()
    if tensor_count > limits.DELTA_TENSORS:
        raise UntrustedInput(f"a GGUF file claims {tensor_count} tensors; at most {limits.DELTA_TENSORS} are taken")
    alignment = 32
    for _ in range(value_count):
        key = cursor.take(_length(cursor, limits.DELTA_HEADER_BYTES))
        value_type = cursor.u32()
        if key == b"general.alignment" and value_type == 4:
            alignment = cursor.u32()
        else:
            _skip_value(cursor, value_type, _ARRAY_DEPTH)
    if not 1 <= alignment <= limits.MIB:
        raise UntrustedInput(f"a GGUF file claims an alignment of {alignment}")
    entries = [_entry(cursor) for _ in range(tensor_count)]
    start = -(-cursor.place // alignment) * alignment
    return [
        Tensor(name, dtype, shape, start + offset, math.prod(shape) // dtype.block_elements * dtype.block_bytes)
        for name, dtype, shape, offset in entries
        if dtype is not None
    ]


def _length(cursor: Cursor, limit: int) -> int:
    size = cursor.u64()
    if size > limit:
        raise UntrustedInput(f"a GGUF string claims {size} bytes; at most {limit} are taken")
    return size


def _skip_value(cursor: Cursor, value_type: int, depth: int) -> None:
    if value_type in _VALUE_BYTES:
        cursor.skip(_VALUE_BYTES[value_type])
    elif value_type == _STRING:
        cursor.skip(cursor.u64())
    elif value_type == _ARRAY and depth:
        item_type, count = cursor.u32(), cursor.u64()
        if item_type in _VALUE_BYTES:
            cursor.skip(_VALUE_BYTES[item_type] * count)
        else:
            for _ in range(count):
                _skip_value(cursor, item_type, depth - 1)
    else:
        raise UntrustedInput(f"a GGUF value has type {value_type}, or arrays are nested too deep")


def _entry(cursor: Cursor) -> tuple[str, Dtype | None, tuple[int, ...], int]:
    name = cursor.name(_length(cursor, limits.DELTA_TENSOR_NAME_BYTES))
    dimensions = cursor.u32()
    if dimensions > limits.DELTA_DIMENSIONS:
        raise UntrustedInput(f"a GGUF tensor has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))[::-1]
    number, offset = cursor.u32(), cursor.u64()
    dtype = dtypes.BY_NAME[_PLAIN[number]] if number in _PLAIN else dtypes.BY_CODE.get(64 + number)
    return name, dtype, shape, offset
