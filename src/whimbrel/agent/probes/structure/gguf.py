"""Is this a whole GGUF file? Its header, and the places of its tensors (`model/gguf.py`).

A type of tensors that is newer than this code, and the other byte order, are no faults: the runtime may know them.
"""

import math
from pathlib import Path

from whimbrel.delta import dtypes
from whimbrel.model.gguf import GgufTensor, read_header

_PLAIN_BYTES = {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}  # f32, f16, i8 to i64, f64, bf16


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    size = path.stat().st_size
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        read_header(read, size).check_bounds(size, _size_of)


def _size_of(tensor: GgufTensor) -> int | None:
    elements = math.prod(tensor.shape)
    if tensor.type_number in _PLAIN_BYTES:
        return elements * _PLAIN_BYTES[tensor.type_number]
    block = dtypes.BY_CODE.get(64 + tensor.type_number)
    return None if block is None else elements // block.block_elements * block.block_bytes
