"""Find the initialisers of an ONNX model.

Source: onnx/onnx.proto3 (ModelProto.graph = 7, GraphProto.initializer = 5, NodeProto.attribute = 5, TensorProto: dims
= 1, data_type = 2, name = 8, raw_data = 9, external_data = 13). Read as protobuf by hand: fields that do not matter are
stepped over. Constant nodes' tensors count too. External data is named, and found again among the artifact's files.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.dtypes import Dtype
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput

_TYPES = {
    1: "f32",
    2: "u8",
    3: "i8",
    4: "u16",
    5: "i16",
    6: "i32",
    7: "i64",
    9: "bool",
    10: "f16",
    11: "f64",
    12: "u32",
    13: "u64",
    14: "c64",
    15: "c128",
    16: "bf16",
    17: "f8_e4m3",
    19: "f8_e5m2",
}
_SMALL_BYTES = 64  # smaller initialisers are cheaper inside the glue
_DEPTH = 8  # graphs inside graphs (If, Loop, Scan)
_BYTES, _VARINT = 2, 0
_FIXED_BYTES = {1: 8, 5: 4}


@dataclass
class External:
    """Tensors that lie in other files: (path, tensor at its offset there). `paths`: of all these files.

    A tensor that says no length is in `paths` only.
    """

    tensors: list[tuple[str, Tensor]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)


def is_model(start: bytes) -> bool:
    """Does it begin like a ModelProto: field 1 (ir_version), a small varint, then a known field?"""
    return len(start) > 4 and start[0] == 0x08 and 3 <= start[1] <= 32 and start[2] & 7 in (0, 2)


def parse(cursor: Cursor, path: str = "", external: External | None = None) -> list[Tensor]:
    """Initialisers with their data inside the file. Raises `UntrustedInput`."""
    walk = _Walk(cursor, posixpath.dirname(path), external)
    for number, wire, start, end in fields(cursor, cursor.place, cursor.end):
        if number == 7 and wire == _BYTES:
            walk.graph(start, end, _DEPTH)
    return walk.found


def fields(cursor: Cursor, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field, wire type, start, end) of a message; for a varint `start` is its value. The cursor may move between."""
    if end > cursor.end:
        raise UntrustedInput("a protobuf field is longer than its file")
    place = start
    while place < end:
        key = cursor.at(place).varint()
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value = cursor.varint()
            place = cursor.place
            yield number, wire, value, place
            continue
        if wire in _FIXED_BYTES:
            size = _FIXED_BYTES[wire]
        elif wire == _BYTES:
            size = cursor.varint()
        else:
            raise UntrustedInput(f"a protobuf field has wire type {wire}")
        first = cursor.place
        place = first + size
        if place > end:
            raise UntrustedInput("a protobuf field is longer than its message")
        yield number, wire, first, place
    if place != end:
        raise UntrustedInput("a protobuf message ends inside a field")


class _Walk:
    """From a graph to its tensors."""

    def __init__(self, cursor: Cursor, folder: str, external: External | None) -> None:
        self.found: list[Tensor] = []
        self._cursor = cursor
        self._folder = folder
        self._external = external

    def graph(self, start: int, end: int, depth: int) -> None:
        if not depth:
            raise UntrustedInput("ONNX graphs are nested too deep")
        for number, wire, first, last in fields(self._cursor, start, end):
            if wire != _BYTES:
                continue
            if number == 5:
                self._tensor(first, last)
            elif number == 1:
                for inner, inner_wire, a, b in fields(self._cursor, first, last):
                    if inner == 5 and inner_wire == _BYTES:
                        self._attribute(a, b, depth)

    def _attribute(self, start: int, end: int, depth: int) -> None:
        for number, wire, first, last in fields(self._cursor, start, end):
            if wire == _BYTES and number == 5:
                self._tensor(first, last)
            elif wire == _BYTES and number == 6:
                self.graph(first, last, depth - 1)

    def _tensor(self, start: int, end: int) -> None:
        cursor = self._cursor
        shape: list[int] = []
        dtype: Dtype = dtypes.BYTES
        name = ""
        place: tuple[int, int] | None = None
        outside: dict[bytes, bytes] = {}
        for number, wire, first, last in fields(cursor, start, end):
            if number == 1 and wire == _VARINT:
                shape.append(first)
            elif number == 1 and wire == _BYTES:
                shape += _packed(cursor, first, last)
            elif number == 2 and wire == _VARINT:
                dtype = dtypes.BY_NAME[_TYPES.get(first, "bytes")]
            elif number == 8 and wire == _BYTES:
                name = cursor.at(first).name(last - first)
            elif number in (4, 9) and wire == _BYTES:  # packed float_data, or raw_data
                place = (first, last)
            elif number == 13 and wire == _BYTES:
                key, value = _entry(cursor, first, last)
                outside[key] = value
        if len(shape) > limits.DELTA_DIMENSIONS:
            raise UntrustedInput(f"an ONNX tensor has {len(shape)} dimensions")
        if place and place[1] - place[0] >= _SMALL_BYTES:
            self.found.append(Tensor(name, dtype, tuple(shape), place[0], place[1] - place[0]))
        elif outside and self._external is not None:
            try:
                offset, size = int(outside.get(b"offset", b"0")), int(outside.get(b"length", b"0"))
            except ValueError as error:
                raise UntrustedInput("an ONNX tensor's external data has no proper offset and length") from error
            location = outside.get(b"location", b"").decode("utf-8", "backslashreplace")
            path = posixpath.normpath(posixpath.join(self._folder, location))
            self._external.paths.add(path)
            if offset >= 0 and size > 0:
                self._external.tensors.append((path, Tensor(name, dtype, tuple(shape), offset, size)))


def _packed(cursor: Cursor, start: int, end: int) -> list[int]:
    cursor.at(start)
    values = []
    while cursor.place < end:
        values.append(cursor.varint())
        if len(values) > limits.DELTA_DIMENSIONS:
            raise UntrustedInput(f"an ONNX tensor has more than {limits.DELTA_DIMENSIONS} dimensions")
    return values


def _entry(cursor: Cursor, start: int, end: int) -> tuple[bytes, bytes]:
    texts = {1: b"", 2: b""}
    for number, wire, first, last in fields(cursor, start, end):
        if number in texts and wire == _BYTES:
            if last - first > limits.DELTA_TENSOR_NAME_BYTES:
                raise UntrustedInput("an ONNX external data entry is too long")
            texts[number] = cursor.at(first).take(last - first)
    return texts[1], texts[2]
