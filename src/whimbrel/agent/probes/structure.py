"""Is this file what its format says? Magic, header and bounds, by hand: for devices without the format's runtime.

No integrity check: that is the hash. This catches a file of another format, and one that was cut before it was hashed.
"""

import importlib
import importlib.util
import json
import struct
from collections.abc import Callable
from pathlib import Path

from whimbrel import limits
from whimbrel.delta.containers import gguf
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import Format

_HEAD_BYTES = 64
_TENSORS_MAX = 1_000_000


def check(path: Path, kind: Format) -> None:
    """Raises `ValueError` with what was found and expected."""
    if kind == "coreml" and path.is_dir():
        _core_ml_package(path)
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    _CHECKS[kind](path, head, size)


def check_with_library(path: Path, kind: Format) -> None:
    """The same through the format's own reader, where it is installed: it knows more of tensors than we do."""
    if kind == "safetensors" and importlib.util.find_spec("safetensors"):
        opened = importlib.import_module("safetensors").safe_open(str(path), framework="numpy")
        with opened as tensors:
            list(tensors.keys())
    elif kind == "gguf" and importlib.util.find_spec("gguf"):
        importlib.import_module("gguf").GGUFReader(str(path))


def _gguf(path: Path, head: bytes, size: int) -> None:
    # https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    if head[:4] != b"GGUF" or len(head) < 24:
        raise ValueError(f"it begins with {head[:4]!r}; a GGUF file begins with b'GGUF' and a header of 24 bytes")
    version, tensors, pairs = struct.unpack_from("<IQQ", head, 4)
    if version not in {2, 3}:
        raise ValueError(f"it is GGUF version {version}; 2 and 3 are known")
    if tensors > _TENSORS_MAX or tensors * 24 + pairs * 12 + 24 > size:
        raise ValueError(f"it names {tensors} tensors and {pairs} values, more than its {size} bytes can hold")
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        try:
            found = gguf.parse(Cursor(read, size, budget=Budget()))
        except UntrustedInput as error:
            raise ValueError(str(error)) from error
    for tensor in found:
        if tensor.end > size:
            raise ValueError(f"tensor {tensor.name!r} ends at byte {tensor.end} of {size}")


def _safetensors(path: Path, head: bytes, size: int) -> None:
    # https://github.com/huggingface/safetensors#format
    length = int.from_bytes(head[:8], "little")
    if size < 10 or length > min(size - 8, 100 * limits.MIB):
        raise ValueError(f"its header says {length} bytes; the file has {size}")
    with path.open("rb") as file:
        file.seek(8)
        header = json.loads(file.read(length))
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        first, last = tensor["data_offsets"]
        if not 0 <= first <= last <= size - 8 - length:
            raise ValueError(f"tensor {name!r} lies at {first} to {last}; there are {size - 8 - length} bytes of data")
        end = max(end, last)
    if end != size - 8 - length:
        raise ValueError(f"its tensors end at byte {end} of {size - 8 - length}")


def _tflite(_: Path, head: bytes, size: int) -> None:
    # FlatBuffers: the root's offset, then the file identifier of the TFLite schema.
    if head[4:8] != b"TFL3":
        raise ValueError(f"bytes 4 to 8 are {head[4:8]!r}; a TFLite file has b'TFL3' there")
    root = int.from_bytes(head[:4], "little")
    if not 8 <= root < size - 4:
        raise ValueError(f"its root table lies at byte {root} of {size}")


def _onnx(path: Path, _: bytes, size: int) -> None:
    # onnx.proto: ModelProto has ir_version = 1 (varint) and graph = 7 (bytes); https://protobuf.dev/programming-guides/encoding
    fields = _protobuf_fields(path, size)
    if not {1, 7} <= fields:
        raise ValueError(f"it has the protobuf fields {sorted(fields)[:20]}; an ONNX model has 1 and 7")


def _core_ml(path: Path, _: bytes, size: int) -> None:
    # Model.proto: specificationVersion = 1, description = 2.
    fields = _protobuf_fields(path, size)
    if not {1, 2} <= fields:
        raise ValueError(f"it has the protobuf fields {sorted(fields)[:20]}; a Core ML model has 1 and 2")


def _core_ml_package(path: Path) -> None:
    try:
        manifest = json.loads((path / "Manifest.json").read_bytes()[: limits.MIB])
        items = manifest["itemInfoEntries"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the package has no Manifest.json that can be read: {error}") from error
    for item in items.values():
        place = (path / "Data" / item["path"]).resolve()
        if not place.is_relative_to(path.resolve()) or not place.exists():
            raise ValueError(f"the package's manifest names {item['path']!r}, which is not in it")


def _protobuf_fields(path: Path, size: int) -> set[int]:
    fields: set[int] = set()
    with path.open("rb") as file:
        while file.tell() < size:
            key = _varint(file.read)
            field, wire = key >> 3, key & 7
            if wire == 0:
                _varint(file.read)
            elif wire in {1, 5}:
                file.seek(8 if wire == 1 else 4, 1)
            elif wire == 2:
                length = _varint(file.read)
                if file.tell() + length > size:
                    raise ValueError(f"field {field} has {length} bytes and ends after the file's {size}")
                file.seek(length, 1)
            else:
                raise ValueError(f"it is no protobuf message: wire type {wire} at byte {file.tell()}")
            if field == 0 or len(fields) > 1000:
                raise ValueError("it is no protobuf message: a field with number 0, or thousands of them")
            fields.add(field)
        if file.tell() != size:
            raise ValueError(f"its last field ends after the file's {size} bytes")
    return fields


def _varint(read: Callable[[int], bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = read(1)
        if not byte:
            raise ValueError("it ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it has a number of more than 10 bytes")


_CHECKS: dict[Format, Callable[[Path, bytes, int], None]] = {
    "gguf": _gguf,
    "safetensors": _safetensors,
    "tflite": _tflite,
    "onnx": _onnx,
    "coreml": _core_ml,
}
