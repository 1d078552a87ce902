"""Is this a whole GGUF model? The header and the places of the tensors (`model/gguf.py`), of each of its files.

1. A large model is split: the files are named `model-00001-of-00003.gguf`, and llama.cpp opens the first one and finds
   the others by these names. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, for the names.
2. A type of tensors that is newer than this code, and the other byte order, are no faults: the runtime may know them.
"""

import math
import re
from pathlib import Path

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.model.gguf import GgufTensor, read_header

_PLAIN_BYTES = {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}  # f32, f16, i8 to i64, f64, bf16
_SHARD = re.compile(r"(?s)^(?P<model>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<ending>\.gguf)$")


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    for name in parts(path):
        shard = path.with_name(name)
        if not shard.is_file():
            raise ValueError(f"it is one of several files, and {name!r} is not beside it")
        _check_file(shard)


def parts(path: Path) -> tuple[str, ...]:
    """All files of the model that this file is one of, the first one first. Raises `ValueError`."""
    shard = _SHARD.match(path.name)
    if shard is None:
        return (path.name,)
    count = int(shard["count"])
    if not 1 <= int(shard["number"]) <= count <= limits.FILES:
        raise ValueError(
            f"its name says that it is file {shard['number']} of {count}; at most {limits.FILES} are taken"
        )
    return tuple(f"{shard['model']}-{number:05d}-of-{count:05d}{shard['ending']}" for number in range(1, count + 1))


def _check_file(path: Path) -> None:
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
