"""Heads of patches that lie in one thing: each is refused by a sentence of its own, at the exact limit."""

import hashlib

import msgspec
import pytest

from support.delta import parse, put_together
from whimbrel import limits
from whimbrel.delta import opaque, patch
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.delta.patch import Head, Mode, Range, is_safe, pack_columns, range_columns
from whimbrel.errors import UntrustedInput

BASE, TARGET = 96, 64  # bytes
DIGEST = bytes(32)


def span(mode=Mode.COPY, size=TARGET, *, at=0, base=None, dtype="bytes", columns=0, offset=0):
    base = size if base is None else base
    return Range(0, mode, BY_NAME[dtype], at, size, offset, base, columns, "")


def head(*ranges, base=None, target=None, dictionary=b"", names=None):
    return Head(
        base=[("", BASE, DIGEST)] if base is None else base,
        target=[("", TARGET, DIGEST)] if target is None else target,
        ranges=range_columns(ranges),
        names="\0" * len(ranges) if names is None else names,
        dictionary=dictionary,
        sizes=b"",
        part_checks=b"",
        output_checks=b"",
    )


def made(*ranges, parts=(), **more):
    said = head(*ranges, **more)
    said.output_checks = pack_columns([[0] * len(parts)])
    return put_together(said, list(parts))


def refusal(content):
    with pytest.raises(UntrustedInput) as caught:
        parse(content)
    return str(caught.value)


GOOD = made(span())


def test_a_head_that_is_right_is_read():
    parsed = parse(GOOD)
    assert (parsed.base_bytes, parsed.target_bytes, parsed.size_bytes) == (BASE, TARGET, len(GOOD))
    assert list(parsed.ranges()) == [span()]


# --- the first 32 bytes ---


@pytest.mark.parametrize(
    "content",
    [b"", GOOD[:7], GOOD[:31], b"\x88" + GOOD[1:], GOOD[:6] + b"\x1b" + GOOD[7:], b"x" * 31, b"x" * 32],
    ids=["empty", "magic alone", "a byte short", "another first", "another last", "short and other", "other"],
)
def test_what_does_not_begin_like_a_patch_is_none(content):
    assert refusal(content) == "this is no Whimbrel patch: it does not begin like one"


def test_a_head_ends_where_the_patch_ends_at_the_latest():
    packed = len(GOOD) - 32
    assert parse(GOOD).size_bytes == packed + 32
    told = refusal(GOOD[:8] + (packed + 1).to_bytes(4, "little") + GOOD[12:])
    assert told.startswith(f"the patch's head claims {packed + 1} and ")
    assert told.endswith(" bytes: it is cut short or damaged")


def test_a_head_is_as_large_as_the_limit_says_and_no_larger(monkeypatch):
    expanded = int.from_bytes(GOOD[12:16], "little")
    packed = len(GOOD) - 32
    largest = max(packed, expanded)
    monkeypatch.setattr(limits, "DELTA_HEAD_BYTES", largest)
    parse(GOOD)
    monkeypatch.setattr(limits, "DELTA_HEAD_BYTES", largest - 1)
    assert refusal(GOOD) == f"the patch's head claims {packed} and {expanded} bytes: it is cut short or damaged"


def test_a_head_whose_hash_does_not_agree_is_damaged():
    for place in (16, 31, 32, len(GOOD) - 1):
        changed = bytearray(GOOD)
        changed[place] ^= 1
        assert refusal(bytes(changed)) == "the patch's head is damaged: its hash does not agree"


def test_a_head_of_another_shape_is_refused():
    content = msgspec.msgpack.encode([1, 2])
    packed = opaque.shrink(content)
    sizes = len(packed).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    whole = patch.MAGIC + bytes([patch.VERSION]) + sizes + hashlib.sha256(packed).digest()[:16] + packed
    assert refusal(whole).startswith("the patch's head is not what the format says: ")


# --- its files ---


@pytest.mark.parametrize("side", ["base", "target"])
def test_files_are_counted(monkeypatch, side):
    monkeypatch.setattr(limits, "DELTA_FILES", 2)
    files = [("a", BASE, DIGEST), ("b", 0, DIGEST), ("c", 0, DIGEST)]
    good = {"base": [("", BASE, DIGEST)], "target": [("", TARGET, DIGEST)]}
    for count in (0, 3):
        told = refusal(made(span(), **good | {side: files[:count]}))
        assert told == f"a patch names {count} files; 1 to 2 are taken"
    two = [("a", BASE if side == "base" else TARGET, DIGEST), ("b", 0, DIGEST)]
    parse(made(span(), **good | {side: two}))


