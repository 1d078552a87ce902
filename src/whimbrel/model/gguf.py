"""Read the header of a GGUF file by hand: its values, and the places of its tensors.

1. Both byte orders are read. A big-endian file says its version in its own order, as a small number.
2. An array is counted and skipped, so a vocabulary of a million entries costs a fraction of a second and no memory.
3. A tensor's type is its number in GGUF. Whoever asks knows which numbers have a name and a size; a number that nobody
   knows is no error.
4. Bounded: by the file's size, and by the limits of values, tensors, names and array entries.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. Called by publishing's reader and
by the structure check of probes. Patches have a parser of their own (`delta/containers/gguf.py`).
"""

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

from whimbrel import limits
from whimbrel.model.formats import GGUF_MAGIC

Read = Callable[[int, int], bytes]  # (offset, size): bytes of the file, fewer of them at its end
Value = int | float | bool | str

VERSIONS = (2, 3)
_HEADER_BYTES = 24
_WINDOW_BYTES = limits.MIB
# The numbers of value types that have a fixed size, and struct's letters for them.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ARRAY_DEPTH = 4
_DIMENSIONS = 16
_LEAST_VALUE_BYTES, _LEAST_TENSOR_BYTES = 13, 24  # a key of no characters and a byte; a tensor without dimensions


class GgufTensor(NamedTuple):
    """A tensor. `shape`: the fastest dimension first, as GGUF has it. `start`: where its bytes begin in the file."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    start: int


class GgufHeader(NamedTuple):
    """What a file says before its tensors' bytes. `lengths`: of the values that are arrays, which are not kept."""

    version: int
    order: Literal["little", "big"]
    values: dict[str, Value]
    lengths: dict[str, int]
    tensors: list[GgufTensor]

    def whole_number(self, key: str) -> int | None:
        """The value of `key` where it is a whole number."""
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def check_bounds(self, size_bytes: int, size_of: Callable[[GgufTensor], int | None]) -> None:
        """Raises `ValueError` where a tensor does not lie within a file of `size_bytes`.

        `size_of`: the bytes of a tensor, None where its type is not known; such a tensor must begin within the file.
        """
        for tensor in self.tensors:
            size = size_of(tensor)
            if size is not None and tensor.start + size > size_bytes:
                raise ValueError(
                    f"tensor {tensor.name[:80]!r} ends at byte {tensor.start + size} of {size_bytes}: the file was cut"
                )
            if tensor.start > size_bytes:
                raise ValueError(
                    f"tensor {tensor.name[:80]!r} begins at byte {tensor.start} of {size_bytes}: the file was cut"
                )


