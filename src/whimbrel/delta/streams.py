"""Write numbers that were sorted into contexts as bytes: segments share tables, and each can be read alone.

1. A *stream* is one kind of number (differences, codes, levels) of the segments of a *group*. Every number has a
   context, 0 to 255, that both sides know before they read it. Numbers of one context, segment by segment, are one pco
   chunk: its table is in the group's head, its page in the segment.
2. Neighbouring contexts merge until a chunk has enough numbers to pay for its table. What joining costs is counted of
   bytes: they merge while it makes the whole smaller. The merge is written in the head.
3. The order inside a segment is by chunk, run (of 65,536 contexts), context and place. Half a run is sorted at once:
   stable sorts of bytes are radix sorts, and their tables of 8 bytes a context stay in the cache.
4. Numbers that share a context by nature travel as rows: a context a row, and there is little to sort.
5. What is read is hostile: counts are known from elsewhere, pages must be used up exactly, and what pco refuses (or
   panics on) is `UntrustedInput`.

Called by the coders. Format: wrapped pco 1, classic mode, no delta (https://github.com/pcodec/pcodec).
"""

from dataclasses import dataclass, field
from itertools import chain, pairwise
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
_PAGE_BITS = 128  # what a page costs beside its numbers, and what its reader's time is worth
_SAMPLE = 8 * limits.KIB  # bytes counted of a step and context
_SHARING = 8  # segments of a group, mostly
_VALUE_BITS = 24  # a value in a chunk's table
_NAMES = {"int16": "i16", "int32": "i32", "uint16": "u16", "uint32": "u32", "uint8": "u8", "int8": "i8"}

_RUN = 64 * limits.KIB  # part of the format
_STEPS = 2  # a run is sorted in so many steps: the tables of a whole one leave a small second-level cache
_ALL = np.arange(CONTEXTS, dtype=np.uint8)


def _steps(count: int) -> list[slice]:
    size = _RUN // _STEPS
    return [slice(first, min(count, first + size)) for first in range(0, count, size)]


@dataclass(slots=True)
class _Sorted:
    """A step of a segment by context: `starts[context]` is where it begins in `values` (numbers, or rows of them)."""

    values: Array
    starts: list[int]


@dataclass(slots=True)
class StreamWriter:
    """Collects a group's segments; `finish` gives the table for the head and a page for each segment.

    `minimum` is how many numbers a chunk should have before its table pays; None for bytes, of which it is counted.
    """

    minimum: int | None = 768
    _segments: list[list[_Sorted]] = field(default_factory=list)
    _total: Array = field(default_factory=lambda: np.zeros(CONTEXTS, np.int64))

    def add(self, values: Array, contexts: U8 | None = None) -> None:
        """The numbers of the next segment, or rows of them, with a context each; one for all if none are given."""
        if contexts is None:
            self._segments.append([_Sorted(values, [0] + [len(values)] * CONTEXTS)])
            self._total[0] += len(values)
            return
        steps = []
        width = values[:1].size
        for step in _steps(len(values)):
            order, starts = _sort(contexts[step], _ALL)
            self._total += np.diff(starts) * width
            steps.append(_Sorted(values[step][order], starts.tolist()))
        self._segments.append(steps)

    def _cells(self) -> Array:
        """(256 contexts, 256 values): how often each byte occurs, long pieces by a sample."""
        cells = np.zeros((CONTEXTS, CONTEXTS), np.int64)
        for step in chain.from_iterable(self._segments):
            for context in np.flatnonzero(np.diff(step.starts)).tolist():
                piece = step.values[step.starts[context] : step.starts[context + 1]].reshape(-1)
                stride = 1 + piece.size // _SAMPLE
                cells[context] += stride * np.bincount(piece[::stride].view(np.uint8), minlength=CONTEXTS)
        return cells

    def finish(self) -> tuple[bytes, list[bytes]]:
        """(table, one page string a segment)."""
        if self.minimum is None:
            firsts = _cheapest(self._cells(), len(self._segments))
        else:
            firsts = _merge(self._total, self.minimum)
        pages: list[list[bytes]] = [[] for _ in self._segments]
        metas = []
        present = np.flatnonzero(self._total).tolist()
        for first, last in zip(firsts, [*firsts[1:], CONTEXTS], strict=False):
            chosen = [context for context in present if first <= context < last]
            parts = [_in_order(steps, chosen) for steps in self._segments]
            counts = [sum(piece.size for piece in pieces) for pieces in parts]
            live = [index for index, count in enumerate(counts) if count]
            pieces = list(chain.from_iterable(parts))
            numbers = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            del parts, pieces  # before pco makes copies of its own
            if last == CONTEXTS:
                self._segments.clear()
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
            del chunk, numbers  # before the next are made
        table = bytes([len(firsts)]) + bytes(firsts) + b"".join(metas)
        return table, [b"".join(page) for page in pages]


def _sort(contexts: U8, between: U8) -> tuple[Array, Array]:
    """(order, where each context of `between` begins in it and the end)."""
    order = contexts.argsort(kind="stable")
    starts = np.empty(len(between) + 1, np.int64)
    starts[:-1] = contexts.searchsorted(between, sorter=order)
    starts[-1] = len(order)
    return order, starts


def _narrowed(order: Array, starts: Array) -> tuple[Array, Array]:
    """The same order in two bytes a number, not eight: a reader keeps that of a whole segment."""
    return order.astype(np.uint16), starts


