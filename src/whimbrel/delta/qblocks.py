"""How do the quantised blocks of a version follow from those of the version before?

1. A code stands for `scale * code + offset`. The old number in the new scale is the prediction,
   `old_code * (old_scale / new_scale) + (old_offset - new_offset) / new_scale`; what is coded is the new code minus the
   rounded prediction, with its sign turned by the side on which the prediction was rounded.
2. The context of a code is how large the row's change is in units of the new scale, and whether that scale is the old
   one: the same for a sub-block. A segment may add how near each prediction was to the edge (8 steps), a context a
   number; its first byte says so. That pays where scales moved far, and costs half of the speed.
3. Scales go first: differences of float16 bits in the order of the numbers, then the small scales of K-quants, which
   are predicted in the same way.
4. Both sides do the same arithmetic anywhere: one float64 division a sub-block, rounded to 1/65536; then integers.

Called by the codec with the blocks of one segment.
"""

from dataclasses import dataclass

import numpy as np

from whimbrel.delta import floats
from whimbrel.delta.dtypes import BY_NAME, Dtype
from whimbrel.delta.layouts import LAYOUTS, Fields, Layout
from whimbrel.delta.streams import U8, Array, StreamReader, StreamWriter, estimate_bits
from whimbrel.errors import UntrustedInput

DEAD = floats.DEAD
_HALF = floats.SHAPES[BY_NAME["f16"].code]
_ONE = 1 << 16
_STEP = 32 * 1024  # numbers predicted at once
_FRACTIONS = 9
_SAME = 8  # the fraction of a sub-block whose scale is the old one
_LEVELS = 28
_LEVEL_SHIFT = 274  # half octaves: 2 * 127 is the bias of a float32 exponent, 20 puts a mean change of 2**-10 at zero
_SCALE_WEIGHTS = {127: 8, 31: 32, 32: 32}  # by the largest code; tried 0 to 1000 on real pairs
_COARSE_SCALE_WEIGHT = 100
_SAMPLE = 4  # every fourth number says whether edges pay
_EDGE_GAIN = 0.98  # of the bits without them; a smaller gain is not worth the time
_RATIO_LIMIT = 64.0
_OFFSET_LIMIT = 8192.0


@dataclass(slots=True)
class Segment:
    """Rows of old blocks: `blocks` (n, bytes a block), `rows` how many blocks each row has."""

    blocks: U8
    rows: Array


class _Old:
    """The old blocks, cut, with what is needed of them more than once."""

    def __init__(self, segment: Segment, layout: Layout) -> None:
        self.fields = layout.split(segment.blocks)
        self.layout = layout
        self.rows = segment.rows
        with np.errstate(all="ignore"):
            self.scales, self.offsets = layout.scales(self.fields)


def _fixed(numbers: Array, limit: float) -> Array:
    """Round to 1/65536. Not-a-number is 0; the caller has put 1 where a ratio has no meaning."""
    clipped = np.clip(np.nan_to_num(numbers, nan=0.0, posinf=limit, neginf=-limit), -limit, limit)
    return np.asarray(np.rint(clipped * _ONE).astype(np.int32))


def _ratio(before: Array, after: Array) -> Array:
    """before / after as fixed point; 1 where that is no number."""
    with np.errstate(all="ignore"):
        ratio = before.astype(np.float64) / after.astype(np.float64)
    ratio[~np.isfinite(ratio)] = 1.0
    return _fixed(ratio, _RATIO_LIMIT)


def _level_of_scale(scales: Array) -> Array:
    """Half octaves of |scale|, from the bits: the exponent and the top bit of the mantissa."""
    return ((np.ascontiguousarray(scales).view(np.uint32) >> 22) & 0x1FF).astype(np.int16)


@dataclass(slots=True)
class _Prediction:
    """codes: the rounded prediction (int8); flip: was it rounded up; edge: 0 (far) to 7, empty unless asked for;
    same: (blocks, sub-blocks) whether scale and offset are the old ones.
    """

    codes: Array
    flip: Array
    edge: U8
    same: Array


