"""Patches from somebody who wants to hurt: each ends in `UntrustedInput`, and in nothing else."""

import hashlib
import random
import tracemalloc

import msgspec
import numpy as np
import pytest

from support.delta import (
    apply,
    artifact,
    blocks,
    encode,
    gguf,
    model,
    nudge_blocks,
    parse,
    put_together,
    safetensors,
    take_apart,
)
from whimbrel import limits
from whimbrel.delta import codec, lowrank, opaque, patch, streams
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.delta.patch import Mode, pack_columns, unpack_columns
from whimbrel.delta.summary import summarise
from whimbrel.errors import UntrustedInput


def pairs():
    """name -> (base, target): every mode of the format."""
    rng = np.random.default_rng(11)
    before, after = model(rng, "f16", 40, 96)
    made = {"float": (safetensors(before), safetensors(after))}
    old = blocks(rng, "q4_k", 24)
    files = [gguf({"w": ("q4_k", (6, 1024), one.tobytes())}) for one in (old, nudge_blocks(rng, old, "q4_k", 0.1))]
    made["qblock"] = (files[0], files[1])
    codes = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    made["int8"] = (safetensors({"w": ("i8", codes)}), safetensors({"w": ("i8", codes + (codes % 7 == 0))}))
    weights = rng.normal(0, 0.04, (64, 160)).astype(np.float32)
    merged = weights + (rng.normal(0, 0.1, (64, 1)) @ rng.normal(0, 0.1, (1, 160))).astype(np.float32)
    made["lowrank"] = tuple(
        safetensors({"w": ("f32", w.astype(np.float32).view(np.uint32))}) for w in (weights, merged)
    )
    made["raw"] = (safetensors({"a": ("f16", before["dense"][1])}), safetensors({"b": ("f16", after["embed"][1])}))
    return made


PAIRS = pairs()


