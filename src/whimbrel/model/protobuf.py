"""Read the top-level fields of a protobuf message without a schema, from files that may be hostile.

1. Only the keys are read and the contents are skipped, so a large file costs little.
2. Bounded: at most `limits.PROTOBUF_FIELDS` fields, and nothing outside the file.

Source: https://protobuf.dev/programming-guides/encoding. Called by the recognition of formats, by structure checks and
by what a file needs of its runtime.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from whimbrel import limits

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

_KEY_AND_LENGTH_BYTES = 20  # two varints
_VARINT_BYTES = 10
_FIELD_NUMBERS = 2**29
_NO_MESSAGE = "it is no protobuf message: a field with number 0, or thousands of them"
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field. `value` of a number; `start` and `size` of the bytes of any other, in the file."""

    number: int
    wire: int
    value: int = 0
    start: int = 0
    size: int = 0


def top_level_fields(read: Callable[[int, int], bytes], size_bytes: int) -> dict[int, int]:
    """The wire type of each field by its number. `read(offset, size)` gives bytes, fewer of them at the end.

    Raises `ValueError` where the bytes are no whole protobuf message.
    """
    return {field.number: field.wire for field in fields_in_order(read, size_bytes)}


def fields_in_order(read: Callable[[int, int], bytes], size_bytes: int) -> Iterator[Field]:
    """Each field as it comes, also one that comes again. Raises `ValueError` where the bytes are no whole message."""
    place = 0
    for _ in range(limits.PROTOBUF_FIELDS):
        if place == size_bytes:
            return
        if place > size_bytes:
            raise ValueError(f"its last field ends after the file's {size_bytes} bytes")
        chunk = read(place, _KEY_AND_LENGTH_BYTES)
        key, key_bytes = _varint(chunk)
        number, wire = key >> 3, key & 7
        place += key_bytes
        if not 0 < number < _FIELD_NUMBERS:
            raise ValueError(_NO_MESSAGE)
        if wire == VARINT:
            value, value_bytes = _varint(chunk[key_bytes:])
            field = Field(number, wire, value)
            place += value_bytes
        elif wire == BYTES:
            length, length_bytes = _varint(chunk[key_bytes:])
            field = Field(number, wire, start=place + length_bytes, size=length)
            place += length_bytes + length
            if place > size_bytes:
                raise ValueError(f"field {number} has {length} bytes and ends after the file's {size_bytes}")
        elif wire in _FIXED_BYTES:
            field = Field(number, wire, start=place, size=_FIXED_BYTES[wire])
            place += _FIXED_BYTES[wire]
        else:
            raise ValueError(f"it is no protobuf message: wire type {wire} at byte {place}")
        yield field
    raise ValueError(_NO_MESSAGE)


def _varint(chunk: bytes) -> tuple[int, int]:
    """A number, and how many bytes it takes."""
    value = 0
    for place, byte in enumerate(chunk[:_VARINT_BYTES]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, place + 1
    raise ValueError(
        "it ends inside a number" if len(chunk) < _VARINT_BYTES else "it has a number of more than 10 bytes"
    )