def _predict(old: _Old, scales: Array, offsets: Array | None, *, with_edges: bool) -> _Prediction:
    codes = old.fields.codes
    ratio = _ratio(old.scales, scales)
    same = old.scales.view(np.uint32) == scales.view(np.uint32)
    shift = None
    if old.offsets is not None and offsets is not None:
        with np.errstate(all="ignore"):
            exact = (old.offsets.astype(np.float64) - offsets.astype(np.float64)) / scales.astype(np.float64)
        shift = _fixed(exact, _OFFSET_LIMIT)
        same &= old.offsets.view(np.uint32) == offsets.view(np.uint32)
    edge = np.empty(codes.shape if with_edges else 0, np.uint8)
    made = _Prediction(np.empty_like(codes), np.empty(codes.shape, np.bool_), edge, same)
    step = _STEP // codes.shape[1]
    for first in range(0, len(codes), step):
        part = slice(first, first + step)
        _predict_step(old, part, ratio[part], None if shift is None else shift[part], made)
    return made


def _predict_step(old: _Old, part: slice, ratio: Array, shift: Array | None, made: _Prediction) -> None:
    """Some blocks: few enough for their 32-bit numbers to stay in the cache."""
    layout = old.layout
    codes = old.fields.codes[part]
    exact = codes.astype("<i4")
    by_sub = exact.reshape(*ratio.shape, -1)
    by_sub *= ratio[:, :, None]
    if shift is not None:
        by_sub += shift[:, :, None]
    np.clip(exact, np.int32((layout.low << 16) - 32767), np.int32((layout.high << 16) + 32767), out=exact)
    exact += _ONE // 2
    fractions, whole = exact.view("<i2")[:, ::2], exact.view("<i2")[:, 1::2]
    np.copyto(made.codes[part], whole, casting="unsafe")
    flip = made.flip[part]
    np.greater_equal(fractions, 0, out=flip)
    if made.edge.size:
        edge = made.edge[part]
        np.copyto(edge, fractions >> 12, casting="unsafe")
        edge ^= flip.view(np.uint8) * np.uint8(7)
        edge &= 7


def _turn(change: Array, flip: Array) -> Array:
    """Negate where `flip` (wrapping), in place; its own inverse."""
    sign = flip.view(np.int8)
    change ^= -sign
    change += sign
    return change


