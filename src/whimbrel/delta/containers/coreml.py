"""Find the weights of a Core ML package, and their shapes.

A package has `weight.bin` (64-byte header with a count, then for each blob a 64-byte record and its bytes: MILBlob's
StorageFormat.hpp in coremltools) and `model.mlmodel`, a protobuf whose constants point at those records
(mlmodel/format/Model.proto field 502, MIL.proto). The blob file alone gives places and dtypes; the spec adds names and
shapes.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.artifact import Member
from whimbrel.delta.containers import onnx
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput

_SENTINEL = 0xDEADBEEF
_HEADER_BYTES = RECORD_BYTES = 64
_TYPES = {1: "f16", 2: "f32", 3: "u8", 4: "i8", 5: "bf16", 6: "i16", 7: "u16", 14: "i32", 15: "u32"}
_DEPTH = 32
_BYTES, _VARINT = 2, 0


@dataclass(frozen=True, slots=True)
class Blob:
    """What the spec says of the record at an offset of the blob file."""

    name: str
    shape: tuple[int, ...]


def is_blob_file(start: bytes | memoryview) -> bool:
    """A count, version 2, zeros, and the first record's sentinel."""
    return len(start) >= 68 and start[4:8] == b"\2\0\0\0" and int.from_bytes(start[64:68], "little") == _SENTINEL


def parse(cursor: Cursor, spec: dict[int, Blob]) -> list[Tensor]:
    """The blobs in the file's order. Raises `UntrustedInput`."""
    count = cursor.at(0).u32()
    if count > limits.DELTA_TENSORS:
        raise UntrustedInput(f"a Core ML weight file has {count} blobs; at most {limits.DELTA_TENSORS} are taken")
    found = []
    place = _HEADER_BYTES
    for index in range(count):
        if cursor.at(place).u32() != _SENTINEL:
            raise UntrustedInput(f"a Core ML weight file has no record at byte {place}")
        number, size, offset = cursor.u32(), cursor.u64(), cursor.u64()
        blob = spec.get(place, Blob(f"blob {index}", ()))
        found.append(Tensor(blob.name, dtypes.BY_NAME[_TYPES.get(number, "bytes")], blob.shape, offset, size))
        place = -(-max(place + RECORD_BYTES, offset + size) // RECORD_BYTES) * RECORD_BYTES
    return found


def specs(members: Sequence[Member], budget: Budget) -> dict[str, dict[int, Blob]]:
    """For every blob file that a `.mlmodel` among the files points at: its blobs by the offset of their record."""
    found: dict[str, dict[int, Blob]] = {}
    for member in members:
        if not member.path.lower().endswith(".mlmodel"):
            continue
        try:
            constants = _Spec(Cursor(member.read, member.size_bytes, budget=budget)).constants()
        except UntrustedInput:
            continue
        for path, offset, blob in constants:
            relative = path.removeprefix("@model_path/")
            where = posixpath.normpath(posixpath.join(posixpath.dirname(member.path), relative))
            found.setdefault(where, {})[offset] = blob
    return found


class _Spec:
    """A walk through Model.mlProgram to its constants."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._found: list[tuple[str, int, Blob]] = []

    def constants(self) -> list[tuple[str, int, Blob]]:
        """(path of the blob file, offset of the record, what it is)."""
        for program in self._inside(0, self._cursor.end, 502):
            for function in self._map_values(program, 2):
                for block in self._map_values(function, 3):
                    self._block(block, _DEPTH)
        return self._found

    def _inside(self, start: int, end: int, number: int) -> list[tuple[int, int]]:
        fields = onnx.fields(self._cursor, start, end)
        return [(first, last) for found, wire, first, last in fields if found == number and wire == _BYTES]

    def _map_values(self, message: tuple[int, int], number: int) -> list[tuple[int, int]]:
        return [value for entry in self._inside(*message, number) for value in self._inside(*entry, 2)]

    def _block(self, message: tuple[int, int], depth: int) -> None:
        if not depth:
            raise UntrustedInput("Core ML blocks are nested too deep")
        for operation in self._inside(*message, 3):
            self._operation(operation)
            for block in self._inside(*operation, 4):
                self._block(block, depth - 1)

    def _operation(self, message: tuple[int, int]) -> None:
        name = ""
        for output in self._inside(*message, 3):
            for first, last in self._inside(*output, 1):
                name = self._cursor.at(first).name(last - first)
        for value in self._map_values(message, 5):
            for blob in self._inside(*value, 5):
                self._constant(name, value, blob)

    def _constant(self, name: str, value: tuple[int, int], blob: tuple[int, int]) -> None:
        path, offset = "", 0
        for number, wire, first, last in onnx.fields(self._cursor, *blob):
            if number == 1 and wire == _BYTES:
                path = self._cursor.at(first).name(last - first)
            elif number == 2 and wire == _VARINT:
                offset = first
        shape: list[int] = []
        for value_type in self._inside(*value, 2):
            for tensor_type in self._inside(*value_type, 1):
                for dimension in self._inside(*tensor_type, 3):
                    for constant in self._inside(*dimension, 1):
                        sizes = [v for n, w, v, _ in onnx.fields(self._cursor, *constant) if n == 1 and w == _VARINT]
                        shape += sizes[:1] or [0]
        if path and len(shape) <= limits.DELTA_DIMENSIONS:
            self._found.append((path, offset, Blob(name, tuple(shape))))
