"""Find the tensors of a file that `torch.save` wrote, without running it.

The file is a zip with stored entries: `<name>/data.pkl` and one entry a storage, `<name>/data/<key>`. The pickle is
read as a list of opcodes (`pickletools.genops` executes nothing) by a stack machine that knows only plain values and
the shape of `torch._utils._rebuild_tensor_v2`; everything else stays an opaque mark. Whatever it cannot follow leaves
the storages as plain bytes. A zip that is no torch file gives its stored entries' bytes, by name.
"""

import math
import pickletools
from dataclasses import dataclass
from typing import Any

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.containers.archive import Entry, zip_entries
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput

_STORAGES = {
    "FloatStorage": "f32",
    "HalfStorage": "f16",
    "BFloat16Storage": "bf16",
    "DoubleStorage": "f64",
    "CharStorage": "i8",
    "ByteStorage": "u8",
    "ShortStorage": "i16",
    "IntStorage": "i32",
    "LongStorage": "i64",
    "BoolStorage": "bool",
    "QInt8Storage": "i8",
    "QUInt8Storage": "u8",
}
_PICKLE_BYTES = 16 * limits.MIB
_OPCODES = 1_000_000  # 20 a tensor; each may make an object
_DEPTH = 16


def parse(cursor: Cursor) -> list[Tensor]:
    """Tensors by their storages. Raises `UntrustedInput`."""
    entries = zip_entries(cursor)
    pickles = [entry for entry in entries if entry.name == "data.pkl" or entry.name.endswith("/data.pkl")]
    views: list[_View] = []
    prefix = ""
    if len(pickles) == 1 and pickles[0].size_bytes <= _PICKLE_BYTES:
        prefix = pickles[0].name.removesuffix("data.pkl") + "data/"
        views = _views(cursor.at(pickles[0].offset).take(pickles[0].size_bytes), cursor)
    by_key: dict[str, list[_View]] = {}
    for view in views:
        by_key.setdefault(prefix + view.key, []).append(view)
    found: list[Tensor] = []
    for entry in entries:
        if entry in pickles:
            continue
        found += _storage(entry, by_key.get(entry.name, []))
    return found


@dataclass(frozen=True, slots=True)
class _View:
    """A contiguous tensor of a storage; `offset` counts elements."""

    name: str
    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]


def _storage(entry: Entry, views: list[_View]) -> list[Tensor]:
    if not views:
        return [Tensor(entry.name, dtypes.BYTES, (entry.size_bytes,), entry.offset, entry.size_bytes)]
    tensors = []
    for view in views:
        dtype = dtypes.BY_NAME[view.dtype]
        offset, size = view.offset * dtype.block_bytes, math.prod(view.shape) * dtype.block_bytes
        if offset + size <= entry.size_bytes:
            tensors.append(Tensor(view.name, dtype, view.shape, entry.offset + offset, size))
    return tensors


class _Mark:
    """The stack's mark."""


@dataclass(slots=True)
class _Global:
    name: str


@dataclass(slots=True)
class _Storage:
    dtype: str
    key: str


@dataclass(slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]


@dataclass(slots=True)
class _Pairs:
    """A dictionary, or an object with its state."""

    pairs: list[tuple[Any, Any]]


def _views(pickle: bytes, cursor: Cursor) -> list[_View]:
    try:
        top = _Machine(cursor).run(pickle)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return []  # not a pickle that we can follow: the storages are plain bytes
    views: list[_View] = []
    _walk(top, "", _DEPTH, views, cursor)
    return views


def _walk(value: object, name: str, depth: int, views: list[_View], cursor: Cursor) -> None:
    cursor.budget.spend()
    if isinstance(value, _Tensor):
        views.append(_View(name, value.storage.key, value.storage.dtype, value.offset, value.shape))
    elif isinstance(value, _Pairs) and depth:
        for key, item in value.pairs:
            _walk(item, f"{name}.{key}".strip(".") if isinstance(key, str | int) else name, depth - 1, views, cursor)
    elif isinstance(value, list | tuple) and depth:
        for index, item in enumerate(value):
            _walk(item, f"{name}.{index}".strip("."), depth - 1, views, cursor)


class _Machine:
    """Pickle's stack machine without its powers: nothing is imported, called or built."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            self._cursor.budget.spend()
            if count > _OPCODES:
                raise UntrustedInput(f"a torch file's pickle has more than {_OPCODES} opcodes")
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        return None

    def _to_mark(self) -> list[Any]:
        items = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in (
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINFLOAT",
            "INT",
            "LONG",
        ):
            stack.append(argument)
        elif name in ("NEWTRUE", "NEWFALSE", "NONE"):
            stack.append({"NEWTRUE": True, "NEWFALSE": False, "NONE": None}[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            stack.append(_Mark())
        elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
            stack.append({"EMPTY_TUPLE": (), "EMPTY_DICT": _Pairs([])}.get(name, []))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = self._to_mark()
            stack.append(tuple(items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                stack.pop()
                argument = stack.pop()
            stack.append(_Global(str(argument)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else self._to_mark()
            if isinstance(stack[-1], _Pairs):
                stack[-1].pairs.extend(zip(items[::2], items[1::2], strict=True))
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(self._call(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Pairs):
                stack[-1].pairs.append(("", state))
        else:
            raise ValueError(f"opcode {name}")

    def _persistent(self, value: Any) -> object:
        kind, storage, key, *_ = value
        if kind == "storage" and isinstance(storage, _Global):
            return _Storage(_STORAGES[storage.name.replace(".", " ").split(" ")[-1]], str(key))
        return None

    def _call(self, function: Any, arguments: Any) -> object:
        name = function.name if isinstance(function, _Global) else ""
        if name.endswith(("_rebuild_tensor_v2", "_rebuild_tensor")):
            storage, offset, shape, strides = arguments[:4]
            if not _is_contiguous(shape, strides) or not isinstance(storage, _Storage) or offset < 0:
                return None
            return _Tensor(storage, offset, tuple(shape))
        if name.endswith("_rebuild_parameter"):
            return arguments[0]
        return _Pairs([])


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    if len(shape) > limits.DELTA_DIMENSIONS or len(shape) != len(strides):
        raise UntrustedInput("a torch tensor's shape and strides do not agree")
    expected = 1
    for size, stride in zip(shape[::-1], strides[::-1], strict=True):
        if size < 0 or (size != 1 and stride != expected):
            return False
        expected *= size
    return True
