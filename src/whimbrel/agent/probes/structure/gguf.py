"""Is this a whole GGUF model? The header and the places of the tensors, of each of its files.

A large model is split: the files are named `model-00001-of-00003.gguf`, and llama.cpp opens the first one and finds the
others by these names. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, also for the names.
"""

import importlib
import importlib.util
import re
import struct
from pathlib import Path

from whimbrel import limits
from whimbrel.delta.containers import gguf
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import GGUF_MAGIC

_HEADER_BYTES = 24
_VERSIONS = {2, 3}
_TENSORS_MAX = 1_000_000
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

        _check_header(read(0, _HEADER_BYTES), size)
        try:
            tensors = gguf.parse(Cursor(read, size, budget=Budget()))
        except UntrustedInput as error:
            raise ValueError(str(error)) from error
    for tensor in tensors:
        if tensor.end > size:
            raise ValueError(f"tensor {tensor.name!r} ends at byte {tensor.end} of {size}")


def check_with_library(path: Path) -> None:
    """The same by the gguf package, where it is installed: it knows more of tensors than we do."""
    if importlib.util.find_spec("gguf"):
        for name in parts(path):
            importlib.import_module("gguf").GGUFReader(str(path.with_name(name)))


def _check_header(head: bytes, size: int) -> None:
    if head[:4] != GGUF_MAGIC or len(head) < _HEADER_BYTES:
        raise ValueError(f"it begins with {head[:4]!r}; a GGUF file begins with b'GGUF' and a header of 24 bytes")
    version, tensors, pairs = struct.unpack_from("<IQQ", head, 4)
    if version not in _VERSIONS:
        raise ValueError(f"it is GGUF version {version}; 2 and 3 are known")
    if tensors > _TENSORS_MAX or tensors * 24 + pairs * 12 + 24 > size:
        raise ValueError(f"it names {tensors} tensors and {pairs} values, more than its {size} bytes can hold")