@pytest.mark.parametrize("digest", [bytes(31), bytes(33), b""])
def test_digests_have_32_bytes(digest):
    said = "a patch names a file with an impossible size or digest"
    assert refusal(made(span(), base=[("", BASE, digest)])) == said
    assert refusal(made(span(), target=[("", TARGET, digest)])) == said


def test_sizes_are_not_negative():
    files = [("a", -1, DIGEST), ("b", BASE + 1, DIGEST)]
    assert refusal(made(span(), base=files)) == "a patch names a file with an impossible size or digest"
    parse(made(span(), base=[("a", 0, DIGEST), ("b", BASE, DIGEST)]))


def test_files_hold_as_many_bytes_as_an_artifact_may(monkeypatch):
    monkeypatch.setattr(limits, "ARTIFACT_BYTES", BASE)
    parse(GOOD)
    monkeypatch.setattr(limits, "ARTIFACT_BYTES", BASE - 1)
    assert refusal(GOOD) == "a patch is for more than 95 bytes"


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("a", True), ("a/b.c", True), ("é", True), ("...", True), (".a", True), ("a b", True), ("x" * 1000, True),
        ("", False), (".", False), ("..", False), ("a/", False), ("/a", False), ("a//b", False), ("a/../b", False),
        ("a/./b", False), ("\x1f", False), (" ", True), ("a\\b", False), ("c:", False), ("*", False), ("?", False),
        ('"', False), ("<", False), (">", False), ("|", False), ("a\n", False),
    ],
)  # fmt: skip
def test_paths_are_plain_and_relative(path, safe):
    assert is_safe(path) is safe
    if path:
        files = [(path, TARGET, DIGEST)]
        if safe:
            assert parse(made(span(), target=files)).target[0].path == path
        else:
            assert "which is no plain relative path" in refusal(made(span(), target=files))


def test_paths_are_as_long_as_the_limit_says():
    assert is_safe("x" * limits.DELTA_PATH_CHARS)
    assert not is_safe("x" * (limits.DELTA_PATH_CHARS + 1))


# --- its ranges ---


def test_ranges_make_the_target_and_no_more():
    parse(made(span(size=40), span(size=24, at=40)))
    assert refusal(made(span(size=40), span(size=25, at=40))) == "a patch's ranges do not fit its target of 64 bytes"
    assert refusal(made(span(size=40), span(size=23, at=40))) == "a patch's ranges make 63 bytes; its target has 64"
    assert refusal(made(span(size=64), span(size=0, at=64))) == "a patch's ranges do not fit its target of 64 bytes"


def test_ranges_lie_in_the_base():
    parse(made(span(offset=BASE - TARGET)))
    assert refusal(made(span(offset=BASE - TARGET + 1))) == "a patch's range lies outside its base of 96 bytes"


def test_a_copy_takes_as_many_bytes_as_it_makes():
    assert refusal(made(span(base=63))) == "a patch copies another number of bytes than it has room for"


def test_ranges_are_counted_and_each_has_a_name(monkeypatch):
    assert refusal(made(span(), names="")) == "a patch has 1 ranges and 0 names"
    assert refusal(made(span(), names="\0\0")) == "a patch has 1 ranges and 2 names"
    monkeypatch.setattr(limits, "DELTA_RANGES", 1)
    parse(GOOD)
    assert refusal(made(span(size=32), span(size=32, at=32))) == "a patch has 2 ranges and 2 names"


@pytest.mark.parametrize(("kind", "mode", "dtype"), [(9, 9, 0), (3 << 8 | 200, 200, 3), (60 << 8 | 1, 1, 60)])
def test_modes_and_dtypes_that_are_not_known_are_named(kind, mode, dtype):
    said = head(span())
    said.ranges = pack_columns([[TARGET], [kind], [0], [TARGET], [0]])
    assert refusal(put_together(said, [])) == f"a patch's range has mode {mode} and dtype {dtype}: not known here"


def floats(**more):
    return span(Mode.FLOAT, **{"dtype": "f32", "columns": 8} | more)


def test_rows_of_numbers_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_ROW_ELEMENTS", 8)
    two = [b"head", b"page"]
    parse(made(floats(), parts=two))
    parse(made(floats(columns=1), parts=two))
    for columns in (0, 9):
        told = refusal(made(floats(columns=columns), parts=two))
        assert told == f"a patch's range has rows of {columns} numbers of f32"


