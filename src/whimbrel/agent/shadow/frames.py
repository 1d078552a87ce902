"""A call on its way to the worker: one line that says what follows, and then the bytes of each array.

Numbers, booleans and texts travel; nothing is unpickled. The worker is a child of the app, and still reads with bounds.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import Document

_KINDS = "biufU"  # of numpy: bool, signed, unsigned, floating, text


class Piece(Document, frozen=True):
    """One array: `dtype` in numpy's short words. `name` is empty in an output that was given by place."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


class Head(Document, frozen=True):
    """The line. `output`: what the app has of the active version; None: the worker asks that version itself."""

    inputs: tuple[Piece, ...]
    output: tuple[Piece, ...] | None = None


class Call(msgspec.Struct, frozen=True):
    """The arrays of one call; the output by name, or by place under `0`, `1`, ..."""

    inputs: dict[str, Any]
    output: dict[str, Any] | list[Any] | None = None


def pack(inputs: Mapping[str, Any], output: Any = None) -> bytes:
    """The bytes of a call: a copy, so that the app may use its arrays again. Raises `UntrustedInput`."""
    pieces, parts = [], []
    for name, value in inputs.items():
        piece, content = _piece(str(name), value)
        pieces.append(piece)
        parts.append(content)
    told: tuple[Piece, ...] | None = None
    if output is not None:
        if isinstance(output, Mapping):
            named = [(str(name), value) for name, value in output.items()]
        else:
            named = [("", value) for value in (output if isinstance(output, list | tuple) else [output])]
        packed = [_piece(name, value) for name, value in named]
        told = tuple(piece for piece, _ in packed)
        parts += [content for _, content in packed]
    head = msgspec.json.encode(Head(inputs=tuple(pieces), output=told))
    return b"".join([head, b"\n", *parts])


def size_of(inputs: Mapping[str, Any], output: Any = None) -> int:
    """About the bytes that `pack` would make, without making them."""
    values = list(inputs.values())
    if output is not None:
        values += list(output.values()) if isinstance(output, Mapping) else [output]
    return sum(int(getattr(value, "nbytes", 0) or np.asarray(value).nbytes) for value in values)


def unpack(line: bytes, body: bytes) -> Call:
    """What `pack` made: its line, and the bytes that `body_bytes` counted."""
    head = msgspec.json.decode(line, type=Head)
    view, place = memoryview(body), 0
    arrays: list[Any] = []
    for piece in (*head.inputs, *(head.output or ())):
        dtype = np.dtype(piece.dtype)
        array = np.frombuffer(view[place : place + piece.size_bytes], dtype=dtype).reshape(piece.shape)
        arrays.append(array.astype(object) if dtype.kind == "U" else array)
        place += piece.size_bytes
    count = len(head.inputs)
    inputs = {piece.name: array for piece, array in zip(head.inputs, arrays[:count], strict=True)}
    if head.output is None:
        return Call(inputs)
    if any(piece.name for piece in head.output):
        names = [piece.name for piece in head.output]
        return Call(inputs, dict(zip(names, arrays[count:], strict=True)))
    return Call(inputs, arrays[count:])


def body_bytes(line: bytes) -> int:
    """How many bytes follow the line. Raises `UntrustedInput` for more than may be."""
    head = msgspec.json.decode(line, type=Head)
    total = sum(piece.size_bytes for piece in (*head.inputs, *(head.output or ())))
    if not 0 <= total <= limits.SHADOW_CALL_BYTES:
        raise UntrustedInput(f"a call of {total} bytes; at most {limits.SHADOW_CALL_BYTES}")
    return total


def _piece(name: str, value: Any) -> tuple[Piece, bytes]:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        array = array.astype(str)
    if array.dtype.kind not in _KINDS:
        raise UntrustedInput(f"{name or 'an output'} is an array of {array.dtype}; numbers, booleans and texts travel")
    content = array.tobytes()
    return Piece(name=name, dtype=array.dtype.str, shape=array.shape, size_bytes=len(content)), content