def read_header(read: Read, size_bytes: int) -> GgufHeader:
    """The header of a file of `size_bytes`. Raises `ValueError` where it is none, is cut, or is out of bounds."""
    head = read(0, _HEADER_BYTES)
    if head[:4] != GGUF_MAGIC or len(head) < _HEADER_BYTES:
        raise ValueError(f"it begins with {head[:4]!r}; a GGUF file begins with b'GGUF' and a header of 24 bytes")
    order: Literal["little", "big"] = "little"
    if int.from_bytes(head[4:8], "big") in VERSIONS:
        order = "big"
    reader = _Reader(read, size_bytes, order)
    version, tensor_count, value_count = reader.number("I"), reader.number("Q"), reader.number("Q")
    if version not in VERSIONS:
        raise ValueError(f"it is GGUF version {version}; {VERSIONS[0]} and {VERSIONS[1]} are known")
    if tensor_count * _LEAST_TENSOR_BYTES + value_count * _LEAST_VALUE_BYTES > size_bytes:
        raise ValueError(f"it names {tensor_count} tensors and {value_count} values, more than {size_bytes} bytes hold")
    if tensor_count > limits.GGUF_TENSORS or value_count > limits.GGUF_VALUES:
        raise ValueError(
            f"it names {tensor_count} tensors and {value_count} values; at most {limits.GGUF_TENSORS} and "
            f"{limits.GGUF_VALUES} are read"
        )
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(value_count):
        key = reader.text(limits.GGUF_NAME_BYTES)
        kind = reader.number("I")
        if kind in _NUMBERS:
            values[key] = reader.scalar(_NUMBERS[kind])
        elif kind == _STRING:
            values[key] = reader.text(None)
        else:
            lengths[key] = reader.skip_array(kind, _ARRAY_DEPTH)
    entries = [_tensor(reader) for _ in range(tensor_count)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= limits.MIB:
        raise ValueError(f"it claims an alignment of {alignment!r}")
    start = -(-reader.place // alignment) * alignment
    tensors = [tensor._replace(start=start + tensor.start) for tensor in entries]
    return GgufHeader(version, order, values, lengths, tensors)


def _tensor(reader: "_Reader") -> GgufTensor:
    """An entry of the table; its `start` counts from the first tensor's byte."""
    name = reader.text(limits.GGUF_NAME_BYTES)
    dimensions = reader.number("I")
    if dimensions > _DIMENSIONS:
        raise ValueError(f"its tensor {name[:80]!r} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))
    return GgufTensor(name, shape, reader.number("I"), reader.number("Q"))


class _Reader:
    """A place in the file, read in windows."""

    def __init__(self, read: Read, size_bytes: int, order: Literal["little", "big"]) -> None:
        self.place = len(GGUF_MAGIC)
        self._read = read
        self._end = size_bytes
        self._mark = "<" if order == "little" else ">"
        self._window = b""
        self._window_start = 0
        self._entries_left = limits.GGUF_ARRAY_ENTRIES

    def number(self, letter: str) -> int:
        """A whole number."""
        return int(self.scalar(letter))

    def scalar(self, letter: str) -> int | float | bool:
        """A value of a fixed size."""
        size = struct.calcsize("<" + letter)
        value: int | float | bool = struct.unpack(self._mark + letter, self._take(size))[0]
        return value

    def text(self, size_bytes_max: int | None) -> str:
        """A string; where no size is too large for it, only its beginning."""
        size = self.number("Q")
        if size_bytes_max is not None and size > size_bytes_max:
            raise ValueError(f"a name in it has {size} bytes; at most {size_bytes_max} are read")
        kept = self._take(min(size, limits.GGUF_NAME_BYTES))
        self._skip(size - len(kept))
        return kept.decode("utf-8", "replace")

    def skip_array(self, kind: int, depth: int) -> int:
        """Step over an array; the number of its entries."""
        if kind != _ARRAY or not depth:
            raise ValueError(f"a value in it has the type {kind}, or its arrays are nested too deep")
        entry, count = self.number("I"), self.number("Q")
        if entry in _NUMBERS:
            self._skip(count * struct.calcsize("<" + _NUMBERS[entry]))
            return count
        self._entries_left -= count
        if self._entries_left < 0:
            raise ValueError(f"its arrays have more than {limits.GGUF_ARRAY_ENTRIES} texts together")
        if entry == _STRING:
            self._skip_texts(count)
        else:
            for _ in range(count):
                self.skip_array(entry, depth - 1)
        return count

    def _skip_texts(self, count: int) -> None:
        """Step over strings, many in a window: a call for each of a million would take seconds."""
        length = struct.Struct(self._mark + "Q")
        while count:
            self._fill(length.size)
            window, place = self._window, self.place - self._window_start
            last = len(window) - length.size
            while count and place <= last:
                place += length.size + length.unpack_from(window, place)[0]
                count -= 1
            self.place = self._window_start + place
            if self.place > self._end:
                raise ValueError(f"it ends at byte {self._end}, inside its header: it was cut")

    def _take(self, size: int) -> bytes:
        self._fill(size)
        start = self.place - self._window_start
        self.place += size
        return self._window[start : start + size]

    def _skip(self, size: int) -> None:
        self.place += size
        if self.place > self._end:
            raise ValueError(f"it ends at byte {self._end}, inside its header: it was cut")

    def _fill(self, size: int) -> None:
        """Have the next `size` bytes in the window."""
        if self.place + size > self._end:
            raise ValueError(f"it ends at byte {self._end}, inside its header: it was cut")
        inside = self.place - self._window_start
        if not 0 <= inside <= len(self._window) - size:
            self._window = self._read(self.place, max(size, _WINDOW_BYTES))
            self._window_start = self.place
            if len(self._window) < size:
                raise ValueError("it became shorter while it was read")
