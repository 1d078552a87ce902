"""Is this a whole ExecuTorch program? Its identifier, its extended header, and the places of its data segments.

Source: schema/program.fbs and schema/extended_header.cpp of pytorch/executorch.
"""

from pathlib import Path

from whimbrel.agent.probes.structure.open_file import reading
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.delta.containers.flatbuffer import scalar, tables
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import EXECUTORCH_IDENTIFIER

_HEADER_AT, _HEADER_MAGIC, _HEADER_BYTES = 8, b"eh00", 24  # magic, length, program size, segment base offset
_EXECUTION_PLAN, _SEGMENTS = 1, 4  # fields of the table Program
_SEGMENT_OFFSET, _SEGMENT_SIZE = 0, 1  # fields of the table DataSegment


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    with reading(path) as (read, size):
        head = read(0, _HEADER_AT + _HEADER_BYTES)
        if head[4:8] != EXECUTORCH_IDENTIFIER:
            raise ValueError(f"bytes 4 to 8 are {head[4:8]!r}; an ExecuTorch program has b'ET12' there")
        program_bytes, base = _extended_header(head, size)
        try:
            _check_program(Cursor(read, program_bytes, budget=Budget()), base=base, size=size)
        except UntrustedInput as error:
            raise ValueError(str(error)) from error


def _extended_header(head: bytes, size: int) -> tuple[int, int | None]:
    """Bytes of the program itself, and where its segments begin; None where there is no header, and so no segment."""
    if head[_HEADER_AT : _HEADER_AT + 4] != _HEADER_MAGIC:
        return size, None
    length, program_bytes, base = (
        int.from_bytes(head[first:last], "little") for first, last in ((12, 16), (16, 24), (24, 32))
    )
    if length < _HEADER_BYTES:
        raise ValueError(f"its extended header says that it has {length} bytes; it has at least {_HEADER_BYTES}")
    if not 8 <= program_bytes <= size or base > size:
        raise ValueError(
            f"its program has {program_bytes} bytes and its data begin at {base}; the file has {size} bytes"
        )
    return program_bytes, base


def _check_program(cursor: Cursor, *, base: int | None, size: int) -> None:
    program = cursor.at(0).u32()
    if not tables(cursor, program, _EXECUTION_PLAN):
        raise ValueError("it has no method to run")
    for segment in tables(cursor, program, _SEGMENTS):
        offset, length = (scalar(cursor, segment, each, "<Q") for each in (_SEGMENT_OFFSET, _SEGMENT_SIZE))
        if base is None or base + offset + length > size:
            raise ValueError(f"a segment of its data ends at byte {(base or 0) + offset + length} of {size}")