@pytest.fixture(scope="module")
def patches():
    """The same, with their patches, none of them byte by byte."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(limits, "DELTA_WHOLE_BYTES", -1)
        made = {name: (base, encode(base, target)) for name, (base, target) in PAIRS.items()}
    base, target = b"".join(bytes([i, 0, i]) for i in range(200)), b"".join(bytes([i, 1, i]) for i in range(200))
    entries = [[("", len(one), hashlib.sha256(one).digest())] for one in (base, target)]
    part = opaque.write_whole(base, target)
    whole = patch.Range(0, Mode.WHOLE, BY_NAME["bytes"], 0, len(target), 0, len(base), 0, "")
    check = pack_columns([[codec.xxhash.xxh3_64_intdigest(target)]])
    head = patch.Head(*entries, patch.range_columns([whole]), "\0", b"", b"", b"", check)
    made["whole"] = (base, put_together(head, [part]))
    return made


def test_every_mode_is_under_attack(patches):
    found = {one.mode for _, made in patches.values() for one in parse(made).ranges()}
    assert found >= {Mode.GLUE, Mode.FLOAT, Mode.QBLOCK, Mode.INT8, Mode.LOWRANK, Mode.RAW, Mode.WHOLE}


def attack(base, made, *, check=True):
    """True if it was refused, False if it did no harm. Anything but `UntrustedInput` escapes."""
    try:
        summarise(parse(made))
        apply(base, made, check=check)
    except UntrustedInput:
        return True
    return False


def test_flipped_bit_anywhere_is_noticed(patches):
    for base, made in patches.values():
        for place in range(0, len(made), max(1, len(made) // 400)):
            damaged = bytearray(made)
            damaged[place] ^= 1 << place % 8
            assert attack(base, bytes(damaged))


def test_truncated_patch_is_noticed_wherever_it_ends(patches):
    for base, made in patches.values():
        for size in [*range(0, len(made), max(1, len(made) // 100)), len(made) - 1]:
            assert attack(base, made[:size])


def test_bytes_after_the_end_are_noticed(patches):
    for base, made in patches.values():
        assert attack(base, made + b"x")


def test_patch_for_another_base_is_refused_before_anything_is_written(patches):
    base, made = patches["float"]
    other = base[:-1] + bytes([base[-1] ^ 1])
    with pytest.raises(UntrustedInput, match="another base"):
        codec.check_base(parse(made), artifact(other))
    with pytest.raises(UntrustedInput, match="another base"):
        codec.check_base(parse(made), artifact(base + b"longer"))


def test_base_that_changes_after_its_check_is_noticed(patches):
    for name in ("float", "qblock", "int8"):
        base, made = patches[name]
        changed = bytearray(base)
        for place in range(len(base) // 2, len(base), 97):
            changed[place] ^= 0x41
        with pytest.raises(UntrustedInput):
            apply(bytes(changed), made, check=False)


def test_base_that_becomes_shorter_is_noticed(patches):
    base, made = patches["float"]
    found = parse(made)
    whole = artifact(base)
    short = codec.Artifact(
        [type(whole.members[0])("", len(base), lambda offset, size: base[: len(base) // 2][offset : offset + size])]
    )
    decoder = codec.Decoder(found, lambda offset, size: made[offset : offset + size], short)
    unit = list(found.units())[-1]
    with pytest.raises(UntrustedInput, match="became shorter"):
        decoder.run(unit, lambda offset, content: None)


NUMBERS = [0, 1, 2, 255, 2**16, 2**31, 2**32, 2**53, 2**60, 2**63, 2**64 - 1]


def forged(made, rng):
    """A head whose numbers lie, with hashes that agree."""
    head, parts = take_apart(made)
    table = unpack_columns(head.ranges, 5).copy()
    for _ in range(rng.randint(1, 3)):
        row, column = rng.randrange(5), rng.randrange(table.shape[1])
        if row == 1 and rng.random() < 0.7:
            table[row, column] = rng.choice(list(Mode)) | rng.choice(list(BY_NAME.values())).code << 8
        elif rng.random() < 0.5:
            table[row, column] = np.uint64((int(table[row, column]) + rng.randint(-70, 70)) % 2**64)
        else:
            table[row, column] = np.uint64(rng.choice(NUMBERS))
    head.ranges = pack_columns(table)
    choice = rng.random()
    if choice < 0.1:
        head.target = [("", rng.choice(NUMBERS[:-1]) % 2**62, bytes(32))]
    elif choice < 0.2:
        head.base = [("", rng.choice(NUMBERS[:-1]) % 2**62, bytes(32))]
    elif choice < 0.3:
        head.dictionary = pack_columns([[rng.choice(NUMBERS)], [rng.choice(NUMBERS)]])
    elif choice < 0.4:
        parts.append(b"more")
    elif choice < 0.5 and parts:
        parts.pop()
    return put_together(head, parts)


def test_heads_that_lie_are_refused_or_harmless(patches):
    rng = random.Random(1)
    refused = 0
    for _ in range(250):
        for base, made in patches.values():
            refused += attack(base, forged(made, rng), check=False)
    assert refused > 1000


def damaged(part, rng):
    out = bytearray(part)
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        place = rng.randrange(min(len(out), 40) if rng.random() < 0.5 else len(out))
        if kind < 0.6:
            out[place] = rng.randrange(256)
        elif kind < 0.7:
            del out[place:]
        elif kind < 0.8:
            out[place:place] = rng.randbytes(rng.randint(1, 8))
        elif kind < 0.9:
            out[place : place + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
        else:
            out = bytearray(rng.randbytes(len(out)))
        if not out:
            return b""
    return bytes(out)


def test_parts_that_lie_are_refused_or_harmless(patches):
    rng = random.Random(2)
    refused = 0
    for _ in range(200):
        for base, made in patches.values():
            head, parts = take_apart(made)
            index = rng.randrange(len(parts))
            parts[index] = damaged(parts[index], rng)
            refused += attack(base, put_together(head, parts))
    assert refused > 1000


def head_with(made, **changes):
    head, parts = take_apart(made)
    for name, value in changes.items():
        setattr(head, name, value)
    return put_together(head, parts)


@pytest.mark.parametrize("row", range(5))
def test_claim_of_2_to_the_60_costs_no_memory(patches, row):
    base, made = patches["float"]
    head, parts = take_apart(made)
    table = unpack_columns(head.ranges, 5).copy()
    table[row, 1] = np.uint64(2**60)
    head.ranges = pack_columns(table)
    tracemalloc.start()
    assert attack(base, put_together(head, parts))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * limits.MIB


def test_frame_that_claims_2_to_the_60_bytes_is_refused_before_it_is_expanded():
    frame = b"\x28\xb5\x2f\xfd\xe0" + (2**60).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(UntrustedInput, match="claims 1152921504606846976 bytes"):
        opaque.expand(frame, 100)


def test_head_that_claims_4_gib_is_refused(patches):
    _, made = patches["float"]
    with pytest.raises(UntrustedInput, match="cut short or damaged"):
        parse(made[:12] + b"\xff\xff\xff\xff" + made[16:])


@pytest.mark.parametrize(("version", "what_to_do"), [(3, "update it"), (1, "make the patch anew")])
def test_patch_of_another_format_says_so(patches, version, what_to_do):
    _, made = patches["float"]
    with pytest.raises(UntrustedInput, match=f"format {version}; this Whimbrel reads 2: {what_to_do}"):
        parse(made[:7] + bytes([version]) + made[8:])


@pytest.mark.parametrize(
    "path", ["../out", "/etc/passwd", "a/../../b", "", "a//b", "C:\\x", "a\\b", "a\0b", ".", "x:y", "a/"]
)
def test_path_that_leaves_the_folder_is_refused(patches, path):
    _, made = patches["float"]
    entry = parse(made).target[0]
    files = [(path, entry.size_bytes, entry.sha256), ("other", 0, bytes(32))]
    with pytest.raises(UntrustedInput, match="no plain relative path"):
        parse(head_with(made, target=files))


def test_file_that_is_named_twice_is_refused(patches):
    _, made = patches["float"]
    entry = parse(made).target[0]
    with pytest.raises(UntrustedInput, match="names a file twice"):
        parse(head_with(made, target=[("a", entry.size_bytes, entry.sha256), ("a", 0, bytes(32))]))


def test_factors_too_large_to_be_exact_are_refused():
    large = np.full((40, 3), 2**27, np.int32)
    content = lowrank.write(lowrank.Factors(large, large.T.copy(), 0))
    with pytest.raises(UntrustedInput, match="too large to be multiplied exactly"):
        lowrank.read(content, 40, 40)


def test_rank_that_needs_too_much_memory_is_refused():
    with pytest.raises(UntrustedInput, match="claims rank 256"):
        lowrank.read((256).to_bytes(2, "little") + bytes(100), 2**20, 2**20)


def test_byte_wise_patch_that_claims_another_size_is_refused_before_it_runs():
    base = bytes(range(200)) * 3
    part = opaque.write_whole(base, base + b"more")
    for size, window in ((len(base) + 5, base), (len(base) + 4, base + b"x")):
        with pytest.raises(UntrustedInput, match="damaged, or for another base"):
            opaque.read_whole(part, size, window=window)


@pytest.mark.parametrize(("log", "is_taken"), [(12, True), (13, False), (14, False)])
def test_tables_of_many_states_cost_no_memory(log, is_taken):
    """255 of them in 3 KB of a patch took 15 MB a stream."""
    fields = [(0, 8), (log, 4), (2, 15), *[((1 << log) // 2 - 1, log), (128, 8), (0, 4)] * 2]
    bits = "".join(str(value >> place & 1) for value, width in fields for place in range(width))
    table = bytes([1, 0]) + int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")
    reader = streams.StreamReader(np.int8)
    if is_taken:
        assert reader.open(table, 0) == len(table)
    else:
        with pytest.raises(UntrustedInput, match="more states"):
            reader.open(table, 0)


def test_head_with_millions_of_files_costs_no_memory():
    entry = msgspec.msgpack.encode(["", 0, b""])
    count = limits.DELTA_HEAD_BYTES // len(entry) - 100
    content = b"\x98\xdd" + count.to_bytes(4, "big") + entry * count
    packed = opaque.shrink(content)
    sizes = len(packed).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    made = patch.MAGIC + bytes([patch.VERSION]) + sizes + hashlib.sha256(packed).digest()[:16] + packed
    tracemalloc.start()
    with pytest.raises(UntrustedInput, match="not what the format says"):
        parse(made)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * limits.DELTA_HEAD_BYTES
