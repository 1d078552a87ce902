"""Laws of the codec: whatever the versions are, the patch leads from the one to the other."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.delta import BITS, QUANTISED, float_bits, gguf, round_trip, safetensors
from whimbrel import limits
from whimbrel.delta import codec, floats, lowrank, opaque, patch, qblocks, streams
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.errors import UntrustedInput

SHAPES = st.one_of(
    st.sampled_from([(0,), (1,), (1, 1), (1, 700), (700, 1), (3, 5, 7), (64, 64), (2, 0, 3), (33, 65)]),
    st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple),
)
KINDS = st.sampled_from(["f32", "f16", "bf16", "i8", "u8", "i64", "bool"])
_BITS = {**BITS, "i8": np.uint8, "u8": np.uint8, "i64": np.uint64, "bool": np.uint8}
SEEDS = st.integers(0, 2**32 - 1)
QUIET = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)


def some_bits(rng, dtype, shape):
    """Any bits, plausible weights, or the awkward ones: NaNs, infinities, both zeros, denormals."""
    kind = rng.integers(0, 4)
    unsigned = _BITS[dtype]
    if kind == 0 or dtype not in BITS:
        return rng.integers(0, np.iinfo(unsigned).max, shape, dtype=unsigned, endpoint=True)
    if kind == 1:
        return float_bits(rng.normal(0, 0.05, shape), dtype)
    if kind == 2:
        return np.zeros(shape, unsigned)
    top = np.iinfo(unsigned).max
    exponent = {"f32": 0x7F800000, "f16": 0x7C00, "bf16": 0x7F80}[dtype]
    awkward = [0, 1, top // 2 + 1, top // 2 + 2, exponent, exponent | top // 2 + 1, exponent + 1, top, exponent - 1]
    return np.array(awkward, unsigned)[rng.integers(0, len(awkward), shape)]


def next_version(rng, bits):
    """Nothing, a little, or everything changed."""
    kind = rng.integers(0, 4)
    if kind == 0 or bits.size == 0:
        return bits
    if kind == 1:
        return rng.permutation(bits.reshape(-1)).reshape(bits.shape)
    out = bits.copy()
    hit = rng.random(bits.shape) < (0.05 if kind == 2 else 1)
    out[hit] += rng.integers(0, 5, int(hit.sum())).astype(bits.dtype)
    return out


@QUIET
@given(seed=SEEDS, shapes=st.lists(st.tuples(KINDS, SHAPES), max_size=5))
def test_any_version_follows_from_any_other(seed, shapes):
    rng = np.random.default_rng(seed)
    old = {f"t{i}": (kind, some_bits(rng, kind, shape)) for i, (kind, shape) in enumerate(shapes)}
    new = {name: (kind, next_version(rng, bits)) for name, (kind, bits) in old.items()}
    if rng.integers(0, 2) and new:  # renamed, grown, removed, added
        _, (kind, bits) = new.popitem()
        new["renamed"] = (kind, np.concatenate([bits, bits]) if bits.ndim else bits)
    round_trip(safetensors(old), safetensors(new))


def never_whole(monkeypatch):
    """Small files too go the way of large ones."""
    monkeypatch.setattr(limits, "DELTA_WHOLE_BYTES", -1)


@pytest.mark.parametrize("segment", [64, 1000])
def test_segments_of_any_size_give_the_same_target(monkeypatch, segment):
    never_whole(monkeypatch)
    monkeypatch.setattr(limits, "DELTA_SEGMENT_ELEMENTS", segment)
    monkeypatch.setattr(limits, "DELTA_ROW_ELEMENTS", 64)
    monkeypatch.setattr("whimbrel.delta.align._CUT_ROW_ELEMENTS", 64)

    @QUIET
    @given(seed=SEEDS, shapes=st.lists(st.tuples(KINDS, SHAPES), min_size=1, max_size=4))
    def law(seed, shapes):
        rng = np.random.default_rng(seed)
        old = {f"t{i}": (kind, some_bits(rng, kind, shape)) for i, (kind, shape) in enumerate(shapes)}
        new = {name: (kind, next_version(rng, bits)) for name, (kind, bits) in old.items()}
        round_trip(safetensors(old), safetensors(new))

    law()


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("dtype", QUANTISED)
def test_any_blocks_follow_from_any_others(monkeypatch, dtype, edges):
    never_whole(monkeypatch)
    monkeypatch.setattr(qblocks, "_edges_pay", lambda *_: edges)
    size = BY_NAME[dtype].block_bytes

    @settings(QUIET, max_examples=15)
    @given(seed=SEEDS, rows=st.integers(1, 9), columns=st.integers(1, 3), calm=st.booleans())
    def law(seed, rows, columns, calm):
        rng = np.random.default_rng(seed)
        shape = (rows, columns * BY_NAME[dtype].block_elements)
        old = rng.integers(0, 256, rows * columns * size, dtype=np.uint8)
        new = next_version(rng, old) if calm else rng.integers(0, 256, len(old), dtype=np.uint8)
        round_trip(gguf({"w": (dtype, shape, old.tobytes())}), gguf({"w": (dtype, shape, new.tobytes())}))

    law()


@QUIET
@given(old=st.binary(max_size=3000), new=st.binary(max_size=3000))
def test_any_bytes_follow_from_any_others(old, new):
    round_trip(old, new)


@QUIET
@given(seed=SEEDS, dtype=st.sampled_from(list(BITS)))
def test_order_of_bits_is_the_order_of_numbers(seed, dtype):
    shape = floats.SHAPES[BY_NAME[dtype].code]
    bits = np.random.default_rng(seed).integers(0, np.iinfo(shape.unsigned).max, 500, dtype=shape.unsigned)
    numbers = floats.ordered(bits, shape)
    assert (floats.unordered(numbers, shape) == bits).all()
    values = floats.to_float32(bits, BY_NAME[dtype])
    finite = np.isfinite(values)
    order = np.argsort(numbers[finite], kind="stable")
    assert (np.diff(values[finite][order]) >= 0).all()


@pytest.mark.parametrize("run", [100, 64 * limits.KIB])
def test_stream_gives_back_its_numbers(monkeypatch, run):
    monkeypatch.setattr(streams, "_RUN", run)

    @QUIET
    @given(seed=SEEDS, counts=st.lists(st.integers(0, 3000), min_size=1, max_size=4))
    def law(seed, counts):
        rng = np.random.default_rng(seed)
        writer = streams.StreamWriter(minimum=int(rng.integers(1, 2000)))
        segments = []
        for count in counts:
            contexts = rng.integers(0, rng.integers(1, 257), count).astype(np.uint8)
            width = int(rng.integers(1, 4))
            values = rng.integers(-300, 300, (count, width)).astype(np.int16) * (rng.random((count, 1)) < rng.random())
            values = values.astype(np.int16)
            segments.append((values if width > 1 else values.reshape(-1), contexts))
            writer.add(*segments[-1])
        table, pages = writer.finish()
        reader = streams.StreamReader(np.int16)
        assert reader.open(table, 0) == len(table)
        for (values, contexts), page in zip(segments, pages, strict=True):
            found, place = reader.read(page, 0, contexts, width=values[:1].size or 1)
            assert (found == values.reshape(-1)).all()
            assert place == len(page)

    law()


@QUIET
@given(content=st.binary(max_size=5000), window=st.binary(max_size=500), width=st.integers(1, 4))
def test_opaque_bytes_come_back(content, window, width):
    form = opaque.write(content, window=window, width=width)
    assert opaque.read(form, len(content), window=window) == content
    assert len(form) <= len(content) + 1


@QUIET
@given(columns=st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_columns_come_back(columns):
    assert patch.unpack_columns(patch.pack_columns(columns), len(columns)).tolist() == columns


@settings(QUIET, max_examples=10)
@given(seed=SEEDS, rank=st.integers(1, 4))
def test_low_rank_prediction_does_not_depend_on_the_order_of_the_sum(seed, rank):
    rng = np.random.default_rng(seed)
    left = rng.integers(-(2**20), 2**20, (60, rank), dtype=np.int32)
    right = rng.integers(-(2**20), 2**20, (rank, 50), dtype=np.int32)
    factors = lowrank.read(lowrank.write(lowrank.Factors(left, right, -30)), 60, 50)
    values = rng.normal(0, 1, 20 * 50).astype(np.float32)
    made, edges = factors.predict(values.view(np.uint32), BY_NAME["f32"], first=10, last=30)
    exact = [
        [sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in right.T] for row in left[10:30]
    ]
    due = values.astype(np.float64) + np.array(exact, np.float64).reshape(-1) * 2.0**-30
    assert edges is None
    assert (made.view(np.float32) == due.astype(np.float32)).all()


@settings(QUIET, max_examples=10)
@given(seed=SEEDS, dtype=st.sampled_from(["f16", "bf16"]))
def test_low_rank_prediction_does_not_depend_on_how_many_rows_are_made_at_once(seed, dtype):
    rng = np.random.default_rng(seed)
    factors = lowrank.Factors(rng.integers(-99, 99, (40, 3)), rng.integers(-99, 99, (3, 2000)), -20)
    old = lowrank.to_bits(rng.normal(0, 0.1, 40 * 2000), BY_NAME[dtype])
    made, edges = factors.predict(old, BY_NAME[dtype], first=0, last=40)
    for row in range(40):
        part = slice(row * 2000, (row + 1) * 2000)
        bits, edge = factors.predict(old[part], BY_NAME[dtype], first=row, last=row + 1)
        assert (bits == made[part]).all()
        assert (edge == edges[part]).all()


@QUIET
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_patch_or_untrusted(content):
    for prefix in (b"", patch.MAGIC + b"\1"):
        whole = prefix + content
        with pytest.raises(UntrustedInput):
            codec.parse(lambda offset, size, whole=whole: whole[offset : offset + size], len(whole))
