"""Send a change of low rank (a LoRA merged into the weights) as two thin matrices.

1. `new ~ old + A @ B * 2**exponent` with integers in A (rows x rank) and B (rank x columns). With
   `rank * 2**(bits of A + bits of B) < 2**53` every partial sum is a whole number that float64 holds exactly, so the
   product is the same in any order, on any machine, in any BLAS.
2. The sum is rounded to the dtype (float64 to float32 to bfloat16, by nearest even), and coding goes on as for floats,
   with the prediction in the place of the old value.
3. The writer looks for it with a randomised range finder over blocks of rows (Halko, Martinsson, Tropp 2011, 4.3), so
   its memory does not grow with the tensor, and takes the rank that costs the fewest bits by estimate.

Called by the codec.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from whimbrel import limits
from whimbrel.delta import floats
from whimbrel.delta.dtypes import Dtype
from whimbrel.delta.streams import U8, Array, StreamReader, StreamWriter
from whimbrel.errors import UntrustedInput

_PROBES = 24
_SAMPLE_ROWS, _SAMPLE_RUN, _SAMPLE_COLUMNS = 64, 8, 256
_STEP_ELEMENTS = 32 * limits.KIB  # numbers in float64 at once
_STREAM = 128 * limits.KIB  # part of the format: numbers of a factor coded as one; pco takes six times their room
_SINGLE_THREADED = 250_000  # OpenBLAS and MKL stay in one thread for products of fewer steps
_CAPTURED = 0.9  # of the change's energy; below that the tail costs more than the factors save
_SMALLEST_SIDE = 32
_LARGEST_EXPONENT = 1000
_EXACT_BITS = 52
_FACTOR_BITS = 7.0  # what a factor's number costs, roughly

Rows = Callable[[int, int], tuple[Array, Array]]
"""`rows(first, last)` gives the old and the new values of those rows as float64 (rows, columns)."""


@dataclass(frozen=True, slots=True)
class Factors:
    """left int32 (rows, rank), held column by column; right int32 (rank, columns)."""

    left: Array
    right: Array
    exponent: int

    def predict(self, old: Array, dtype: Dtype, *, first: int, last: int) -> tuple[Array, U8 | None]:
        """Old bits (flat) of rows `first` to `last` to predicted ones, and `floats.edges_of` them for 16-bit floats.

        A few rows at once: float64 takes four times the room of what it stands for.
        """
        columns = self.right.shape[1]
        bits, edges = np.empty_like(old), np.empty(len(old), np.uint8) if old.itemsize == 2 else None
        left, right = self.left[first:last].astype(np.float64), self.right.astype(np.float64)
        step = max(1, _STEP_ELEMENTS // columns)
        for row in range(0, len(left), step):
            part = slice(row * columns, (row + step) * columns)
            with np.errstate(all="ignore"):
                exact = multiply(left[row : row + step], right)
                exact *= 2.0**self.exponent
                exact = exact.reshape(-1)[: len(old[part])]
                exact += to_float64(old[part], dtype)
            bits[part] = to_bits(exact, dtype)
            if edges is not None:
                edges[part] = floats.edges_of(exact, bits[part], dtype)
        return bits, edges


def multiply(left: Array, right: Array) -> Array:
    """`left @ right`, in pieces so small that BLAS starts no threads for them: threads are the caller's to start."""
    rows = max(1, _SINGLE_THREADED // (left.shape[1] * right.shape[1]))
    if rows >= len(left):
        return np.asarray(left @ right)
    out = np.empty((len(left), right.shape[1]))
    for first in range(0, len(left), rows):
        np.matmul(left[first : first + rows], right, out=out[first : first + rows])
    return out


def to_float64(bits: Array, dtype: Dtype) -> Array:
    """The exact values."""
    with np.errstate(invalid="ignore"):  # signalling not-a-numbers
        if dtype.name == "bf16":
            return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        return bits.view(np.float32 if dtype.name == "f32" else np.float16).astype(np.float64)


def to_bits(values: Array, dtype: Dtype) -> Array:
    """Rounded to the dtype; numpy's conversions round to nearest even."""
    with np.errstate(all="ignore"):
        if dtype.name == "f16":
            return values.astype(np.float16).view(np.uint16)
        bits = values.astype(np.float32).view(np.uint32)
    if dtype.name == "f32":
        return bits
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def find(rows: Rows, *, row_count: int, columns: int, resolution: float) -> Factors | None:
    """The factors that pay, or none. `resolution` is the size of the dtype's rounding next to a value, relative."""
    with np.errstate(all="ignore"):  # values that are not finite are handled below
        return _find(rows, row_count=row_count, columns=columns, resolution=resolution)


def _find(rows: Rows, *, row_count: int, columns: int, resolution: float) -> Factors | None:
    if min(row_count, columns) < _SMALLEST_SIDE:
        return None
    probes = min(_PROBES, row_count, columns)
    step = max(1, _STEP_ELEMENTS // columns)
    if not _is_promising(rows, row_count):
        return None
    blocks = [(first, min(row_count, first + step)) for first in range(0, row_count, step)]
    seen = _range(rows, blocks, columns, probes)
    if seen is None:
        return None
    basis, energy, weight = seen
    del seen
    small = _projected(rows, blocks, columns, basis)
    del basis  # 24 numbers a row, as much as the left factor may need
    captured = _energy(small)
    if captured < _CAPTURED * energy:
        return None
    _, strengths, right = np.linalg.svd(small, full_matrices=False)
    count = row_count * columns
    floor = max(weight * resolution * resolution / 24, np.finfo(np.float64).tiny)  # the part that rounding alone leaves
    rank = _rank(strengths, energy, floor, row_count, columns)
    if rank == 0:
        return None
    # The sketch is noisy where the dtype is coarse; the right factor is not. One more pass fits the left one to it.
    right = np.ascontiguousarray(right[:rank])
    fitted = np.empty((row_count, rank))
    for first, last in blocks:
        before, after = rows(first, last)
        fitted[first:last] = multiply(after - before, right.T)
    noise = np.sqrt((max(energy - _energy(fitted), 0.0) + floor) / count)
    root = np.sqrt(strengths[:rank])
    fitted /= root
    return _quantise(fitted, right * root[:, None], float(noise))


def _is_promising(rows: Rows, row_count: int) -> bool:
    """Whether a few rows, spread over the tensor, lie near a space of few dimensions. Saves passes over it."""
    if row_count <= _SAMPLE_ROWS:
        return True
    places = np.linspace(0, row_count - _SAMPLE_RUN, _SAMPLE_ROWS // _SAMPLE_RUN).astype(int).tolist()
    picked = [rows(first, first + _SAMPLE_RUN) for first in places]
    change = np.concatenate([(after - before)[:, :_SAMPLE_COLUMNS] for before, after in picked])
    energy = _energy(change)
    if not np.isfinite(energy) or energy == 0:
        return energy == 0
    strengths = np.linalg.eigvalsh(change @ change.T)
    return float(strengths[-_PROBES:].sum()) >= _CAPTURED * energy


def _range(rows: Rows, blocks: list[tuple[int, int]], columns: int, probes: int) -> tuple[Array, float, float] | None:
    """(orthonormal basis of the change's range, energy of the change, energy of the values)."""
    directions = np.random.default_rng(0).standard_normal((columns, probes))
    sketch = np.empty((blocks[-1][1], probes))
    energy = weight = 0.0
    for first, last in blocks:
        before, after = rows(first, last)
        change = after - before
        sketch[first:last] = multiply(change, directions)
        energy += _energy(change)
        weight += _energy(after)
    if not np.isfinite(energy) or not np.isfinite(weight) or energy == 0:
        return None
    return _orthonormal(sketch), energy, weight


def _projected(rows: Rows, blocks: list[tuple[int, int]], columns: int, basis: Array) -> Array:
    """`basis.T @ change`."""
    out = np.zeros((basis.shape[1], columns))
    for first, last in blocks:
        before, after = rows(first, last)
        change = after - before
        run = max(1, _SINGLE_THREADED // (basis.shape[1] * columns))
        for start in range(0, last - first, run):
            part = basis[first + start : min(last, first + start + run)]
            out += part.T @ change[start : start + len(part)]
    return out


def _energy(numbers: Array) -> float:
    """The sum of the squares, without an array of them."""
    flat = numbers.reshape(-1)
    return float(flat @ flat)


def _orthonormal(sketch: Array) -> Array:
    """A basis of the sketch's columns, in its place, by its Gram matrix: half the digits, and enough."""
    gram = np.zeros((sketch.shape[1], sketch.shape[1]))
    run = max(1, _SINGLE_THREADED // (sketch.shape[1] ** 2))
    for first in range(0, len(sketch), run):
        gram += sketch[first : first + run].T @ sketch[first : first + run]
    sizes, vectors = np.linalg.eigh(gram)
    sizes = np.maximum(sizes, 0)
    useful = sizes > 1e-13 * sizes[-1]
    scale = np.where(useful, 1 / np.sqrt(np.where(useful, sizes, 1)), 0)
    turned = vectors * scale
    for first in range(0, len(sketch), run):
        sketch[first : first + run] = sketch[first : first + run] @ turned
    return sketch


def _rank(strengths: Array, energy: float, floor: float, rows: int, columns: int) -> int:
    """The rank with the fewest bits by estimate; 0 where none saves a tenth."""
    ranks = np.arange(len(strengths) + 1)
    tails = np.maximum(energy - np.concatenate(([0.0], np.cumsum(strengths**2))), 0) + floor
    bits = rows * columns / 2 * np.log2(tails / tails[0]) + _FACTOR_BITS * ranks * (rows + columns)
    most = min(rows, columns) // 4
    fits = (ranks <= min(most, limits.DELTA_RANK)) & (ranks * (rows + columns) <= limits.DELTA_FACTOR_ELEMENTS)
    best = int(np.argmin(np.where(fits, bits, np.inf)))
    return best if bits[best] < -0.1 * rows * columns else 0


def _quantise(left: Array, right: Array, noise: float) -> Factors | None:
    """Keep bits down to a small part of the noise that remains anyway (8 to 64 tried: 32 is the cheapest in all).

    Overwrites `left` and `right`.
    """
    rank = left.shape[1]
    error = noise / 32
    left_step = error * np.sqrt(12 / 2) / max(np.sqrt(_energy(right) / right.shape[1]), 1e-300)
    right_step = error * np.sqrt(12 / 2) / max(np.sqrt(_energy(left) / len(left)), 1e-300)
    exponents = [int(np.floor(np.log2(step))) for step in (left_step, right_step)]
    largest = [max(float(x.max()), -float(x.min())) for x in (left, right)]
    while True:
        sizes = [max(1.0, round(most / 2.0**exponent)) for most, exponent in zip(largest, exponents, strict=True)]
        if rank * sizes[0] * sizes[1] < 2.0**_EXACT_BITS and max(sizes) < 2**30:
            break
        exponents[int(np.argmax(sizes))] += 1
    for factor, exponent in zip((left, right), exponents, strict=True):
        np.divide(factor, 2.0**exponent, out=factor)
        np.rint(factor, out=factor)
    if not left.any() or abs(sum(exponents)) > _LARGEST_EXPONENT:
        return None
    return Factors(np.array(left.T, np.int32, order="C").T, right.astype(np.int32), sum(exponents))


def write(factors: Factors) -> bytes:
    """Rank (2 bytes), exponent (2 bytes, signed), then both factors column by column, `_STREAM` numbers at a time."""
    head = factors.left.shape[1].to_bytes(2, "little") + factors.exponent.to_bytes(2, "little", signed=True)
    parts = [head]
    for matrix in (factors.left.T, factors.right):
        numbers = np.ascontiguousarray(matrix).reshape(-1)
        for first in range(0, len(numbers), _STREAM):
            stream = StreamWriter()
            stream.add(numbers[first : first + _STREAM])
            table, pages = stream.finish()
            parts += [len(table).to_bytes(4, "little"), table, pages[0]]
    return b"".join(parts)


def read(content: bytes, rows: int, columns: int) -> Factors:
    """Raises `UntrustedInput` for factors that are too large, do not end where they should, or would not be exact."""
    if len(content) < 4:
        raise UntrustedInput("a low-rank factor is cut short")
    rank = int.from_bytes(content[:2], "little")
    exponent = int.from_bytes(content[2:4], "little", signed=True)
    if not 1 <= rank <= limits.DELTA_RANK or rank * (rows + columns) > limits.DELTA_FACTOR_ELEMENTS:
        raise UntrustedInput(f"a low-rank change claims rank {rank} for {rows} x {columns}")
    place = 4
    found = []
    for count in (rows * rank, rank * columns):
        numbers = np.empty(count, np.int32)
        for first in range(0, count, _STREAM):
            size = int.from_bytes(content[place : place + 4], "little")
            table = content[place + 4 : place + 4 + size]
            reader = StreamReader(np.int32)
            if reader.open(table, 0) != len(table):
                raise UntrustedInput("a low-rank factor's table is damaged")
            part = numbers[first : first + _STREAM]
            part[:], place = reader.read_plain(content, place + 4 + size, len(part))
        found.append(numbers)
    largest = [max(1, int(values.max()), -int(values.min())) for values in found]
    if place != len(content) or abs(exponent) > _LARGEST_EXPONENT:
        raise UntrustedInput("a low-rank factor is damaged")
    if rank * largest[0] * largest[1] >= 2**53:
        raise UntrustedInput("a low-rank factor is too large to be multiplied exactly")
    return Factors(found[0].reshape(rank, rows).T, found[1].reshape(rank, columns), exponent)
