"""How do the floats of a version follow from those of the version before?

1. The bits become integers in the order of the numbers (sign and magnitude to two's complement), so that a step to the
   next float is 1; the change is `new - old`, and its sign is turned by the old value's sign: weight decay and rounding
   pull towards zero or away from it.
2. The context of a change is how large it should be in units of the old value's last place: the row's spread, sent as
   one byte of half octaves, minus the old value's exponent. f32 adds the top bit of the mantissa.
3. A row that did not change says so in its byte (`DEAD`) and has no numbers.
4. Everything that the reader does is integer arithmetic; only the writer's spread is in floats, and it is sent.

Called by the codec with the numbers of one segment. Measured in docs/reference/delta.md.
"""

from dataclasses import dataclass

import numpy as np

from whimbrel.delta.dtypes import BY_NAME, Dtype
from whimbrel.delta.streams import U8, Array, StreamReader, StreamWriter
from whimbrel.errors import UntrustedInput

DEAD = -127
_LEVELS = 126
_TOP = 120
_PREDICTED, _PREDICTED_SHIFT = 128, 8  # contexts of 16-bit predictions: 16 levels, 20 is one step, by 8 edges


@dataclass(frozen=True, slots=True)
class Shape:
    """How the bits of a float dtype are cut."""

    unsigned: type
    signed: type
    mantissa_bits: int
    exponent_bits: int

    @property
    def bits(self) -> int:
        return 1 + self.mantissa_bits + self.exponent_bits

    @property
    def bias(self) -> int:
        """What makes an exponent field the power of two of the last place."""
        return (1 << (self.exponent_bits - 1)) - 1 + self.mantissa_bits


SHAPES = {
    BY_NAME["f32"].code: Shape(np.uint32, np.int32, 23, 8),
    BY_NAME["f16"].code: Shape(np.uint16, np.int16, 10, 5),
    BY_NAME["bf16"].code: Shape(np.uint16, np.int16, 7, 8),
}


def to_float32(bits: Array, dtype: Dtype) -> Array:
    """The values, exactly."""
    if dtype.name == "f32":
        return bits.view(np.float32)
    if dtype.name == "f16":
        with np.errstate(invalid="ignore"):  # signalling not-a-numbers
            return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def ordered(bits: Array, shape: Shape) -> Array:
    """Bits as signed integers in the order of the numbers (-0.0 is one below 0.0)."""
    signed: Array = bits.view(shape.signed)
    flips = np.asarray(signed >> shape.signed(shape.bits - 1))  # 0 or -1
    np.bitwise_and(flips, shape.signed((1 << (shape.bits - 1)) - 1), out=flips)
    return np.asarray(np.bitwise_xor(signed, flips, out=flips))


def unordered(numbers: Array, shape: Shape) -> Array:
    """The inverse of `ordered`; it is its own inverse."""
    return ordered(numbers.view(shape.unsigned), shape).view(shape.unsigned)


def fold(change: Array, segment: "Segment", shape: Shape) -> Array:
    """Turn the sign of `change` where the old value is negative, or where a prediction was rounded up; in place.

    Its own inverse.
    """
    sign = segment.bits.view(shape.signed) >> shape.signed(shape.bits - 1)
    if segment.edges is not None:
        side = (segment.edges & np.uint8(1)).astype(shape.signed) - shape.signed(1)
        sign = np.where(segment.edges > 0, side, sign)
    np.bitwise_xor(change, sign, out=change)
    np.subtract(change, sign, out=change)
    return change


@dataclass(slots=True)
class Segment:
    """Rows of old numbers as the coder sees them: `bits` end to end, `rows` the lengths of the rows.

    `edges`, where there are any: 0 for an old number; for a prediction `2 + 2 * eighth + (rounded down)`, where the
    eighth says how near it came to the next number, 7 the nearest.
    """

    bits: Array
    rows: Array
    edges: U8 | None = None

    def spread_over(self, levels: Array) -> Array:
        """One level a row as one a number."""
        lengths = self.rows
        if len(lengths) and (lengths == lengths[0]).all():
            return np.broadcast_to(levels[:, None], (len(lengths), int(lengths[0]))).reshape(-1)
        return np.repeat(levels, lengths)


def exponents(segment: Segment, shape: Shape) -> Array:
    """The exponent field of every number as int16; denormals have that of the smallest normal number."""
    field = np.asarray(segment.bits >> shape.unsigned(shape.mantissa_bits))
    np.bitwise_and(field, shape.unsigned((1 << shape.exponent_bits) - 1), out=field)
    exponent = field.view(np.int16) if field.itemsize == 2 else field.astype(np.int16)
    return np.asarray(np.maximum(exponent, 1, out=exponent))


def contexts(segment: Segment, levels: Array, exponent: Array, dtype: Dtype) -> U8:
    """One byte a number: the expected size of its change, in half octaves of its last place. Uses `exponent` up."""
    shape = SHAPES[dtype.code]
    np.left_shift(exponent, 1, out=exponent)
    wide = levels.astype(np.int16) + np.int16(20 + 2 * shape.bias)
    if len(segment.rows) and (segment.rows == segment.rows[0]).all():
        by_row = exponent.reshape(len(segment.rows), -1)  # a view: no level a number is made
        np.subtract(wide[:, None], by_row, out=by_row)
        context = exponent
    else:
        context = np.subtract(segment.spread_over(wide), exponent, out=exponent)
    np.clip(context, 0, _TOP, out=context)
    if dtype.name == "f32":
        np.left_shift(context, 1, out=context)
        top = (segment.bits >> shape.unsigned(shape.mantissa_bits - 1)) & shape.unsigned(1)
        context |= top.astype(np.int16)
    if segment.edges is not None:
        predicted = _PREDICTED + 8 * (context - _PREDICTED_SHIFT).clip(0, 15) + (segment.edges >> np.uint8(1)) - 1
        context = np.where(segment.edges > 0, predicted, context)
    return np.asarray(context.astype(np.uint8))


