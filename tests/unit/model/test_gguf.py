"""The header of a GGUF file, also of one that is made to harm."""

import re
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


# More than a window of texts.
WINDOWS = gguf([(b"t", ARRAY, struct.pack("<IQ", TEXT, 100_000) + text(b"word") * 100_000)])


@pytest.mark.parametrize("size", [*range(37, 220, 7), *range(len(WINDOWS) - 40, len(WINDOWS), 5)])
def test_a_file_that_ends_inside_its_header_was_cut(size: int) -> None:
    with pytest.raises(ValueError, match=f"^it ends at byte {size}, inside its header: it was cut$"):
        header_of(WINDOWS[:size])


CUT = "it ends at byte {}, inside its header: it was cut"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it begins with b''; a GGUF file begins with b'GGUF' and a header of 24 bytes"),
        (
            b"GGUF" + struct.pack("<IQ", 3, 0) + bytes(7),
            "it begins with b'GGUF'; a GGUF file begins with b'GGUF' and a header of 24 bytes",
        ),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "it is GGUF version 9; 2 and 3 are known"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "it is GGUF version 1; 2 and 3 are known"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0),
            f"it names {2**60} tensors and 0 values, more than 24 bytes hold",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
            f"it names 0 tensors and {2**60} values, more than 24 bytes hold",
        ),
        (gguf([(b"k", 13, bytes(20))]), "a value in it has the type 13, or its arrays are nested too deep"),
        (
            gguf([(b"k", ARRAY, struct.pack("<IQ", 13, 1) + bytes(20))]),
            "a value in it has the type 13, or its arrays are nested too deep",
        ),
        (
            gguf([(b"k", ARRAY, struct.pack("<IQ", TEXT, 2**60) + bytes(20))]),
            f"its arrays have more than {limits.GGUF_ARRAY_ENTRIES} texts together",
        ),
        (
            gguf([(b"k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9 + bytes(20))]),
            "a value in it has the type 9, or its arrays are nested too deep",
        ),
        (gguf([(b"k", ARRAY, struct.pack("<IQ", 12, 2**61))]), CUT.format(49)),
        (gguf([(b"k", TEXT, struct.pack("<Q", 2**63))]), CUT.format(45)),
        (
            gguf([(b"k" * 1025, 4, bytes(4))]),
            "a name in it has 1025 bytes; at most 1024 are read",
        ),
        (gguf([(b"general.alignment", 4, bytes(4))]), "it claims an alignment of 0"),
        (
            gguf([(b"general.alignment", 4, struct.pack("<I", limits.MIB + 1))]),
            f"it claims an alignment of {limits.MIB + 1}",
        ),
        (gguf([(b"general.alignment", 6, struct.pack("<f", 32.0))]), "it claims an alignment of 32.0"),
        (
            gguf([], text(b"w") + struct.pack("<I", 17) + bytes(8 * 17 + 12), 1),
            "its tensor 'w' has 17 dimensions",
        ),
        (
            gguf([], text(b"w" * 81) + struct.pack("<I", 2**31) + bytes(40), 1),
            f"its tensor '{'w' * 80}' has 2147483648 dimensions",
        ),
    ],
)
def test_a_header_that_is_made_to_harm_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        header_of(content)


def test_a_header_counts_up_to_its_limits() -> None:
    """The counts alone: a file that claims so many is read no further than its first name."""
    for tensors, values in (
        (limits.GGUF_TENSORS, limits.GGUF_VALUES + 1),
        (limits.GGUF_TENSORS + 1, limits.GGUF_VALUES),
    ):
        said = (
            f"it names {tensors} tensors and {values} values; at most {limits.GGUF_TENSORS} and {limits.GGUF_VALUES} "
            "are read"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            of_counts(tensors, values)
    with pytest.raises(ValueError, match="a name in it has"):  # it is read, and its first name is too long
        of_counts(limits.GGUF_TENSORS, limits.GGUF_VALUES)


def of_counts(tensors: int, values: int, size_bytes: int = 2**40) -> GgufHeader:
    content = b"GGUF" + struct.pack("<IQQQ", 3, tensors, values, 2**20)
    return read_header(lambda offset, size: content[offset : offset + size], size_bytes)


@pytest.mark.parametrize(("tensors", "values", "size_bytes"), [(2, 0, 48), (0, 2, 26), (1, 2, 50)])
def test_a_file_holds_no_more_tensors_and_values_than_have_room_in_it(
    tensors: int, values: int, size_bytes: int
) -> None:
    """24 bytes a tensor and 13 a value at least: a byte less, and the counts alone say that the file lies."""
    said = f"it names {tensors} tensors and {values} values, more than {size_bytes - 1} bytes hold"
    with pytest.raises(ValueError, match=f"^{said}$"):
        of_counts(tensors, values, size_bytes - 1)
    with pytest.raises(ValueError, match=r"inside its header|a name in it has"):
        of_counts(tensors, values, size_bytes)


def test_texts_are_counted_over_all_arrays_of_a_file() -> None:
    most = limits.GGUF_ARRAY_ENTRIES

    def arrays(*counts: int) -> bytes:
        bodies = [struct.pack("<IQ", TEXT, count) + text(b"a") for count in counts]
        return gguf([(b"k%d" % number, ARRAY, body) for number, body in enumerate(bodies)]).ljust(99, b"\0")

    with pytest.raises(ValueError, match="it was cut"):
        header_of(arrays(most))
    with pytest.raises(ValueError, match="it was cut"):
        header_of(arrays(1, most - 1))
    for counts in ((most + 1,), (1, most)):
        with pytest.raises(ValueError, match=f"^its arrays have more than {most} texts together$"):
            header_of(arrays(*counts))


@pytest.mark.parametrize("alignment", [1, limits.MIB])
def test_tensors_may_be_aligned_to_a_byte_and_to_a_mebibyte(alignment: int) -> None:
    content = gguf([(b"general.alignment", 4, struct.pack("<I", alignment))], tensor(), 1)
    assert header_of(content).tensors[0].start == -(-len(content) // alignment) * alignment


def test_a_small_header_is_read_at_once() -> None:
    """The first bytes, and then one window: not a call for each name of a vocabulary."""
    content = gguf([(b"t", ARRAY, struct.pack("<IQ", TEXT, 1000) + text(b"word") * 1000)])
    reads: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> bytes:
        reads.append((offset, size))
        return content[offset : offset + size]

    assert read_header(read, len(content)).lengths == {"t": 1000}
    assert len(reads) == 2


def test_as_many_bytes_as_a_name_and_as_many_dimensions_as_a_tensor_may_have_are_read() -> None:
    word = b"k" * limits.GGUF_NAME_BYTES
    shape = tuple(range(1, 17))
    entry = text(word) + struct.pack("<I16QIQ", 16, *shape, 7, 64)
    content = gguf([(word, 7, b"\1")], entry, 1)
    header = header_of(content)
    start = -(-len(content) // 32) * 32
    assert header.values == {word.decode(): True}
    assert header.tensors == [GgufTensor(word.decode(), shape, 7, start + 64)]
    assert (header.version, header.order) == (3, "little")


@pytest.mark.parametrize(
    ("kind", "letter", "value"),
    [
        *[(0, "B", 255), (1, "b", -1), (2, "H", 65535), (3, "h", -1), (4, "I", 2**32 - 1), (5, "i", -1), (6, "f", 0.5)],
        *[(7, "?", True), (10, "Q", 2**64 - 1), (11, "q", -1), (12, "d", 0.1)],
    ],
)
def test_each_kind_of_number_is_read_and_stepped_over(kind: int, letter: str, value: float) -> None:
    body = struct.pack(f"<{letter}", value)
    three = struct.pack("<IQ", kind, 3) + 3 * body
    header = header_of(gguf([(b"one", kind, body), (b"three", ARRAY, three), (b"last", 4, struct.pack("<I", 77))]))
    assert header.values == {"one": value, "last": 77}
    assert header.lengths == {"three": 3}
    assert header.whole_number("one") == (value if isinstance(value, int) and value is not True else None)
    assert header.whole_number("absent") is None


def test_arrays_are_nested_up_to_four_deep() -> None:
    def nested(depth: int) -> bytes:
        return struct.pack("<IQ", ARRAY, 1) * (depth - 1) + struct.pack("<IQ", 0, 5) + bytes(5)

    assert header_of(gguf([(b"k", ARRAY, nested(4)), (b"n", 4, bytes(4))])).lengths == {"k": 1}
    with pytest.raises(ValueError, match="nested too deep"):
        header_of(gguf([(b"k", ARRAY, nested(5))]))


@pytest.mark.parametrize(("start", "size", "of"), [(0, 128, 128), (100, None, 100), (100, 0, 100)])
def test_a_tensor_may_end_where_the_file_does(start: int, size: int | None, of: int) -> None:
    header = GgufHeader(3, "little", {}, {}, [GgufTensor("w" * 99, (), 0, start)])
    header.check_bounds(of, lambda _: size)
    does, where = ("ends", start + size) if size else ("begins", start)
    if size == 0:
        does = "ends"
    said = f"tensor '{'w' * 80}' {does} at byte {where} of {of - 1}: the file was cut"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        header.check_bounds(of - 1, lambda _: size)


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused() -> None:
    content = gguf([(b"k", TEXT, text(b"x" * 100))])
    with pytest.raises(ValueError, match=r"^it became shorter while it was read$"):
        read_header(lambda offset, size: content[offset : offset + size][:30], len(content))
