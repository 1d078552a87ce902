"""How do numbers that were sorted into contexts become bytes, when segments share tables and can be read alone?

1. A *stream* is one kind of number (differences, codes, levels) of the segments of a *group*. Every number has a
   context, 0 to 255, that both sides know before they read it. Numbers of one context, segment by segment, are one pco
   chunk: its table is in the group's head, its page in the segment.
2. Neighbouring contexts merge until a chunk has enough numbers to pay for its table. The merge is written in the head.
3. The order inside a segment is by chunk, run (of 65,536 numbers), context and place: stable sorts of bytes, which are
   radix sorts.
4. What is read is hostile: counts are known from elsewhere, pages must be used up exactly, and what pco refuses (or
   panics on) is `UntrustedInput`.

Called by the coders. Format: wrapped pco 1, classic mode, no delta (https://github.com/pcodec/pcodec).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, wrapped

from whimbrel import limits
from whimbrel.errors import UntrustedInput

U8 = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
CONTEXTS = 256
_HEADER = wrapped.FileCompressor().write_header()
_LEVEL = 9
_NAMES = {"int16": "i16", "int32": "i32", "uint16": "u16", "uint32": "u32", "uint8": "u8", "int8": "i8"}


_RUN = 64 * limits.KIB  # part of the format: numbers sorted at once; what that needs stays in the second-level cache
_ALL = np.arange(CONTEXTS, dtype=np.uint8)


def _runs(count: int) -> list[slice]:
    return [slice(first, min(count, first + _RUN)) for first in range(0, count, _RUN)]


@dataclass(slots=True)
class _Sorted:
    """A run of a segment by context: `starts[context]` is where it begins in `values`."""

    values: Array
    starts: Array

    def between(self, first: int, last: int) -> Array:
        return self.values[self.starts[first] : self.starts[last]]


@dataclass(slots=True)
class StreamWriter:
    """Collects a group's segments; `finish` gives the table for the head and a page for each segment.

    `minimum` is how many numbers a chunk should have before its table pays.
    """

    minimum: int = 768
    _segments: list[list[_Sorted]] = field(default_factory=list)

    def add(self, values: Array, contexts: U8 | None = None) -> None:
        """The numbers of the next segment in their places' order; one context if none are given."""
        if contexts is None:
            starts = np.full(CONTEXTS + 1, len(values), np.int64)
            starts[0] = 0
            self._segments.append([_Sorted(values, starts)])
            return
        runs = []
        for run in _runs(len(values)):
            order = np.argsort(contexts[run], kind="stable")
            starts = np.full(CONTEXTS + 1, len(order), np.int64)
            starts[:-1] = np.searchsorted(contexts[run], _ALL, sorter=order)
            runs.append(_Sorted(values[run][order], starts))
        self._segments.append(runs)

    def finish(self) -> tuple[bytes, list[bytes]]:
        """(table, one page string a segment)."""
        total = sum((np.diff(run.starts) for runs in self._segments for run in runs), np.zeros(CONTEXTS, np.int64))
        firsts = _merge(total, self.minimum)
        pages: list[list[bytes]] = [[] for _ in self._segments]
        metas = []
        for first, last in zip(firsts, [*firsts[1:], CONTEXTS], strict=False):
            parts = [[run.between(first, last) for run in runs] for runs in self._segments]
            counts = [sum(map(len, runs)) for runs in parts]
            live = [index for index, count in enumerate(counts) if count]
            numbers = np.concatenate([part for runs in parts for part in runs])
            config = ChunkConfig(
                compression_level=_LEVEL,
                mode_spec=ModeSpec.classic(),
                delta_spec=DeltaSpec.no_op(),
                paging_spec=PagingSpec.exact_page_sizes([counts[index] for index in live]),
                enable_8_bit=numbers.dtype.itemsize == 1,
            )
            chunk = wrapped.FileCompressor().chunk_compressor(numbers, config)
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
        firsts = np.array(self._firsts, np.uint8)
        runs = _runs(len(contexts))
        orders = [np.argsort(contexts[run], kind="stable") for run in runs]
        edges = np.zeros((len(runs), len(firsts) + 1), np.int64)  # where each chunk begins in each run
        for row, run, order in zip(edges, runs, orders, strict=True):
            row[:-1] = np.searchsorted(contexts[run], firsts, sorter=order)
            row[-1] = len(order)
        if edges[:, 0].any():
            raise UntrustedInput("a segment has numbers that its group's table does not know")
        counts = np.diff(edges, axis=1)
        bounds = np.concatenate(([0], np.cumsum(counts.sum(axis=0))))
        by_context, place = self._read(segment, place, bounds.tolist())
        if len(runs) == 1:
            values = np.empty_like(by_context)
            values[orders[0]] = by_context
            return values, place
        values = np.empty_like(by_context)
        begins = bounds[:-1] + np.cumsum(counts, axis=0) - counts
        for run, order, begin, count in zip(runs, orders, begins.tolist(), counts.tolist(), strict=True):
            pieces = [by_context[at : at + size] for at, size in zip(begin, count, strict=True) if size]
            values[run][order] = np.concatenate(pieces)
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