def edges_of(exact: Array, bits: Array, dtype: Dtype) -> U8:
    """`Segment.edges` of predictions that were `exact` (float64) before they were rounded to `bits`.

    The difference is exact, and so is its scaling by a power of two.
    """
    shape = SHAPES[dtype.code]
    exponent = exponents(Segment(bits, np.zeros(0)), shape)
    with np.errstate(all="ignore"):
        lost = np.ldexp(exact - to_float32(bits, dtype), shape.bias - exponent.astype(np.int32))
        lost[~np.isfinite(lost)] = 0
        eighth = np.minimum(np.abs(lost) * 16, 7).astype(np.uint8)
    return np.asarray(2 + 2 * eighth + (lost > 0), np.uint8)


def sizes_of(change: Array, exponent: Array, before: Array, after: Array, dtype: Dtype) -> Array:
    """How far each number moved, as float32; 0 where that is no number.

    For f16, whose conversion is slow, the steps of the change times the old number's last place stand for it; bf16 has
    too few steps an octave for that.
    """
    if dtype.name == "f16":
        place = exponent.astype(np.int32)
        place += 127 - SHAPES[dtype.code].bias
        place <<= 23
        size = change.astype(np.float32)
        size *= place.view(np.float32)
        size[exponent == (1 << SHAPES[dtype.code].exponent_bits) - 1] = 0
    else:
        size = to_float32(after, dtype) - to_float32(before, dtype)
        size[~np.isfinite(size)] = 0
    return np.asarray(np.abs(size, out=size))


def levels_of(size: Array, changed: Array, rows: Array) -> Array:
    """The level of every row: the mean size of its changes in half octaves; `DEAD` where nothing changed."""
    starts = np.concatenate(([0], np.cumsum(rows)[:-1])).astype(np.intp)
    mean = np.add.reduceat(size, starts, dtype=np.float32) / rows
    mean = np.where((mean > 0) & np.isfinite(mean), mean, np.float32(2.0**-60))
    level = np.clip(np.rint(2 * np.log2(mean)), -_LEVELS, _LEVELS).astype(np.int8)
    level[~np.logical_or.reduceat(changed, starts)] = DEAD
    return np.asarray(level)


class FloatWriter:
    """Codes segments of one dtype as one group."""

    def __init__(self, dtype: Dtype) -> None:
        self._dtype = dtype
        self._shape = SHAPES[dtype.code]
        self._levels = StreamWriter()
        self._changes = StreamWriter()

    def add(self, before: Segment, after: Array) -> None:
        shape = self._shape
        exponent = exponents(before, shape)
        with np.errstate(all="ignore"):
            change = ordered(after, shape) - ordered(before.bits, shape)  # wraps, and wraps back
            size = sizes_of(change, exponent, before.bits, after, self._dtype)
            levels = levels_of(size, change != 0, before.rows)
        change = fold(change, before, shape)
        context = contexts(before, levels, exponent, self._dtype)
        if (levels == DEAD).any():
            live = before.spread_over(levels != DEAD)
            change, context = change[live], context[live]
        self._levels.add(levels.astype(np.int16))
        self._changes.add(change, context)

    def finish(self) -> tuple[bytes, list[bytes]]:
        """(head of the group, one string a segment)."""
        table, level_pages = self._levels.finish()
        changes_table, pages = self._changes.finish()
        return table + changes_table, [a + b for a, b in zip(level_pages, pages, strict=True)]


class FloatReader:
    """Reads the segments of one group."""

    def __init__(self, dtype: Dtype, head: bytes) -> None:
        self._dtype = dtype
        self._shape = SHAPES[dtype.code]
        self._levels = StreamReader(np.int16)
        self._changes = StreamReader(self._shape.signed)
        if self._changes.open(head, self._levels.open(head, 0)) != len(head):
            raise UntrustedInput("a group's head has bytes that belong to nothing")

    def read(self, before: Segment, content: bytes) -> Array:
        """The new bits."""
        shape = self._shape
        levels, place = self._levels.read_plain(content, 0, len(before.rows))
        levels = levels.astype(np.int8)
        dead = levels == DEAD
        live = before.spread_over(~dead) if dead.any() else None
        change, place = self._changes.read(content, place, self._contexts(before, levels, live))
        if place != len(content):
            raise UntrustedInput("a segment has bytes that belong to nothing")
        if live is not None:
            part, change = change, np.zeros(len(before.bits), shape.signed)
            change[live] = part
        fold(change, before, shape)
        with np.errstate(all="ignore"):
            change += ordered(before.bits, shape)
        return unordered(change, shape)

    def _contexts(self, before: Segment, levels: Array, live: Array | None) -> U8:
        context = contexts(before, levels, exponents(before, self._shape), self._dtype)
        return context if live is None else context[live]
