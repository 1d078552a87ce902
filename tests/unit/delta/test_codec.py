"""What the codec chooses, what it costs, and that what comes out is what went in."""

import tracemalloc

import numpy as np
import pytest

from delta_pairs.files import gguf as quantised
from support.delta import (
    FLOATS,
    QUANTISED,
    apply,
    blocks,
    encode,
    fine_tuned,
    float_bits,
    gguf,
    gguf_pair,
    model,
    modes,
    nudge_blocks,
    parse,
    round_trip,
    safetensors,
)
from whimbrel import limits
from whimbrel.delta import codec, lowrank, qblocks
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.delta.patch import Mode
from whimbrel.delta.summary import summarise


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def big(rng, dtype="f16", rows=2600):
    """Too large for the byte-wise patch."""
    before, after = fine_tuned(rng, (rows, 512), dtype)
    return safetensors({"w": (dtype, before)}), safetensors({"w": (dtype, after)})


@pytest.mark.parametrize("dtype", FLOATS)
def test_trained_floats_use_the_old_values(rng, dtype):
    before, after = model(rng, dtype, 700, 512)
    patch = round_trip(safetensors(before), safetensors(after))
    assert modes(patch) == dict.fromkeys(before, "FLOAT")
    assert len(patch) < {"f32": 0.65, "f16": 0.45, "bf16": 0.3}[dtype] * len(safetensors(after))


@pytest.mark.parametrize("dtype", QUANTISED)
def test_changed_blocks_use_the_old_codes(rng, dtype):
    before = blocks(rng, dtype, 3000)
    files = gguf_pair(rng, dtype, before, nudge_blocks(rng, before, dtype, 0.02))
    patch = round_trip(*files)
    assert modes(patch)["w"] == "QBLOCK"
    assert len(patch) < 0.3 * before.nbytes


@pytest.mark.parametrize(("factor", "gain"), [(1.0, (0.995, 1.2)), (1.07, (0.5, 0.9))])
def test_codes_have_edges_only_where_scales_moved_far(monkeypatch, rng, factor, gain):
    """`gain`: between what a patch with edges on every code may be of one with none. The codec takes the better one."""
    weight = rng.normal(0, 0.04, (1024, 1024)).astype(np.float32)
    moved = (weight * factor + rng.normal(0, 1e-4, weight.shape)).astype(np.float32)
    files = [quantised({"w": one}, "Q4_0") for one in (weight, moved)]
    chosen = len(round_trip(*files))
    sizes = []
    for edges in (False, True):
        monkeypatch.setattr(qblocks, "_edges_pay", lambda *_, edges=edges: edges)
        sizes.append(len(round_trip(*files)))
    assert gain[0] < sizes[1] / sizes[0] < gain[1]
    assert chosen == (sizes[0] if factor == 1.0 else sizes[1])


@pytest.mark.parametrize("dtype", QUANTISED)
def test_blocks_of_any_bytes_travel(rng, dtype):
    small = [rng.integers(0, 256, (64, BY_NAME[dtype].block_bytes), dtype=np.uint8) for _ in range(2)]
    assert modes(round_trip(*gguf_pair(rng, dtype, *small)))["w"] == "QBLOCK"


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_eight_bit_codes_use_the_old_ones(rng, dtype):
    before = rng.integers(0, 256, (1500, 2048), dtype=np.uint8)
    after = before + (rng.random(before.shape) < 0.05).astype(np.uint8)
    patch = round_trip(safetensors({"w": (dtype, before)}), safetensors({"w": (dtype, after)}))
    assert modes(patch) == {"w": "INT8"}
    assert len(patch) < 0.05 * after.nbytes


def test_merged_adapter_travels_as_two_thin_matrices(rng):
    before = rng.normal(0, 0.04, (1024, 1536)).astype(np.float32)
    after = before + rng.normal(0, 0.02, (1024, 8)) @ rng.normal(0, 0.02, (8, 1536))
    for dtype, bound in {"f32": 0.06, "f16": 0.06, "bf16": 0.08}.items():
        old = float_bits(before, dtype)
        kept = lowrank.to_float64(old, BY_NAME[dtype])
        files = [
            safetensors({"w": (dtype, old)}),
            safetensors({"w": (dtype, float_bits(after - before + kept, dtype))}),
        ]
        patch = round_trip(*files)
        assert modes(patch) == {"w": "LOWRANK"}
        assert len(patch) < bound * len(files[1])