class _Contexts:
    """The contexts of one segment's numbers, from the rows' levels."""

    def __init__(self, old: _Old, levels: Array) -> None:
        self.levels = np.repeat(levels.astype(np.int16), old.rows)
        self.live = self.levels != DEAD
        self.all_live = bool(self.live.all())

    def _in_units(self, scales: Array) -> U8:
        """(blocks, any) the row's level in units of the scale."""
        level = self.levels[:, None] - _level_of_scale(scales) + np.int16(_LEVEL_SHIFT)
        return np.asarray(np.clip(level, 0, _LEVELS - 1), np.uint8)

    def of_halves(self, old: _Old) -> U8:
        first = self._in_units(old.scales[:, :1])
        count = old.layout.halves
        return np.asarray(first + np.arange(count, dtype=np.uint8) * np.uint8(_LEVELS), np.uint8)

    def of_subs(self, old: _Old, same: Array) -> U8:
        """The first half of K-quants with minima are scales, the second minima."""
        count = old.layout.subs
        kind = np.zeros(count, np.uint8)
        if old.offsets is not None:
            kind[count // 2 :] = 1
        return np.asarray(
            (self._in_units(old.scales).max(axis=1, keepdims=True) * np.uint8(2) + kind) * np.uint8(2) + same, np.uint8
        )

    def of_codes(self, scales: Array, same: Array) -> U8:
        """(blocks, sub-blocks)"""
        return np.asarray(self._in_units(scales) * np.uint8(_FRACTIONS) + same * np.uint8(_SAME), np.uint8)


def _with_edges(coarse: U8, same: Array, edge: U8) -> U8:
    """A context a number; edges mean nothing where the scale is the old one. Uses `edge` up."""
    by_sub = edge.reshape(*same.shape, -1)
    by_sub[same] = 0
    by_sub += coarse[:, :, None]
    return edge


def _predict_subs(old: _Old, halves: Array) -> tuple[Array, Array]:
    """(predicted subs as int8, is the half above each the same)."""
    layout = old.layout
    before, after = (h.view(np.float16).astype(np.float32) for h in (old.fields.halves, halves))
    ratio = _ratio(before, after)
    owner = np.arange(layout.subs) * layout.halves // max(1, layout.subs)
    exact = np.multiply(old.fields.subs, ratio[:, owner], dtype=np.int32)
    np.clip(exact, -128 * _ONE, 127 * _ONE, out=exact)
    return ((exact + _ONE // 2) >> 16).astype(np.int8), (old.fields.halves == halves)[:, owner]


class BlockWriter:
    """Codes segments of one quantised dtype as one group."""

    def __init__(self, dtype: Dtype) -> None:
        self._layout = LAYOUTS[dtype.name]
        self._has_edges: list[bool] = []
        self._streams = [StreamWriter(minimum) for minimum in (768, 8000, None, None)]

    def add(self, before: Segment, after: U8) -> None:
        layout = self._layout
        old, new = _Old(before, layout), layout.split(after)
        with np.errstate(all="ignore"):
            scales, offsets = layout.scales(new)
        guess = _predict(old, scales, offsets, with_edges=True)
        change = new.codes - guess.codes
        levels = _levels(old, new, change, scales)
        context = _Contexts(old, levels)
        live = slice(None) if context.all_live else context.live
        halves = floats.ordered(new.halves, _HALF) - floats.ordered(old.fields.halves, _HALF)
        self._streams[0].add(levels.astype(np.int16))
        self._streams[1].add(halves[live].reshape(-1), context.of_halves(old)[live].reshape(-1))
        if layout.subs:
            subs, same = _predict_subs(old, new.halves)
            subs = new.subs - subs
            self._streams[2].add(subs[live].reshape(-1), context.of_subs(old, same)[live].reshape(-1))
        change = _turn(change, guess.flip)[live]
        coarse = context.of_codes(scales, guess.same)
        fine = _with_edges(coarse, guess.same, guess.edge)[live].reshape(-1)
        coarse = coarse[live].reshape(-1)
        has_edges = _edges_pay(change.reshape(-1), coarse, fine)
        self._has_edges.append(has_edges)
        if has_edges:
            self._streams[3].add(change.reshape(-1), fine)
        else:
            self._streams[3].add(change.reshape(-1, layout.sub_elements), coarse)

    def finish(self) -> tuple[bytes, list[bytes]]:
        """(head of the group, one string a segment)."""
        done = [stream.finish() for index, stream in enumerate(self._streams) if index != 2 or self._layout.subs]
        flags = [bytes([has_edges]) for has_edges in self._has_edges]
        return b"".join(table for table, _ in done), [
            b"".join(parts) for parts in zip(flags, *(p for _, p in done), strict=True)
        ]


def _edges_pay(change: Array, coarse: U8, fine: U8) -> bool:
    """Judged by a sample."""
    if not len(change):
        return False
    sample = change[::_SAMPLE]
    coarse = np.repeat(coarse, len(change) // len(coarse))[::_SAMPLE]
    without = estimate_bits(sample, coarse, times=_SAMPLE)
    return estimate_bits(sample, fine[::_SAMPLE], times=_SAMPLE) < _EDGE_GAIN * without


def _levels(old: _Old, new: Fields, change: Array, scales: Array) -> Array:
    """The level of every row: the mean change of its numbers in half octaves; `DEAD` where no byte changed.

    Two witnesses of it, in the same unit: the codes (sparse where they are coarse) and the scale, which follows the
    largest number of its sub-block as `largest / high`. The coarser the codes, the more the scale is worth.
    """
    blocks, numbers = change.shape
    largest = max(-old.layout.low, old.layout.high)
    weight = _SCALE_WEIGHTS.get(largest, _COARSE_SCALE_WEIGHT)
    with np.errstate(all="ignore"):
        sizes = np.abs(change.reshape(blocks, scales.shape[1], -1).astype(np.int16)).sum(axis=2, dtype=np.int32)
        spread = (sizes * np.abs(scales)).sum(axis=1) + np.abs(scales - old.scales).sum(axis=1) * (largest * weight)
        spread /= np.float32(numbers + weight * scales.shape[1])
        spread[~np.isfinite(spread)] = 0
    starts = np.concatenate(([0], np.cumsum(old.rows)[:-1])).astype(np.intp)
    mean = np.add.reduceat(spread, starts) / old.rows
    live = (new.halves != old.fields.halves).any(axis=1) | (new.codes != old.fields.codes).any(axis=1)
    live |= (new.subs != old.fields.subs).any(axis=1)
    level = np.clip(np.rint(2 * np.log2(np.where(mean > 0, mean, np.float32(2.0**-60)))), -126, 126).astype(np.int8)
    level[~np.logical_or.reduceat(live, starts)] = DEAD
    return np.asarray(level)


class BlockReader:
    """Reads the segments of one group."""

    def __init__(self, dtype: Dtype, head: bytes) -> None:
        self._layout = LAYOUTS[dtype.name]
        self._levels, self._halves = StreamReader(np.int16), StreamReader(np.int16)
        self._subs, self._codes = StreamReader(np.int8), StreamReader(np.int8)
        place = self._halves.open(head, self._levels.open(head, 0))
        if self._layout.subs:
            place = self._subs.open(head, place)
        if self._codes.open(head, place) != len(head):
            raise UntrustedInput("a group's head has bytes that belong to nothing")

    def read(self, before: Segment, content: bytes) -> U8:
        """The new blocks."""
        layout = self._layout
        old = _Old(before, layout)
        if content[:1] not in (b"\0", b"\1"):
            raise UntrustedInput("a segment of quantised blocks begins with no known flag")
        has_edges = content[0] == 1
        levels, place = self._levels.read_plain(content, 1, len(before.rows))
        context = _Contexts(old, levels.astype(np.int8))
        change, place = _place(self._halves, content, place, context.of_halves(old), context)
        halves = floats.unordered(floats.ordered(old.fields.halves, _HALF) + change, _HALF)
        subs = old.fields.subs
        if layout.subs:
            guessed, same = _predict_subs(old, halves)
            change, place = _place(self._subs, content, place, context.of_subs(old, same), context)
            subs = guessed + change
            if not context.all_live:
                subs[~context.live] = old.fields.subs[~context.live]
        fields = Fields(halves, subs, old.fields.codes)
        with np.errstate(all="ignore"):
            scales, offsets = layout.scales(fields)
        guess = _predict(old, scales, offsets, with_edges=has_edges)
        contexts, width = context.of_codes(scales, guess.same), layout.sub_elements
        if has_edges:
            contexts, width = _with_edges(contexts, guess.same, guess.edge), 1
        change, place = _place(self._codes, content, place, contexts, context, width=width)
        if place != len(content):
            raise UntrustedInput("a segment has bytes that belong to nothing")
        codes = _turn(change, guess.flip)
        codes += guess.codes
        if not context.all_live:
            codes[~context.live] = old.fields.codes[~context.live]
        return layout.join(Fields(halves, subs, codes))


def _place(
    stream: StreamReader, content: bytes, place: int, contexts: U8, segment: _Contexts, *, width: int = 1
) -> tuple[Array, int]:
    """(blocks, numbers): `width` numbers for each context, at their places; zero in the rows that are dead."""
    flat = (contexts if segment.all_live else contexts[segment.live]).reshape(-1)
    part, place = stream.read(content, place, flat, width=width)
    part = part.reshape(-1, width * contexts.shape[1])
    if segment.all_live:
        return part, place
    out = np.zeros((len(contexts), part.shape[1]), part.dtype)
    out[segment.live] = part
    return out, place
