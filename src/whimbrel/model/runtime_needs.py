"""Which versions of its runtime are too old for a model file, read by hand from the file's first facts.

1. ONNX says its IR version and its operator sets; GGUF its version. One table says from which runtime on each is known.
   TFLite and Core ML files do not name what can be compared with a version of a Python runtime.
2. The answer is a term of a selector that leaves out devices which are known to have an older runtime. A device without
   a label of the runtime is not left out: its app may bring a runtime of its own.
3. A version that no row reaches needs what the last row below it needs. So a table that is out of date asks too little
   and never too much. The last rows of ONNX are what the newest runtime that was tried refuses.

Called at publication. To bring the table up to date: docs/howto/extend.md.
"""

from collections.abc import Callable, Iterator

from whimbrel.model import protobuf
from whimbrel.model.formats import GGUF_MAGIC, ONNX_IR_VERSION, Format, runtime_label
from whimbrel.model.ids import dotted_key
from whimbrel.model.selector import Expression

Read = Callable[[int, int], bytes]  # (offset, size): bytes of the file, fewer of them at its end
Rows = tuple[tuple[int, str], ...]  # from this number on: the runtimes that are too old

# What opens: found by opening one-node models with onnxruntime 1.15 to 1.31; before 1.15, and 1.17 and 1.18,
# https://onnxruntime.ai/docs/reference/compatibility.html
_ONNX_IR: Rows = ((8, "<1.9"), (9, "<1.15"), (10, "<1.18"), (11, "<1.23"), (12, "<1.24"), (14, "<=1.31.1"))
_ONNX_OPSETS: dict[str, Rows] = {
    "": (
        (12, "<1.3"),
        (13, "<1.6"),
        (14, "<1.8"),
        (15, "<1.9"),
        (16, "<1.11"),
        (17, "<1.12"),
        (18, "<1.14"),
        (19, "<1.16"),
        (20, "<1.17"),
        (21, "<1.18"),
        (22, "<1.21"),
        (23, "<1.23"),
        (24, "<1.24"),
        (26, "<1.25"),
        (27, "<=1.31.1"),
    ),
    "ai.onnx.ml": ((3, "<1.12"), (4, "<1.17"), (5, "<1.18"), (6, "<=1.31.1")),
}
_ONNX_DOMAINS = {"ai.onnx": ""}  # the other name of the same operators
# The first llama-cpp-python with llama.cpp's support of GGUF (2023-08), and of version 3 (2023-10).
_GGUF: Rows = ((1, "<0.1.79"), (3, "<0.2.12"))

# onnx.proto: ModelProto.opset_import, and OperatorSetIdProto
_OPSET_IMPORT, _DOMAIN, _VERSION = 8, 1, 2
_OPSET_BYTES = 1024  # of one operator set: a domain's name and a number
_OPSETS = 256


def too_old(kind: Format, read: Read, size_bytes: int) -> Expression | None:
    """The term that leaves out devices whose runtime is too old; None where the file says nothing of it.

    Raises `ValueError` where the file is not whole.
    """
    reader = _READERS.get(kind)
    bounds = list(reader(read, size_bytes)) if reader is not None else []
    if not bounds:
        return None
    return Expression(key=runtime_label(kind), operator="NotVersion", values=(max(bounds, key=_reach),))


def _onnx(read: Read, size_bytes: int) -> Iterator[str]:
    opsets = 0
    for field in protobuf.fields_in_order(read, size_bytes):
        if field.number == ONNX_IR_VERSION and field.wire == protobuf.VARINT:
            yield from _row(_ONNX_IR, field.value)
        elif field.number == _OPSET_IMPORT and field.wire == protobuf.BYTES and opsets < _OPSETS:
            opsets += 1
            domain, number = _opset(read(field.start, min(field.size, _OPSET_BYTES)))
            yield from _row(_ONNX_OPSETS.get(_ONNX_DOMAINS.get(domain, domain), ()), number)


def _opset(content: bytes) -> tuple[str, int]:
    domain, number = "", 0
    for field in protobuf.fields_in_order(lambda offset, size: content[offset : offset + size], len(content)):
        if field.number == _DOMAIN and field.wire == protobuf.BYTES:
            domain = content[field.start : field.start + field.size].decode("utf-8", "replace")
        elif field.number == _VERSION and field.wire == protobuf.VARINT:
            number = field.value
    return domain, number


def _gguf(read: Read, _size_bytes: int) -> Iterator[str]:
    head = read(0, 8)
    if len(head) == 8 and head.startswith(GGUF_MAGIC):
        # A big-endian file says its version in its own order: a small number either way.
        yield from _row(_GGUF, min(int.from_bytes(head[4:], order) for order in ("little", "big")))


_READERS: dict[Format, Callable[[Read, int], Iterator[str]]] = {"onnx": _onnx, "gguf": _gguf}


def _row(rows: Rows, number: int) -> list[str]:
    """The bound of the last row that `number` reaches."""
    return [bound for least, bound in rows if number >= least][-1:]


def _reach(bound: str) -> tuple[tuple[int, ...], bool]:
    return dotted_key(bound.lstrip("<=")), bound.startswith("<=")