def _scatter(numbers: Array, order: Array, out: Array) -> None:
    """`out`, which is all zero, gets the numbers at their places; of a small change most are zero and there already."""
    if numbers.ndim == 1 and 4 * np.count_nonzero(numbers) < len(numbers):
        changed = np.flatnonzero(numbers != 0)  # of flags: several times as fast as of numbers
        out[order.take(changed)] = numbers.take(changed)
    else:
        out[order.astype(np.intp)] = numbers  # narrow ones are slow


def _in_order(steps: list[_Sorted], contexts: list[int]) -> list[Array]:
    """A segment's numbers of these contexts by run, context and place."""
    return [
        piece.reshape(-1)
        for first in range(0, len(steps), _STEPS)
        for context in contexts
        for step in steps[first : first + _STEPS]
        if len(piece := step.values[step.starts[context] : step.starts[context + 1]])
    ]


def _cheapest(cells: Array, pages: int) -> list[int]:
    """The first context of each chunk: neighbours join while that makes entropy, tables and pages smaller together.

    `cells` (256, 256): how often each byte occurs in each context.
    """
    firsts = np.flatnonzero(cells.any(axis=1)).tolist()
    parts = [cells[first].astype(np.float64) for first in firsts]
    page_bits = pages * _PAGE_BITS
    costs = [_cost(part, page_bits) for part in parts]
    joint = [_cost(a + b, page_bits) for a, b in pairwise(parts)]
    while joint:
        gains = [a + b - both for a, b, both in zip(costs, costs[1:], joint, strict=False)]
        at = int(np.argmax(gains))
        if gains[at] <= 0 and len(firsts) < CONTEXTS:  # the head counts chunks in one byte
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        costs[at : at + 2] = [joint.pop(at)]
        del firsts[at + 1]
        for left in {max(0, at - 1), at}:
            if left < len(joint):
                joint[left] = _cost(parts[left] + parts[left + 1], page_bits)
    return firsts


def _cost(counts: Array, page_bits: int) -> float:
    return (
        float(_n_log_n(counts.sum(keepdims=True)) - _n_log_n(counts))
        + page_bits
        + _VALUE_BITS * np.count_nonzero(counts)
    )


def estimate_bits(values: Array, contexts: U8, *, times: int) -> float:
    """What a segment's bytes (int8) take by their entropy and their part of the tables, from one in `times` of them."""
    cells = np.bincount(contexts.astype(np.uint16) << 8 | values.view(np.uint8), minlength=CONTEXTS * CONTEXTS)
    of_contexts = cells.reshape(CONTEXTS, CONTEXTS).sum(axis=1)
    entropy = float(_n_log_n(of_contexts) - _n_log_n(cells))
    return times * entropy + _VALUE_BITS / _SHARING * int(np.count_nonzero(cells))


def _n_log_n(counts: Array) -> Any:
    counts = counts[counts > 0]
    return (counts * np.log2(counts)).sum()


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
            if place + 1 < len(head) and head[place + 1] & 15 > limits.DELTA_STATES_LOG:
                raise UntrustedInput("a group's table has more states than any writer gives it")
            chunk, used = _guard(_file().chunk_decompressor, head[place:], _NAMES[self._dtype.name])
            self._chunks.append(chunk)
            place += used
        return place

    def read(self, segment: bytes, place: int, contexts: U8, *, width: int = 1) -> tuple[Array, int]:
        """The numbers of a segment in their places' order, `width` for each context, and the place after them."""
        if not len(contexts):
            return np.empty(0, self._dtype), place
        between = _ALL[contexts.min() : int(contexts.max()) + 1]
        steps = _steps(len(contexts))
        sorted_steps = [_narrowed(*_sort(contexts[step], between)) for step in steps]
        del contexts  # they may be most of a megabyte
        counts = np.diff(np.array([starts for _, starts in sorted_steps]), axis=1)
        begins, bounds = self._places(counts, between)
        numbers, place = self._read(segment, place, [bound * width for bound in bounds])
        by_context = numbers if width == 1 else numbers.reshape(-1, width)
        values = np.zeros_like(by_context)
        for step, begin, count in zip(reversed(steps), reversed(begins), reversed(counts.tolist()), strict=True):
            order = sorted_steps.pop()[0]  # leaves the memory as its numbers come
            pieces = [by_context[at : at + size] for at, size in zip(begin, count, strict=True) if size]
            _scatter(np.concatenate(pieces), order, values[step])
        return values.reshape(-1), place

    def _places(self, counts: Array, contexts: U8) -> tuple[list[list[int]], list[int]]:
        """Where the numbers of each step and context begin, and where each chunk begins, and the end.

        `counts` (steps, contexts) says how many there are. The order is chunk, run, context, step.
        """
        chunk = np.searchsorted(self._firsts, contexts, side="right") - 1
        if chunk[0] < 0:
            raise UntrustedInput("a segment has numbers that its group's table does not know")
        run = np.arange(len(counts)) // _STEPS
        order = np.argsort((chunk[:, None] * len(counts) + run).reshape(-1), kind="stable")
        in_order = counts.T.reshape(-1)[order]
        begins = np.empty_like(in_order)
        begins[order] = np.cumsum(in_order) - in_order
        sizes = np.bincount(chunk, counts.sum(axis=0), len(self._firsts)).astype(np.int64)
        return begins.reshape(len(contexts), -1).T.tolist(), [0, *np.cumsum(sizes).tolist()]

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
