"""Tables, scalars and vectors of a FlatBuffers file. Source: the FlatBuffers internals page.

A table is known by its place in the file, a field by its number in the schema.
"""

import struct

from whimbrel import limits
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.errors import UntrustedInput


def field(cursor: Cursor, table: int, index: int) -> int:
    """The place of a table's field, 0 where it has its default."""
    vtable = table - cursor.at(table).i32()
    if 6 + 2 * index > cursor.at(vtable).u16():
        return 0
    inside = cursor.at(vtable + 4 + 2 * index).u16()
    return table + inside if inside else 0


def scalar(cursor: Cursor, table: int, index: int, form: str) -> int:
    """A number in the form of `struct`; 0 where the table does not have it."""
    place = field(cursor, table, index)
    return int(struct.unpack(form, cursor.at(place).take(struct.calcsize(form)))[0]) if place else 0


def vector(cursor: Cursor, table: int, index: int) -> tuple[int, int] | None:
    """(place of the first element, how many); None where the table does not have it."""
    place = field(cursor, table, index)
    if not place:
        return None
    start = place + cursor.at(place).u32()
    return start + 4, cursor.at(start).u32()


def tables(cursor: Cursor, table: int, index: int) -> list[int]:
    """The tables of a vector. Raises `UntrustedInput` for more than `limits.DELTA_TENSORS`."""
    listed = vector(cursor, table, index)
    if listed is None:
        return []
    start, count = listed
    if count > limits.DELTA_TENSORS:
        raise UntrustedInput(f"a model has {count} entries in one list; at most {limits.DELTA_TENSORS} are taken")
    return [place + cursor.at(place).u32() for place in range(start, start + 4 * count, 4)]