def test_numbers_are_whole():
    told = refusal(made(floats(size=62), span(size=2, at=62), parts=[b"", b""]))
    assert told == "a patch's range has rows of 8 numbers of f32"
    quantised = span(Mode.QBLOCK, 36, dtype="q4_0", columns=32)
    rest = span(size=28, at=36)
    parse(made(quantised, rest, parts=[b"", b""]))
    told = refusal(made(msg(quantised, columns=48), rest, parts=[b"", b""]))
    assert told == "a patch's range has rows of 48 numbers of q4_0"


def msg(one, **changes):
    values = {name: getattr(one, name) for name in Range.__slots__} | changes
    return Range(**values)


@pytest.mark.parametrize(
    "wrong", [floats(base=60), floats(dtype="i8"), span(Mode.INT8, dtype="f32", columns=8), floats(dtype="bytes")]
)
def test_numbers_have_the_mode_of_their_family_and_as_many_before(wrong):
    told = refusal(made(wrong, parts=[b"", b""]))
    assert told == f"a patch's range of {wrong.dtype.name} has mode {wrong.mode.name} and another size before"


@pytest.mark.parametrize(("size", "base"), [(TARGET, 80), (TARGET, 10)])
def test_what_is_made_at_once_is_bounded_by_the_larger_of_both_files(monkeypatch, size, base):
    monkeypatch.setattr(limits, "DELTA_WHOLE_BYTES", max(size, base))
    one = span(Mode.WHOLE, size, base=base)
    parse(made(one, parts=[b"x"]))
    monkeypatch.setattr(limits, "DELTA_WHOLE_BYTES", max(size, base) - 1)
    assert refusal(made(one, parts=[b"x"])) == f"a patch wants {size} bytes at once; {max(size, base) - 1} are taken"


def test_glue_is_bounded(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_GLUE_BYTES", 50)
    parse(made(span(Mode.GLUE, 50), span(size=14, at=50), parts=[b"x"]))
    told = refusal(made(span(Mode.GLUE, 25), span(size=13, at=25), span(Mode.GLUE, 26, at=38), parts=[b"x"]))
    assert told == "a patch has 51 bytes of glue; at most 50 are taken"


# --- its dictionary and parts ---


def test_a_dictionary_lies_in_the_base_and_is_bounded(monkeypatch):
    parsed = parse(made(span(), dictionary=pack_columns([[6, 10], [20, 60]])))
    assert parsed.dictionary == ((6, 20), (36, 60))
    said = "a patch's dictionary lies outside the base, or is too large"
    assert refusal(made(span(), dictionary=pack_columns([[6, 11], [20, 60]]))) == said
    monkeypatch.setattr(limits, "DELTA_GLUE_BYTES", 80)
    parse(made(span(), dictionary=pack_columns([[6, 10], [20, 60]])))
    monkeypatch.setattr(limits, "DELTA_GLUE_BYTES", 79)
    assert refusal(made(span(), dictionary=pack_columns([[6, 10], [20, 60]]))) == said


def test_pieces_of_a_dictionary_are_counted(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_RANGES", 1)
    parse(made(span(), dictionary=pack_columns([[0], [1]])))
    told = refusal(made(span(), dictionary=pack_columns([[0, 1], [1, 1]])))
    assert told == "a patch's dictionary has too many pieces"


def test_a_table_of_half_a_row_is_cut_short():
    assert refusal(made(span(), dictionary=bytes(15))) == "a table in a patch's head is cut short"


@pytest.mark.parametrize(("parts", "fits"), [([b"x", b"y"], True), ([b"x"], False), ([b"x", b"y", b"z"], False)])
def test_parts_are_as_many_as_the_ranges_need(parts, fits):
    content = made(floats(), parts=parts)
    if fits:
        assert [parse(content).part(index) for index in (0, 1)] == [(len(content) - 2, 1), (len(content) - 1, 1)]
    else:
        assert refusal(content) == f"a patch has {len(parts)} parts; its ranges need another number"


@pytest.mark.parametrize("table", ["part_checks", "output_checks"])
def test_each_part_has_its_checks(table):
    said = head(floats())
    put_together(said, [b"x", b"y"])
    said.output_checks = pack_columns([[0, 0]])
    setattr(said, table, pack_columns([[0]]))
    assert refusal(patch.build(said) + b"xy") == "a patch's tables of parts have different lengths"


@pytest.mark.parametrize("rest", [b"x", b"xyz", b""])
def test_parts_add_up_to_the_patch(rest):
    said = head(floats())
    said.output_checks = pack_columns([[0, 0]])
    put_together(said, [b"x", b"y"])
    content = patch.build(said) + rest
    told = refusal(content)
    assert told == f"a patch's parts do not add up to its {len(content)} bytes: it is cut short or damaged"
