"""Containers at their exact limits, byte by byte, and each refusal in its own words."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from support.delta import gguf, safetensors, tar
from whimbrel import limits
from whimbrel.delta import align, containers
from whimbrel.delta.artifact import of_bytes
from whimbrel.delta.containers.archive import _zip64, zip_entries
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.delta.patch import Mode
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput


def cursor(content, *, steps=1000):
    return Cursor(of_bytes(content).read, len(content), budget=Budget(steps))


def refusal(run):
    with pytest.raises(UntrustedInput) as caught:
        run()
    return str(caught.value)


def parsed(content, path=""):
    return containers.parse(of_bytes(content, path).members[0])


# --- reading ---


def test_numbers_are_little_endian_and_follow_each_other():
    at = cursor(bytes([1, 2, 3, 4, 5, 6, 7, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0, 0, 0, 0]))
    assert (at.u8(), at.u16(), at.u32(), at.i32(), at.u64()) == (1, 0x0302, 0x07060504, -1, 1)
    assert at.place == at.end == 19
    assert refusal(at.u8) == "a container ends at byte 19, inside a field of 1 bytes at 19"


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 150_000])
def test_fields_of_any_size_are_the_bytes_at_their_place(size):
    content = np.random.default_rng(1).bytes(200_000)
    at = cursor(content)
    assert at.take(40_000) == content[:40_000]
    assert at.take(size) == content[40_000 : 40_000 + size]
    assert at.take(9) == content[40_000 + size : 40_009 + size]
    assert at.at(5).take(3) == content[5:8]
    at.skip(2)
    assert at.place == 10


def test_places_lie_within_the_file():
    at = cursor(b"0123")
    at.at(0)
    at.at(4)
    for place in (-1, 5):
        assert refusal(lambda place=place: at.at(place)) == f"a container points at byte {place}, outside its 4"
    assert "inside a field of -1 bytes" in refusal(lambda: at.take(-1))


def test_each_field_costs_a_step_and_steps_are_shared():
    budget = Budget(3)
    one, other = (Cursor(of_bytes(b"0123").read, 4, budget=budget) for _ in range(2))
    one.u8()
    other.u8()
    one.u8()
    assert refusal(other.u8) == f"a container has more than {limits.DELTA_CONTAINER_STEPS} fields"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"\x00", 0),
        (b"\x7f", 127),
        (b"\x80\x01", 128),
        (b"\xff\xff\x03", 65535),
        (b"\xff" * 9 + b"\x01", 2**64 - 1),
        (b"\xff" * 9 + b"\x03", 2**64 - 1),
    ],
)
def test_a_varint_has_up_to_64_bits(content, value):
    assert cursor(content + b"x").varint() == value


def test_a_varint_of_eleven_bytes_is_refused():
    assert refusal(cursor(b"\xff" * 10 + b"\x01").varint) == "a container has a number of more than 64 bits"


def test_a_name_is_as_long_as_the_limit_says():
    most = limits.DELTA_TENSOR_NAME_BYTES
    assert cursor(b"x" * most).name(most) == "x" * most
    told = refusal(lambda: cursor(b"x" * (most + 1)).name(most + 1))
    assert told == f"a tensor's name has {most + 1} bytes; at most {most} are taken"
    assert cursor(b"\xff\xfe").name(2) == "\\xff\\xfe"


# --- safetensors ---


def header_of(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def entry(*, shape=(2,), at=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


@pytest.mark.parametrize(
    ("wrong", "fits"),
    [
        (entry(shape=(1,) * 16 + (2,), at=(0, 8)), False),
        (entry(shape=(1,) * 15 + (2,), at=(0, 8)), True),
        (entry(shape=(-2,)), False),
        (entry(at=(8, 0)), False),
        (entry(at=(-1, 7)), False),
        (entry(shape=(0,), at=(0, 0)), True),
    ],
)
def test_an_entry_of_safetensors_has_a_possible_shape_and_place(wrong, fits):
    content = header_of(w=wrong) + bytes(8)
    if fits:
        parsed(content)
    else:
        assert refusal(lambda: parsed(content)) == "the safetensors entry 'w' has an impossible shape or place"


def test_the_header_of_safetensors_is_bounded(monkeypatch):
    content = header_of(a=entry(), b=entry(at=(8, 16))) + bytes(16)
    size = int.from_bytes(content[:8], "little")
    monkeypatch.setattr(limits, "DELTA_HEADER_BYTES", size)
    monkeypatch.setattr(limits, "DELTA_TENSORS", 2)
    assert [(one.name, one.offset, one.size_bytes) for one in parsed(content)] == [
        ("a", size + 8, 8),
        ("b", size + 16, 8),
    ]
    monkeypatch.setattr(limits, "DELTA_TENSORS", 1)
    assert refusal(lambda: parsed(content)) == "a safetensors file has 2 tensors; 1 are taken"
    monkeypatch.setattr(limits, "DELTA_HEADER_BYTES", size - 1)
    told = refusal(lambda: parsed(content))
    assert told == f"a safetensors header has {size} bytes; at most {size - 1} are taken"


@pytest.mark.parametrize(
    ("dtype", "ours", "width"),
    [
        ("F64", "f64", 8),
        ("I16", "i16", 2),
        ("BOOL", "bool", 1),
        ("BF16", "bf16", 2),
        ("F8_E5M2", "f8_e5m2", 1),
        ("X", "bytes", 1),
    ],
)
def test_dtypes_of_safetensors_are_ours(dtype, ours, width):
    (tensor,) = parsed(header_of(w=entry(shape=(4,), at=(0, 4 * width), dtype=dtype)) + bytes(4 * width))
    assert (tensor.dtype.name, tensor.shape) == (ours, (4,))


def test_a_file_that_is_shorter_than_its_header_is_no_safetensors():
    content = header_of(w=entry()) + bytes(8)
    size = int.from_bytes(content[:8], "little")
    assert parsed(content[: size + 8]) == []  # the tensor lies outside, and is left out
    assert containers.find(of_bytes(content[: size + 7])) == []


# --- gguf ---


def gguf_head(version=3, tensors=0, values=b"", count=0):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + values


def value(key, kind, content):
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + content


@pytest.mark.parametrize("version", [1, 4, 0])
def test_gguf_has_two_versions(version):
    assert refusal(lambda: parsed(gguf_head(version))) == f"GGUF version {version}; 2 and 3 are known"
    assert [parsed(gguf_head(known) + bytes(40)) for known in (2, 3)] == [[], []]


def test_tensors_of_gguf_are_counted(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_TENSORS", 1)
    told = refusal(lambda: parsed(gguf_head(tensors=2)))
    assert told == "a GGUF file claims 2 tensors; at most 1 are taken"
    assert "ends at byte" in refusal(lambda: parsed(gguf_head(tensors=1)))


@pytest.mark.parametrize(
    ("alignment", "fits"), [(0, False), (1, True), (32, True), (limits.MIB, True), (limits.MIB + 1, False)]
)
def test_an_alignment_of_gguf_is_at_most_a_mebibyte(alignment, fits):
    content = gguf_head(count=1, values=value(b"general.alignment", 4, struct.pack("<I", alignment)))
    if fits:
        assert parsed(content) == []
    else:
        assert refusal(lambda: parsed(content)) == f"a GGUF file claims an alignment of {alignment}"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        *(
            (kind, bytes(size))
            for kind, size in {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}.items()
        ),
        (8, struct.pack("<Q", 5) + b"hello"),
        (9, struct.pack("<IQ", 4, 3) + bytes(12)),
        (9, struct.pack("<IQ", 8, 2) + (struct.pack("<Q", 1) + b"x") * 2),
        (9, struct.pack("<IQ", 9, 1) * 3 + struct.pack("<IQ", 0, 2) + bytes(2)),
    ],
)
def test_values_of_gguf_are_stepped_over_by_their_size(kind, content):
    """What follows is found: a wrong step would read the alignment elsewhere."""
    after = value(b"general.alignment", 4, struct.pack("<I", 64))
    made = gguf_head(tensors=1, count=2, values=value(b"k", kind, content) + after)
    made += struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, 4, 0, 0)
    start = -(-len(made) // 64) * 64
    (tensor,) = parsed(made.ljust(start, b"\0") + bytes(16))
    assert (tensor.name, tensor.offset, tensor.size_bytes, tensor.dtype.name) == ("w", start, 16, "f32")


@pytest.mark.parametrize("kind", [13, 99])
def test_values_of_gguf_that_are_not_known_are_refused(kind):
    told = refusal(lambda: parsed(gguf_head(count=1, values=value(b"k", kind, bytes(64)))))
    assert told == f"a GGUF value has type {kind}, or arrays are nested too deep"


def test_arrays_of_gguf_are_nested_four_deep():
    nested = struct.pack("<IQ", 9, 1) * 4 + struct.pack("<IQ", 0, 1) + b"x"
    assert "nested too deep" in refusal(lambda: parsed(gguf_head(count=1, values=value(b"k", 9, nested))))


@pytest.mark.parametrize(("dimensions", "fits"), [(16, True), (17, False)])
def test_dimensions_of_gguf_are_bounded(dimensions, fits):
    made = gguf_head(tensors=1) + struct.pack("<Q", 1) + b"w" + struct.pack("<I", dimensions)
    made += struct.pack(f"<{dimensions}Q", *[1] * dimensions) + struct.pack("<IQ", 0, 0)
    made = made.ljust(-(-len(made) // 32) * 32, b"\0") + bytes(4)
    if fits:
        assert parsed(made)[0].shape == (1,) * 16
    else:
        assert refusal(lambda: parsed(made)) == "a GGUF tensor has 17 dimensions"


def test_shapes_of_gguf_are_slowest_first_and_blocks_are_counted():
    content = gguf({"w": ("q4_0", (2, 64), bytes(18 * 4)), "v": ("f16", (3, 5), bytes(30))})
    assert [(one.name, one.shape, one.size_bytes) for one in parsed(content)] == [("w", (2, 64), 72), ("v", (3, 5), 30)]


# --- archives ---


def test_tensors_in_a_tar_are_named_by_their_file_and_lie_in_it():
    inner = safetensors({"w": ("f32", np.arange(4, dtype=np.float32))})
    content = tar({"odd": b"x" * 700, "a.safetensors": inner})
    (tensor,) = parsed(content)
    assert tensor.name == "a.safetensors:w"
    assert content[tensor.offset : tensor.offset + 16] == np.arange(4, dtype=np.float32).tobytes()


def test_sizes_in_a_tar_are_octal_or_binary_and_honest():
    inner = safetensors({"w": ("f32", np.arange(4, dtype=np.float32))})
    good = tar({"a": inner})
    binary = good[:124] + b"\x80" + len(inner).to_bytes(11, "big") + good[136:]
    assert [one.name for one in parsed(binary)] == ["a:w"]
    for field, words in (
        (b"zzzzzzzzzzz\0", "a tar entry has no proper size"),
        (b"-0000000001\0", "a tar entry has a negative size"),
        (b"77777777777\0", "a tar entry is longer than its archive"),
    ):
        assert refusal(lambda field=field: parsed(good[:124] + field + good[136:])) == words


def zipped(files, *, method=zipfile.ZIP_STORED, comment=b""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("comment", [b"", b"x" * 65535])
def test_stored_files_of_a_zip_are_found_behind_any_comment(comment):
    content = zipped({"one": b"1234", "two": b"56"}, comment=comment)
    entries = zip_entries(cursor(content))
    assert [(one.name, content[one.offset : one.offset + one.size_bytes]) for one in entries] == [
        ("one", b"1234"),
        ("two", b"56"),
    ]


def test_packed_files_of_a_zip_are_left_alone():
    content = zipped({"one": b"1" * 1000}, method=zipfile.ZIP_DEFLATED)
    assert zip_entries(cursor(content)) == []


def test_a_zip_that_lies_about_its_places_is_refused(monkeypatch):
    good = zipped({"one": b"1234"})
    directory, end = good.index(b"PK\x01\x02"), good.index(b"PK\x05\x06")
    assert refusal(lambda: zip_entries(cursor(good[:end]))) == "a zip archive has no end record"
    assert refusal(lambda: zip_entries(cursor(good[:-1]))) == "a zip archive has no end record"
    moved = good[: end + 16] + (directory + 1).to_bytes(4, "little") + good[end + 20 :]
    assert refusal(lambda: zip_entries(cursor(moved))) == "a zip archive's directory is not where it says"
    local = good[: directory + 42] + (1).to_bytes(4, "little") + good[directory + 46 :]
    assert refusal(lambda: zip_entries(cursor(local))) == "a zip entry is not where the directory says"
    monkeypatch.setattr(limits, "DELTA_TENSORS", 0)
    assert refusal(lambda: zip_entries(cursor(good))) == "a zip archive has 1 files; at most 0 are taken"


@pytest.mark.parametrize(
    ("extra", "given", "told"),
    [
        (b"", (1, 2, 3), (1, 2, 3)),
        (struct.pack("<HHQQQ", 1, 24, 20, 10, 30), (2**32 - 1,) * 3, (10, 20, 30)),
        (struct.pack("<HHQ", 1, 8, 30), (1, 2, 2**32 - 1), (1, 2, 30)),
        (struct.pack("<HHQQ", 1, 16, 20, 10), (2**32 - 1, 2**32 - 1, 3), (10, 20, 3)),
        (struct.pack("<HHI", 9, 4, 7) + struct.pack("<HHQ", 1, 8, 20), (1, 2**32 - 1, 3), (1, 20, 3)),
        (struct.pack("<HHI", 1, 4, 7), (1, 2**32 - 1, 3), (1, 2**32 - 1, 3)),
    ],
)
def test_large_sizes_of_a_zip_lie_in_its_extra_field(extra, given, told):
    """APPNOTE 4.5.3: size, packed size and place, each only where the directory has 2**32 - 1 for it."""
    assert _zip64(extra, *given) == told


# --- who follows whom ---


def tensor(name, offset, size=8, *, shape=None, dtype="f32"):
    return Tensor(name, BY_NAME[dtype], shape or (size // BY_NAME[dtype].block_bytes,), offset, size)


def paired(old, new, base=bytes(64), target=bytes(range(64))):
    found = align.pair(old, new, base=of_bytes(base), target=of_bytes(target))
    return [None if one is None else one.offset for one in found]


def test_a_tensor_follows_the_one_of_its_name_and_kind():
    old = [tensor("a", 0), tensor("b", 8)]
    assert paired(old, [tensor("b", 0), tensor("a", 8)]) == [8, 0]
    assert paired(old, [tensor("a", 0, dtype="i8")]) == [None]


def test_a_tensor_that_grew_in_its_first_dimension_follows_its_name():
    old = [tensor("a", 0, 16, shape=(2, 2))]
    assert paired(old, [tensor("a", 0, 24, shape=(3, 2))]) == [0]
    assert paired(old, [tensor("a", 0, 16, shape=(1, 4))]) == [None]


def test_a_renamed_tensor_follows_its_bytes_and_then_its_shape_in_order():
    content = bytes(range(32))
    old = [tensor("a", 0), tensor("b", 8), tensor("c", 16)]
    new = [tensor("x", 0), tensor("y", 8), tensor("z", 16)]
    swapped = content[16:24] + b"!" * 8 + content[:8]
    assert paired(old, new, base=content, target=swapped) == [16, 8, 0]
    assert paired(old, new, base=content, target=b"!" * 8 + b"?" * 8 + b"." * 8) == [0, 8, 16]
    assert paired(old[:1], new, base=content, target=b"!" * 24) == [0, None, None]


def test_two_tensors_of_one_name_follow_in_order():
    old = [tensor("a", 0), tensor("a", 8)]
    assert paired(old, [tensor("a", 0), tensor("a", 8)]) == [0, 8]


# --- what lies between ---


def ranges(base, target, old, new):
    made = align.plan(of_bytes(base), of_bytes(target), old, new)
    return [(one.mode, one.target_offset, one.size_bytes, one.base_offset, one.base_bytes) for one in made.ranges]


def test_gaps_are_glue_up_to_their_limit_and_then_looked_for_in_the_base(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_GLUE_GAP_BYTES", 8)
    monkeypatch.setattr(limits, "DELTA_WINDOW_MARGIN_BYTES", 4)
    assert ranges(bytes(8), b"x" * 8, [], []) == [(Mode.GLUE, 0, 8, 0, 0)]
    assert ranges(bytes(9), bytes(9), [], []) == [(Mode.COPY, 0, 9, 0, 9)]
    assert ranges(bytes(20), b"x" * 9, [], []) == [(Mode.RAW, 0, 9, 0, 13)]
    assert ranges(bytes(12), b"x" * 9, [], []) == [(Mode.RAW, 0, 9, 0, 12)]
    assert ranges(bytes(8), bytes(9), [], []) == [(Mode.RAW, 0, 9, 0, 8)]


def test_tensors_that_stayed_join_with_the_glue_between_them():
    base = bytes(range(40))
    old = [tensor("a", 4), tensor("b", 16)]
    assert ranges(base, base, old, old) == [(Mode.GLUE, 0, 4, 0, 0), (Mode.COPY, 4, 36, 4, 36)]
    target = base[:12] + b"!" + base[13:]
    assert ranges(base, target, old, old) == [
        (Mode.GLUE, 0, 4, 0, 0),
        (Mode.COPY, 4, 8, 4, 8),
        (Mode.GLUE, 12, 4, 0, 0),
        (Mode.COPY, 16, 24, 16, 24),
    ]


def test_too_much_glue_becomes_opaque_the_largest_first(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_GLUE_BYTES", 12)
    base, target = bytes(40), bytes(range(100, 140))
    new = [tensor("a", 6, dtype="i64"), tensor("b", 24, dtype="i64")]
    modes = [(mode.name, size) for mode, _, size, _, _ in ranges(base, target, [], new)]
    assert modes == [("GLUE", 6), ("RAW", 8), ("RAW", 10), ("RAW", 8), ("RAW", 8)]


def test_the_dictionary_is_the_glue_of_the_base_as_far_as_there_is_room(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_GLUE_GAP_BYTES", 10)
    old = [tensor("a", 4), tensor("b", 16), tensor("c", 36)]
    assert align._dictionary(old, 50) == [(0, 4), (12, 4), (44, 6)]
    monkeypatch.setattr(limits, "DELTA_GLUE_GAP_BYTES", 12)
    monkeypatch.setattr(limits, "DELTA_GLUE_BYTES", 10)
    assert align._dictionary(old, 50) == [(0, 4), (12, 4), (24, 2)]
