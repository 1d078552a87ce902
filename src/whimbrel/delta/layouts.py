"""The layout of a quantised block: where its fields lie in its bytes.

A block is cut into `halves` (float16: the scale, and the minimum where there is one), `subs` (small integers: scales
and then minima of sub-blocks) and `codes`, in the order of the numbers they stand for; `join` puts them back, for any
bytes. The value of a number is `scale * code + offset`, with one scale and offset a sub-block.

Sources: `block_q*` in ggml/src/ggml-common.h and `dequantize_row_*` in ggml/src/ggml-quants.c of llama.cpp.
Called by `qblocks`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from whimbrel.delta.streams import U8, Array


@dataclass(slots=True)
class Fields:
    """`halves` uint16 (blocks, 1 or 2); `subs` int8 (blocks, any); `codes` int8 (blocks, elements)."""

    halves: Array
    subs: Array
    codes: Array


@dataclass(frozen=True, slots=True)
class Layout:
    """A quantiser gives codes in `[low, high]` (Q8_0 has room for -128, which travels too), `sub_elements` a scale."""

    low: int
    high: int
    sub_elements: int
    halves: int
    subs: int
    split: Callable[[U8], Fields]
    join: Callable[[Fields], U8]
    scales: Callable[[Fields], tuple[Array, Array | None]]
    """float32 (blocks, sub-blocks): scale and offset; no offset where it is always zero."""


def _halves(blocks: U8, *places: int) -> Array:
    return np.ascontiguousarray(blocks.view(np.uint16)[:, [p // 2 for p in places]])


def _no_subs(blocks: U8) -> Array:
    return np.zeros((len(blocks), 0), np.int8)


def _float(halves: Array) -> Array:
    with np.errstate(invalid="ignore"):  # signalling not-a-numbers
        return np.ascontiguousarray(halves).view(np.float16).astype(np.float32)


def _nibbles(packed: U8) -> U8:
    """32 codes of 4 bits: the low halves of 16 bytes, then the high ones."""
    out = np.empty((len(packed), 32), np.uint8)
    np.bitwise_and(packed, 15, out=out[:, :16])
    np.right_shift(packed, 4, out=out[:, 16:])
    return out


def _unnibbles(codes: Array) -> U8:
    return np.asarray(codes[:, :16] | (codes[:, 16:] << 4), np.uint8)


def _bytes(array: Array) -> U8:
    return np.ascontiguousarray(array).view(np.uint8)


def _scale_only(fields: Fields) -> tuple[Array, Array | None]:
    return _float(fields.halves), None


def _scale_and_minimum(fields: Fields) -> tuple[Array, Array | None]:
    both = _float(fields.halves)
    return both[:, :1], both[:, 1:]


def _split_q8_0(blocks: U8) -> Fields:
    return Fields(_halves(blocks, 0), _no_subs(blocks), np.ascontiguousarray(blocks[:, 2:]).view(np.int8))


def _join_q8_0(fields: Fields) -> U8:
    out = np.empty((len(fields.codes), 34), np.uint8)
    out[:, :2] = _bytes(fields.halves)
    out[:, 2:] = fields.codes.view(np.uint8)
    return out


def _simple4(halves: int, shift: int) -> tuple[Callable[[U8], Fields], Callable[[Fields], U8]]:
    head = 2 * halves

    def split(blocks: U8) -> Fields:
        codes = _nibbles(blocks[:, head:]).view(np.int8)
        codes -= np.int8(shift)
        return Fields(_halves(blocks, *range(0, head, 2)), _no_subs(blocks), codes)

    def join(fields: Fields) -> U8:
        codes = (fields.codes + np.int8(shift)).view(np.uint8)
        return np.concatenate([_bytes(fields.halves), _unnibbles(codes)], axis=1)

    return split, join


def _simple5(halves: int, shift: int) -> tuple[Callable[[U8], Fields], Callable[[Fields], U8]]:
    head = 2 * halves

    def split(blocks: U8) -> Fields:
        high = np.unpackbits(blocks[:, head : head + 4], axis=1, bitorder="little")
        codes = _nibbles(blocks[:, head + 4 :])
        codes |= high << 4
        return Fields(_halves(blocks, *range(0, head, 2)), _no_subs(blocks), codes.view(np.int8) - np.int8(shift))

    def join(fields: Fields) -> U8:
        codes = (fields.codes + np.int8(shift)).view(np.uint8)
        high = np.packbits((codes >> 4) & 1, axis=1, bitorder="little")
        return np.concatenate([_bytes(fields.halves), high, _unnibbles(codes & 15)], axis=1)

    return split, join


def _k4_scales(packed: U8) -> Array:
    """12 bytes hold 8 scales and 8 minima of 6 bits (`get_scale_min_k4`)."""
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    return np.concatenate([a & 63, (c & 15) | ((a >> 6) << 4), b & 63, (c >> 4) | ((b >> 6) << 4)], axis=1).view(
        np.int8
    )


def _unk4_scales(subs: Array) -> U8:
    values = subs.view(np.uint8)
    s0, s1, m0, m1 = (values[:, i : i + 4] for i in (0, 4, 8, 12))
    return np.concatenate([s0 | ((s1 >> 4) << 6), m0 | ((m1 >> 4) << 6), (s1 & 15) | ((m1 & 15) << 4)], axis=1)


def _k_scales(fields: Fields) -> tuple[Array, Array | None]:
    """scale * sub-scale and -minimum * sub-minimum: 11 and 6 bits, exact in float32."""
    both = _float(fields.halves)
    subs = fields.subs.astype(np.float32)
    half = subs.shape[1] // 2
    return both[:, :1] * subs[:, :half], -(both[:, 1:] * subs[:, half:])


def _signed_scales(fields: Fields) -> tuple[Array, Array | None]:
    return _float(fields.halves) * fields.subs.astype(np.float32), None


def _pairs4(packed: U8) -> U8:
    """256 codes of 4 bits, in runs of 64: 32 low halves, then 32 high ones."""
    runs = packed.reshape(len(packed), 4, 1, 32)
    return np.concatenate([runs & 15, runs >> 4], axis=2).reshape(len(packed), 256)


def _unpairs4(codes: Array) -> U8:
    runs = codes.reshape(len(codes), 4, 2, 32)
    return np.asarray(runs[:, :, 0] | (runs[:, :, 1] << 4), np.uint8).reshape(len(codes), 128)


_SHIFTS = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)


def _quarters(packed: U8) -> U8:
    """256 codes of 2 bits, in runs of 128: the four pairs of bits of 32 bytes, one after another."""
    runs = packed.reshape(len(packed), 2, 1, 32)
    return np.asarray((runs >> _SHIFTS) & 3, np.uint8).reshape(len(packed), 256)


def _unquarters(codes: Array) -> U8:
    runs = codes.reshape(len(codes), 2, 4, 32) << _SHIFTS
    return np.asarray(np.bitwise_or.reduce(runs, axis=2), np.uint8).reshape(len(codes), 64)


def _split_q2_k(blocks: U8) -> Fields:
    packed = blocks[:, :16]
    subs = np.concatenate([packed & 15, packed >> 4], axis=1).view(np.int8)
    return Fields(_halves(blocks, 80, 82), subs, _quarters(blocks[:, 16:80]).view(np.int8))


def _join_q2_k(fields: Fields) -> U8:
    subs = fields.subs.view(np.uint8)
    packed = subs[:, :16] | (subs[:, 16:] << 4)
    return np.concatenate([packed, _unquarters(fields.codes.view(np.uint8)), _bytes(fields.halves)], axis=1)


_BITS = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)


def _split_q3_k(blocks: U8) -> Fields:
    high = (blocks[:, None, :32] >> _BITS) & 1
    codes = _quarters(blocks[:, 32:96]) | (high.reshape(len(blocks), 256) << 2)
    a, b, c = blocks[:, 96:100], blocks[:, 100:104], blocks[:, 104:108]
    subs = np.concatenate(
        [
            (a & 15) | ((c & 3) << 4),
            (b & 15) | (((c >> 2) & 3) << 4),
            (a >> 4) | (((c >> 4) & 3) << 4),
            (b >> 4) | ((c >> 6) << 4),
        ],
        axis=1,
    ).view(np.int8) - np.int8(32)
    return Fields(_halves(blocks, 108), subs, codes.view(np.int8) - np.int8(4))


def _join_q3_k(fields: Fields) -> U8:
    codes = (fields.codes + np.int8(4)).view(np.uint8)
    high = np.bitwise_or.reduce((codes >> 2).reshape(len(codes), 8, 32) << _BITS, axis=1)
    subs = (fields.subs + np.int8(32)).view(np.uint8)
    s = [subs[:, i : i + 4] for i in (0, 4, 8, 12)]
    a = (s[0] & 15) | ((s[2] & 15) << 4)
    b = (s[1] & 15) | ((s[3] & 15) << 4)
    c = (s[0] >> 4) | ((s[1] >> 4) << 2) | ((s[2] >> 4) << 4) | ((s[3] >> 4) << 6)
    return np.concatenate([high, _unquarters(codes & 3), a, b, c, _bytes(fields.halves)], axis=1)


def _split_q4_k(blocks: U8) -> Fields:
    return Fields(_halves(blocks, 0, 2), _k4_scales(blocks[:, 4:16]), _pairs4(blocks[:, 16:]).view(np.int8))


def _join_q4_k(fields: Fields) -> U8:
    codes = _unpairs4(fields.codes.view(np.uint8))
    return np.concatenate([_bytes(fields.halves), _unk4_scales(fields.subs), codes], axis=1)


def _split_q5_k(blocks: U8) -> Fields:
    high = ((blocks[:, None, 16:48] >> _BITS) & 1).reshape(len(blocks), 256)
    codes = _pairs4(blocks[:, 48:]) | (high << 4)
    return Fields(_halves(blocks, 0, 2), _k4_scales(blocks[:, 4:16]), codes.view(np.int8))


def _join_q5_k(fields: Fields) -> U8:
    codes = fields.codes.view(np.uint8)
    high = np.bitwise_or.reduce((codes >> 4).reshape(len(codes), 8, 32) << _BITS, axis=1)
    return np.concatenate([_bytes(fields.halves), _unk4_scales(fields.subs), high, _unpairs4(codes & 15)], axis=1)


def _split_q6_k(blocks: U8) -> Fields:
    packed = blocks[:, :128].reshape(len(blocks), 2, 1, 64)
    low = np.concatenate([packed & 15, packed >> 4], axis=2).reshape(len(blocks), 256)
    codes = low | (_quarters(blocks[:, 128:192]) << 4)
    subs = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8)
    return Fields(_halves(blocks, 208), subs, codes.view(np.int8) - np.int8(32))


def _join_q6_k(fields: Fields) -> U8:
    codes = (fields.codes + np.int8(32)).view(np.uint8)
    low = (codes & 15).reshape(len(codes), 2, 2, 64)
    packed = np.asarray(low[:, :, 0] | (low[:, :, 1] << 4), np.uint8).reshape(len(codes), 128)
    return np.concatenate([packed, _unquarters(codes >> 4), _bytes(fields.subs), _bytes(fields.halves)], axis=1)


LAYOUTS = {
    "q8_0": Layout(-127, 127, 32, 1, 0, _split_q8_0, _join_q8_0, _scale_only),
    "q4_0": Layout(-8, 7, 32, 1, 0, *_simple4(1, 8), _scale_only),
    "q4_1": Layout(0, 15, 32, 2, 0, *_simple4(2, 0), _scale_and_minimum),
    "q5_0": Layout(-16, 15, 32, 1, 0, *_simple5(1, 16), _scale_only),
    "q5_1": Layout(0, 31, 32, 2, 0, *_simple5(2, 0), _scale_and_minimum),
    "q2_k": Layout(0, 3, 16, 2, 32, _split_q2_k, _join_q2_k, _k_scales),
    "q3_k": Layout(-4, 3, 16, 1, 16, _split_q3_k, _join_q3_k, _signed_scales),
    "q4_k": Layout(0, 15, 32, 2, 16, _split_q4_k, _join_q4_k, _k_scales),
    "q5_k": Layout(0, 31, 32, 2, 16, _split_q5_k, _join_q5_k, _k_scales),
    "q6_k": Layout(-32, 31, 16, 1, 16, _split_q6_k, _join_q6_k, _signed_scales),
}
"""By the name of the dtype."""
