"""How does llama.cpp put weights into K-quants?

Our own reading of `quantize_row_q4_K_ref`, `quantize_row_q5_K_ref` and `quantize_row_q6_K_ref` (`make_qkx2_quants`,
`make_qx_quants`) in ggml/src/ggml-quants.c of llama.cpp, for many blocks at once: the same searches over scales with
the same weights. The gguf package can only read these types, and reads what is made here
(tests/unit/delta/test_kquants.py).

Called by the pairs of the delta benchmark.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
BLOCK = 256


def quantise(weight: npt.NDArray[Any], kind: str) -> bytes:
    """Blocks of `Q4_K`, `Q5_K` or `Q6_K`; rows must be whole blocks."""
    if weight.shape[-1] % BLOCK:
        raise ValueError(f"rows of {weight.shape[-1]} numbers are no whole blocks of {BLOCK}")
    numbers = np.ascontiguousarray(weight, np.float32).reshape(-1, BLOCK)
    with np.errstate(all="ignore"):  # blocks of zeros
        return _MAKERS[kind](numbers).tobytes()


def _nearest(numbers: F32, low: int, high: int) -> F32:
    return np.clip(np.rint(np.nan_to_num(numbers)), low, high)


def _half(numbers: F32) -> F32:
    """Rounded to float16."""
    return numbers.astype(np.float16).astype(np.float32)


def _scale_and_minimum(x: F32, weights: F32, largest: int, tries: list[float]) -> tuple[F32, F32]:
    """(..., 32) to scale and minimum of codes 0 to `largest`, by the least weighted error of `tries`: codes that the
    span is given (`make_qkx2_quants`).
    """
    low, high = np.minimum(x.min(-1), 0), x.max(-1)
    span = high - low
    total, first = weights.sum(-1), (weights * x).sum(-1)

    def error(scale: F32, minimum: F32, codes: F32) -> F32:
        miss = scale[..., None] * codes + minimum[..., None] - x
        return np.asarray((weights * miss * miss).sum(-1), np.float32)

    scale, minimum = span / largest, low
    best = error(scale, minimum, _nearest((x - low[..., None]) * (largest / span)[..., None], 0, largest))
    for steps in tries:
        codes = _nearest((x - low[..., None]) * (steps / span).astype(np.float32)[..., None], 0, largest)
        sum_l, sum_l2 = (weights * codes).sum(-1), (weights * codes * codes).sum(-1)
        sum_xl = (weights * x * codes).sum(-1)
        determinant = total * sum_l2 - sum_l * sum_l
        tried = (total * sum_xl - first * sum_l) / determinant
        floor = (sum_l2 * first - sum_l * sum_xl) / determinant
        tried, floor = np.where(floor > 0, sum_xl / sum_l2, tried), np.minimum(floor, 0)
        found = error(tried, floor, codes)
        better = (determinant > 0) & (found < best)
        scale, minimum = np.where(better, tried, scale), np.where(better, floor, minimum)
        best = np.where(better, found, best)
    return np.where(span > 0, scale, 0).astype(np.float32), (-minimum).astype(np.float32)


def _q4_k(numbers: F32) -> U8:
    head, codes = _with_minima(numbers, 15, [14 + 0.1 * step for step in range(21)])
    return np.concatenate([*head, _nibbles(codes)], axis=1)


def _q5_k(numbers: F32) -> U8:
    head, codes = _with_minima(numbers, 31, [30.5 + 0.1 * step for step in range(16)])
    high = np.bitwise_or.reduce((codes >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    return np.concatenate([*head, high, _nibbles(codes & np.uint8(15))], axis=1)


def _nibbles(codes: U8) -> U8:
    pairs = codes.reshape(-1, 4, 2, 32)
    return np.asarray(pairs[:, :, 0] | (pairs[:, :, 1] << 4), np.uint8).reshape(-1, 128)


def _with_minima(numbers: F32, largest: int, tries: list[float]) -> tuple[list[U8], U8]:
    """(the bytes before the codes, codes (..., 8, 32)) of the types whose sub-blocks have a scale and a minimum."""
    x = numbers.reshape(-1, 8, 32)
    weights = np.sqrt((x * x).mean(-1, keepdims=True)) + np.abs(x)
    scale, minimum = _scale_and_minimum(x, weights, largest, tries)
    tops = [part.max(-1, keepdims=True) for part in (scale, minimum)]
    small = [
        _nearest(np.where(top > 0, 63 / top, 0) * part, 0, 63) for part, top in zip((scale, minimum), tops, strict=True)
    ]
    halves = [_half(top / 63) for top in tops]
    d, floor = (half * part for half, part in zip(halves, small, strict=True))
    codes = np.where(d[..., None] != 0, _nearest((x + floor[..., None]) / d[..., None], 0, largest), 0)
    s, m = (part.astype(np.uint8) for part in small)
    head = [
        *(half.astype(np.float16).view(np.uint8) for half in halves),
        (s[:, :4] | (s[:, 4:] >> 4) << 6),
        (m[:, :4] | (m[:, 4:] >> 4) << 6),
        (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4),
    ]
    return [np.asarray(part, np.uint8) for part in head], codes.astype(np.uint8)


def _signed_scale(x: F32) -> F32:
    """(..., 16) to the scale of codes -32 to 31, by the largest projection of 19 tries (`make_qx_quants`)."""
    largest = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0]
    weights = x * x
    scale = best = np.zeros_like(largest)
    for step in (0, *(one for one in range(-9, 10) if one)):
        codes = _nearest((-(32 + 0.1 * step) / largest).astype(np.float32)[..., None] * x, -32, 31)
        along, size = (weights * x * codes).sum(-1), (weights * codes * codes).sum(-1)
        better = (size > 0) & ((along * along > best * size) if step else True)
        scale = np.where(better, along / size, scale)
        best = np.where(better, scale * along, best)
    return np.where(np.abs(largest) < 1e-15, 0, scale).astype(np.float32)


def _q6_k(numbers: F32) -> U8:
    x = numbers.reshape(-1, 16, 16)
    scale = _signed_scale(x)
    top = np.take_along_axis(scale, np.abs(scale).argmax(-1)[:, None], -1)
    inverse = np.where(np.abs(top) < 1e-15, 0, -128 / top).astype(np.float32)
    half = _half(np.where(inverse != 0, 1 / inverse, 0))
    small = np.minimum(127, np.rint(inverse * scale))
    d = (half * small)[..., None]
    codes = (np.where(d != 0, _nearest(x / d, -32, 31), 0) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = codes & 15, codes >> 4
    packed = [
        (low[:, :, :2] | (low[:, :, 2:] << 4)).reshape(-1, 128),
        (high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)).reshape(-1, 64),
        small.astype(np.int8).view(np.uint8),
        half.astype(np.float16).view(np.uint8),
    ]
    return np.concatenate(packed, axis=1)


_MAKERS = {"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}