def test_factors_of_several_streams_come_back(rng):
    left, right = (rng.integers(-500, 500, shape).astype(np.int32) for shape in [(50_000, 3), (3, 100)])
    found = lowrank.read(lowrank.write(lowrank.Factors(left, right, -20)), 50_000, 100)
    assert (found.left == left).all()
    assert (found.right == right).all()
    assert found.exponent == -20


def test_search_for_factors_holds_one_sketch_of_24_numbers_a_row(rng):
    rows, columns = 16_000, 256
    left, right = rng.normal(0, 0.02, (rows, 8)), rng.normal(0, 0.02, (8, columns))

    def read(first, last):
        return np.zeros((last - first, columns)), left[first:last] @ right

    tracemalloc.start()
    found = lowrank.find(read, row_count=rows, columns=columns, resolution=2.0**-10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert found.left.shape == (rows, 8)
    assert peak < rows * 24 * 8 + 2 * limits.MIB


def test_unchanged_tensors_are_one_copy(rng):
    before, _ = model(rng, "f16", 1500, 512)
    old = safetensors(before, {"version": "1"})
    new = safetensors(before, {"version": "2, and a longer text"})
    patch = round_trip(old, new)
    assert [one.mode for one in parse(patch).ranges()] == [Mode.GLUE, Mode.COPY]
    assert len(patch) < 500


def test_equal_files_make_a_patch_of_a_few_hundred_bytes(rng):
    old, _ = big(rng)
    assert len(round_trip(old, old)) < 300


def test_grown_vocabulary_codes_only_the_new_rows(rng):
    before, after = fine_tuned(rng, (3000, 512), "f16")
    patch = round_trip(safetensors({"embed": ("f16", before[:2900])}), safetensors({"embed": ("f16", after)}))
    assert [one.mode for one in parse(patch).ranges() if one.name] == [Mode.FLOAT, Mode.ROWS]


def test_shrunk_vocabulary_needs_no_new_rows(rng):
    before, _ = fine_tuned(rng, (3000, 512), "f16")
    patch = round_trip(safetensors({"embed": ("f16", before)}), safetensors({"embed": ("f16", before[:2900])}))
    assert len(patch) < 400


def test_renamed_tensors_are_found_by_their_bytes(rng):
    before, _ = model(rng, "f16", 1500, 512)
    swapped = {"layer.1.w": before["dense"], "layer.2.w": before["embed"], "b": before["bias"]}
    assert len(round_trip(safetensors(before), safetensors(swapped))) < 700


def test_renumbered_tensors_are_found_by_shape_and_order(rng):
    before, after = model(rng, "f16", 1500, 512)
    renamed = {f"onnx::MatMul_{number}": tensor for number, tensor in enumerate(after.values(), 123)}
    patch = round_trip(safetensors(before), safetensors(renamed))
    assert set(modes(patch).values()) == {"FLOAT"}


def test_tensor_that_has_no_ancestor_is_not_forced_on_one(rng):
    before, after = (float_bits(rng.normal(0, 1, (1500, 512)), "f16") for _ in range(2))
    old, new = ({"w": ("f16", bits * np.uint16(1))} for bits in (before, after))
    new["extra"] = ("f16", after[:100])
    patch = round_trip(safetensors(old), safetensors(new))
    assert modes(patch)["extra"] == "RAW"


def test_added_and_removed_tensors_travel(rng):
    before, after = model(rng, "f16", 1500, 512)
    del before["bias"]
    del after["dense"]
    patch = round_trip(safetensors(before), safetensors(after))
    assert modes(patch) == {"embed": "FLOAT", "bias": "RAW"}


def test_rows_that_did_not_change_cost_next_to_nothing(rng):
    before, after = fine_tuned(rng, (4000, 512), "f16")
    some = before.copy()
    some[::100] = after[::100]
    patch = round_trip(safetensors({"w": ("f16", before)}), safetensors({"w": ("f16", some)}))
    assert len(patch) < 0.01 * before.nbytes


def test_small_file_is_patched_byte_by_byte(rng):
    old = rng.integers(0, 1 << 20, 20_000, dtype=np.uint32)
    new = old + (np.arange(20_000) % 3 == 0).astype(np.uint32)  # an address in every third word moved
    patch = round_trip(old.tobytes(), b"inserted" + new.tobytes())
    assert [one.mode for one in parse(patch).ranges()] == [Mode.WHOLE]
    assert len(patch) < 0.1 * new.nbytes


def test_large_unknown_file_sees_its_base_through_a_window(rng):
    old = bytes(rng.integers(0, 256, 5 * limits.MIB, dtype=np.uint8))
    new = old[: limits.MIB] + b"inserted" * 1000 + old[limits.MIB :]
    assert len(round_trip(old, new)) < 0.02 * len(new)


def test_large_unchanged_header_is_copied(rng):
    vocabulary = "".join(map(chr, rng.integers(33, 126, 3 * limits.MIB)))
    old, new = (gguf({"w": ("f32", (3,), bytes(12))}, {"tokens": vocabulary + end}) for end in ("", "!"))
    assert len(round_trip(old, old)) < 300
    assert len(round_trip(old, new)) < 1500


def test_folder_of_shards_is_one_patch(rng):
    before, after = model(rng, "f16", 1500, 512)
    old = {
        "1.safetensors": safetensors({"embed": before["embed"]}),
        "2.safetensors": safetensors({"dense": before["dense"]}),
    }
    new = {
        "1.safetensors": safetensors({"dense": after["dense"]}),
        "2.safetensors": safetensors({"embed": after["embed"]}),
    }
    patch = round_trip(old, new)
    assert set(modes(patch).values()) == {"FLOAT"}
    assert [entry.path for entry in parse(patch).target] == ["1.safetensors", "2.safetensors"]


def test_shares_of_the_parts_add_up_to_the_patch(rng):
    before, after = model(rng, "f16", 1500, 512)
    patch = round_trip(safetensors(before), safetensors(after))
    head = parse(patch).part(0)[0]
    assert sum(line.patch_bytes for line in summarise(parse(patch))) == pytest.approx(len(patch) - head)


def test_segment_can_be_made_alone(rng):
    old, new = big(rng)
    patch = encode(old, new)
    found = parse(patch)
    last = list(found.units())[-1]
    written = {}
    decoder = codec.Decoder(found, lambda offset, size: patch[offset : offset + size], codec.of_bytes(old))
    decoder.run(last, lambda offset, content: written.update({offset: bytes(content)}))
    assert all(new[offset : offset + len(content)] == content for offset, content in written.items())
    assert written


def test_segment_that_is_there_is_not_made_again(rng):
    old, new = big(rng)
    patch = encode(old, new)
    found = parse(patch)
    decoder = codec.Decoder(found, lambda offset, size: patch[offset : offset + size], codec.of_bytes(old))
    written = []
    for unit in found.units():
        decoder.run(unit, lambda offset, _: written.append(offset), present=lambda at, size: new[at : at + size])
    assert written == [0]  # the header, which is cheaper to make than to check


def test_patch_is_the_same_whoever_makes_it_with_how_many_threads(rng):
    old, new = big(rng)

    def backwards(function, items):
        return list(map(function, list(items)))

    parts = []
    head = codec.encode(codec.of_bytes(old), codec.of_bytes(new), parts.append, run=backwards)
    assert head + b"".join(parts) == encode(old, new)


def test_progress_adds_up_to_what_was_announced(rng):
    old, new = big(rng)
    base, target = codec.of_bytes(old), codec.of_bytes(new)
    done = []
    codec.encode(base, target, lambda _: None, advance=done.append)
    assert sum(done) == codec.work_bytes(base, target)


def test_empty_target_is_made_from_anything():
    assert apply(b"something", encode(b"something", b"")) == b""


def test_empty_base_leads_anywhere():
    assert apply(b"", encode(b"", b"something")) == b"something"
