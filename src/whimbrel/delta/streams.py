"""How do numbers that were sorted into contexts become bytes, when segments share tables and can be read alone?

1. A *stream* is one kind of number (differences, codes, levels) of the segments of a *group*. Every number has a
   context, 0 to 255, that both sides know before they read it. Numbers of one context, segment by segment, are one pco
   chunk: its table is in the group's head, its page in the segment.
2. Neighbouring contexts merge until a chunk has enough numbers to pay for its table. The merge is written in the head.
3. The order inside a segment is by context, then by place: a stable sort of bytes, which is a radix sort.
4. What is read is hostile: counts are known from elsewhere, pages must be used up exactly, and what pco refuses (or
   panics on) is `UntrustedInput`.

Called by the coders. Format: wrapped pco 1, classic mode, no delta (https://github.com/pcodec/pcodec).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, wrapped

from whimbrel.errors import UntrustedInput

U8 = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
CONTEXTS = 256
_HEADER = wrapped.FileCompressor().write_header()
_LEVEL = 9
_NAMES = {"int16": "i16", "int32": "i32", "uint16": "u16", "uint32": "u32", "uint8": "u8", "int8": "i8"}


_ALL = np.arange(CONTEXTS, dtype=np.uint8)


@dataclass(slots=True)
class StreamWriter:
    """Collects a group's segments; `finish` gives the table for the head and a page for each segment.

    `minimum` is how many numbers a chunk should have before its table pays.
    """

    minimum: int = 768
    _values: list[Array] = field(default_factory=list)
    _starts: list[Array] = field(default_factory=list)

    def add(self, values: Array, contexts: U8 | None = None) -> None:
        """The numbers of the next segment in their places' order; one context if none are given."""
        starts = np.zeros(CONTEXTS + 1, np.int64)
        starts[1:] = len(values)
        if contexts is not None:
            order = np.argsort(contexts, kind="stable")
            starts[:-1] = np.searchsorted(contexts, _ALL, sorter=order)
            values = values[order]
        self._values.append(values)
        self._starts.append(starts)

    def finish(self) -> tuple[bytes, list[bytes]]:
        """(table, one page string a segment)."""
        starts = self._starts
        firsts = _merge(np.diff(np.sum(starts, axis=0)), self.minimum)
        pages: list[list[bytes]] = [[] for _ in self._values]
        metas = []
        for first, last in zip(firsts, [*firsts[1:], CONTEXTS], strict=False):
            parts = [values[start[first] : start[last]] for values, start in zip(self._values, starts, strict=True)]
            live = [index for index, part in enumerate(parts) if len(part)]
            numbers = np.concatenate([parts[index] for index in live]) if len(live) > 1 else parts[live[0]]
            config = ChunkConfig(
                compression_level=_LEVEL,
                mode_spec=ModeSpec.classic(),
                delta_spec=DeltaSpec.no_op(),
                paging_spec=PagingSpec.exact_page_sizes([len(parts[index]) for index in live]),
                enable_8_bit=numbers.dtype.itemsize == 1,
            )
            chunk = wrapped.FileCompressor().chunk_compressor(np.ascontiguousarray(numbers), config)
            metas.append(chunk.write_meta())
            for page, index in enumerate(live):
                pages[index].append(chunk.write_page(page))
            del chunk, numbers, parts  # before the next are made
        table = bytes([len(firsts)]) + bytes(firsts) + b"".join(metas)
        return table, [b"".join(page) for page in pages]


def _merge(counts: Array, minimum: int) -> list[int]:
    """The first context of each chunk: upward until `minimum` is reached; a small rest joins the last."""
    firsts: list[int] = []
    gathered = minimum
    for context in np.flatnonzero(counts).tolist():
        if gathered >= minimum:
            firsts.append(context)
            gathered = 0
        gathered += int(counts[context])
    if len(firsts) > 1 and gathered < minimum:
        firsts.pop()
    if len(firsts) == CONTEXTS:  # the head counts chunks in one byte
        firsts.pop()
    return firsts


class StreamReader:
    """Reads what a `StreamWriter` made. Not to be shared between threads."""

    def __init__(self, dtype: type[Any]) -> None:
        self._dtype: np.dtype[Any] = np.dtype(dtype)
        self._firsts: list[int] = []
        self._chunks: list[Any] = []

    def open(self, head: bytes, place: int) -> int:
        """Read the table at `place` of a group's head; the place after it."""
        count = head[place] if place < len(head) else -1
        firsts = list(head[place + 1 : place + 1 + count])
        if len(firsts) != count or sorted(set(firsts)) != firsts:
            raise UntrustedInput("a group's table of contexts is damaged")
        place += 1 + count
        self._firsts = firsts
        for _ in firsts:
            chunk, used = _guard(_file().chunk_decompressor, head[place:], _NAMES[self._dtype.name])
            self._chunks.append(chunk)
            place += used
        return place

    def read(self, segment: bytes, place: int, contexts: U8) -> tuple[Array, int]:
        """The numbers of a segment in their places' order, and the place after them."""
        if not self._firsts:
            if len(contexts):
                raise UntrustedInput("a segment has numbers that its group's table does not know")
            return np.empty(0, self._dtype), place
        order = np.argsort(contexts, kind="stable")
        bounds = np.searchsorted(contexts, np.array(self._firsts, np.uint8), sorter=order).tolist()
        sorted_values, place = self._read(segment, place, [*bounds, len(contexts)])
        values = np.empty_like(sorted_values)
        values[order] = sorted_values
        return values, place

    def read_plain(self, segment: bytes, place: int, count: int) -> tuple[Array, int]:
        """`count` numbers of a stream with a single context."""
        if count and not self._firsts:
            raise UntrustedInput("a segment has numbers that its group's table does not know")
        return self._read(segment, place, [0] * len(self._firsts) + [count])

    def _read(self, segment: bytes, place: int, bounds: list[int]) -> tuple[Array, int]:
        if bounds[0]:
            raise UntrustedInput("a segment has numbers that its group's table does not know")
        out: Array = np.empty(bounds[-1], self._dtype)
        for chunk, begin, end in zip(self._chunks, bounds, bounds[1:], strict=False):
            if begin == end:
                continue
            progress, used = _guard(chunk.read_page_into, segment[place:], end - begin, out[begin:end])
            if progress.n_processed != end - begin or not progress.finished:
                raise UntrustedInput("a segment's page is too short")
            place += used
        return out, place


def _file() -> Any:
    return wrapped.FileDecompressor.new(_HEADER)[0]


def _guard(function: Any, *arguments: Any) -> Any:
    """pco raises RuntimeError for damage, and a panic (which is no `Exception`) for some of it."""
    try:
        return function(*arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UntrustedInput(f"a patch's numbers are damaged: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UntrustedInput("a patch's numbers are damaged") from error
