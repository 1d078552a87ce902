"""The header of a GGUF file, also of one that is made to harm."""

import struct

import pytest

from whimbrel import limits
from whimbrel.model.gguf import GgufHeader, GgufTensor, read_header

TEXT, ARRAY = 8, 9


def text(word: bytes, mark: str = "<") -> bytes:
    return struct.pack(f"{mark}Q", len(word)) + word


def gguf(values: list[tuple[bytes, int, bytes]], tensors: bytes = b"", count: int = 0, mark: str = "<") -> bytes:
    head = b"GGUF" + struct.pack(f"{mark}IQQ", 3, count, len(values))
    entries = (text(key, mark) + struct.pack(f"{mark}I", kind) + body for key, kind, body in values)
    return head + b"".join(entries) + tensors


def tensor(mark: str = "<", *, number: int = 0, offset: int = 0) -> bytes:
    return text(b"w", mark) + struct.pack(f"{mark}IQQIQ", 2, 4, 8, number, offset)


def header_of(content: bytes) -> GgufHeader:
    return read_header(lambda offset, size: content[offset : offset + size], len(content))


@pytest.mark.parametrize("mark", ["<", ">"])
def test_both_byte_orders_are_read(mark: str) -> None:
    values = [
        (b"name", TEXT, text(b"tiny", mark)),
        (b"general.alignment", 4, struct.pack(f"{mark}I", 64)),
        (b"scale", 6, struct.pack(f"{mark}f", 0.5)),
        (b"tokens", ARRAY, struct.pack(f"{mark}IQ", TEXT, 2) + text(b"a", mark) + text(b"bc", mark)),
        (b"scores", ARRAY, struct.pack(f"{mark}IQ", 6, 3) + bytes(12)),
        (b"nested", ARRAY, struct.pack(f"{mark}IQ", ARRAY, 1) + struct.pack(f"{mark}IQ", 0, 5) + bytes(5)),
    ]
    content = gguf(values, tensor(mark), 1, mark)
    start = -(-len(content) // 64) * 64
    header = header_of(content.ljust(start + 128, b"\0"))
    assert header.order == ("little" if mark == "<" else "big")
    assert header.values == {"name": "tiny", "general.alignment": 64, "scale": 0.5}
    assert header.lengths == {"tokens": 2, "scores": 3, "nested": 1}
    assert header.tensors == [GgufTensor("w", (4, 8), 0, start)]
    header.check_bounds(start + 128, lambda _: 128)
    with pytest.raises(ValueError, match="the file was cut"):
        header.check_bounds(start + 127, lambda _: 128)
    with pytest.raises(ValueError, match="the file was cut"):
        header.check_bounds(start - 1, lambda _: None)


def test_a_text_that_is_longer_than_the_window_is_stepped_over() -> None:
    long = limits.MIB * 3
    tokens = struct.pack("<IQ", TEXT, 3) + text(b"a") + text(bytes(long)) + text(b"b")
    header = header_of(gguf([(b"t", ARRAY, tokens), (b"long", TEXT, text(b"x" * long)), (b"n", 4, bytes(4))]))
    assert header.lengths == {"t": 3}
    assert header.values["n"] == 0
    assert header.values["long"] == "x" * limits.GGUF_NAME_BYTES


MANY = gguf([(b"t", ARRAY, struct.pack("<IQ", TEXT, 1_000_000) + text(b"word") * 1_000_000)])


def test_a_vocabulary_of_a_million_is_counted_and_not_kept() -> None:
    header = header_of(MANY)
    assert (header.lengths, header.values) == ({"t": 1_000_000}, {})


@pytest.mark.parametrize("size", [*range(24, 220, 7), *range(len(MANY) - 40, len(MANY), 5)])
def test_a_file_that_ends_inside_its_header_was_cut(size: int) -> None:
    with pytest.raises(ValueError, match=r"cut|more than"):
        header_of(MANY[:size])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "begins with b''"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "GGUF version 9; 2 and 3 are known"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tensors and 0 values, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "values, more than"),
        (gguf([(b"k", 13, bytes(20))]), "has the type 13"),
        (gguf([(b"k", ARRAY, struct.pack("<IQ", 13, 1) + bytes(20))]), "has the type 13"),
        (gguf([(b"k", ARRAY, struct.pack("<IQ", TEXT, 2**60) + bytes(20))]), "texts together"),
        (gguf([(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9 + bytes(20))]), "nested too deep"),
        (gguf([(b"k", ARRAY, struct.pack("<IQ", 12, 2**61))]), "inside its header"),
        (gguf([(b"k", TEXT, struct.pack("<Q", 2**63))]), "inside its header"),
        (gguf([(b"k" * 2000, 4, bytes(4))]), "a name in it has 2000 bytes"),
        (gguf([(b"general.alignment", 4, bytes(4))]), "an alignment of 0"),
        (gguf([], text(b"w") + struct.pack("<I", 2**31) + bytes(40), 1), "2147483648 dimensions"),
    ],
)
def test_a_header_that_is_made_to_harm_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        header_of(content)
