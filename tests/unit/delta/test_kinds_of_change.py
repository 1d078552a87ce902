"""Which kind of change a patch is, from its ranges alone, and what each ratio is held against.

The patches have heads that are written here, and parts of so many zeros: advice reads nothing else.
"""

import pytest

from support.delta import parse, put_together
from whimbrel import limits
from whimbrel.delta.advice import advise
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.delta.patch import Head, Mode, Range, count_parts, pack_columns, range_columns, units
from whimbrel.delta.summary import summarise

KIB = 1024


def patched(*spans, patch_bytes=0, names=None):
    """A patch of ranges (mode, dtype, KiB), whose parts have so many bytes in all."""
    ranges, at = [], 0
    for index, (mode, dtype, size) in enumerate(spans):
        grouped = mode in (Mode.FLOAT, Mode.LOWRANK, Mode.QBLOCK, Mode.INT8)
        columns = 256 if grouped or mode is Mode.ROWS else 0
        before = size * KIB if grouped or mode is Mode.COPY else 0
        ranges.append(
            Range(index, mode, BY_NAME[dtype], at, size * KIB, 0, before, columns, names[index] if names else "")
        )
        at += size * KIB
    parts = sum(count_parts(unit) for unit in units(lambda: iter(ranges)))
    sizes = [patch_bytes // parts + (index < patch_bytes % parts) for index in range(parts)] if parts else []
    head = Head(
        base=[("", at, bytes(32))],
        target=[("", at, bytes(32))],
        ranges=range_columns(ranges),
        names="".join(f"{one.name}\0" for one in ranges),
        dictionary=b"",
        sizes=b"",
        part_checks=b"",
        output_checks=pack_columns([[0] * parts]),
    )
    return parse(put_together(head, [bytes(size) for size in sizes]))


@pytest.mark.parametrize(
    ("spans", "kind", "low", "high"),
    [
        ([(Mode.FLOAT, "f32", 100)], "a full fine-tune", 0.28, 0.40),
        ([(Mode.FLOAT, "f16", 100)], "a full fine-tune", 0.14, 0.29),
        ([(Mode.FLOAT, "bf16", 100)], "a full fine-tune", 0.06, 0.15),
        ([(Mode.INT8, "i8", 100)], "a full fine-tune", 0.01, 0.08),
        ([(Mode.INT8, "u8", 100)], "a full fine-tune", 0.01, 0.08),
        ([(Mode.QBLOCK, "q8_0", 102)], "a full fine-tune", 0.035, 0.12),
        ([(Mode.QBLOCK, "q4_0", 90)], "a full fine-tune", 0.02, 0.06),
        ([(Mode.QBLOCK, "q5_0", 99)], "a full fine-tune", 0.025, 0.1),
        ([(Mode.QBLOCK, "q4_k", 90)], "a full fine-tune", 0.03, 0.14),
        ([(Mode.QBLOCK, "q6_k", 105)], "a full fine-tune", 0.05, 0.18),
        ([(Mode.QBLOCK, "q5_1", 99)], "a full fine-tune", 0.02, 0.15),
        ([(Mode.FLOAT, "f16", 50), (Mode.COPY, "bytes", 50)], "a full fine-tune", 0.07, 0.145),
        ([(Mode.FLOAT, "f16", 49), (Mode.COPY, "bytes", 51)], "a fine-tune of some layers", 0.14 * 0.49, 0.29 * 0.49),
        ([(Mode.FLOAT, "f16", 60), (Mode.FLOAT, "f32", 40)], "a full fine-tune", 0.14, 0.29),
        ([(Mode.FLOAT, "f16", 40), (Mode.FLOAT, "f32", 60)], "a full fine-tune", 0.28, 0.40),
        ([(Mode.COPY, "bytes", 100)], "a change of metadata only", 0.0, 4096 / (100 * KIB)),
        ([(Mode.GLUE, "bytes", 10), (Mode.COPY, "bytes", 90)], "a change of metadata only", 0.0, 4096 / (100 * KIB)),
        ([(Mode.COPY, "bytes", 8000)], "a change of metadata only", 0.0, 0.001),
        ([(Mode.WHOLE, "bytes", 100)], "a small file, patched byte by byte", 0.0, 1.0),
        (
            [(Mode.RAW, "f16", 49), (Mode.COPY, "bytes", 51)],
            "some layers made anew, the rest as it was",
            0.3 * 0.49,
            0.49,
        ),
        (
            [(Mode.RAW, "f16", 50), (Mode.COPY, "bytes", 50)],
            "a new model: most tensors have no ancestor in the base",
            0.3,
            1.0,
        ),
        (
            [(Mode.RAW, "f16", 51), (Mode.FLOAT, "f16", 49)],
            "a new model: most tensors have no ancestor in the base",
            0.3,
            1.0,
        ),
        ([(Mode.RAW, "f16", 50), (Mode.FLOAT, "f16", 50)], "a full fine-tune", 0.14, 0.29),
        ([(Mode.LOWRANK, "f16", 51), (Mode.FLOAT, "f16", 49)], "a merged low-rank adapter", 0.005, 0.1),
        ([(Mode.LOWRANK, "f16", 50), (Mode.FLOAT, "f16", 50)], "a full fine-tune", 0.14, 0.29),
        ([(Mode.LOWRANK, "f16", 40), (Mode.COPY, "bytes", 60)], "a merged low-rank adapter", 0.002, 0.04),
        (
            [(Mode.FLOAT, "f16", 60), (Mode.ROWS, "f16", 20), (Mode.COPY, "bytes", 20)],
            "a fine-tune with a grown vocabulary",
            0.14 * 0.8,
            0.29 * 0.8 + 0.2,
        ),
    ],
)
def test_a_kind_of_change_has_its_usual_ratios(spans, kind, low, high):
    found = advise(patched(*spans))
    assert found.kind == kind
    assert found.expected == pytest.approx((low, high))


def test_a_ratio_is_told_with_what_is_usual():
    made = patched((Mode.FLOAT, "f16", 100), patch_bytes=25_000)
    found = advise(made)
    assert found.ratio == made.size_bytes / (100 * KIB)
    assert found.because == ()
    share = f"{100 * made.size_bytes / (100 * KIB):.1f}"
    assert str(found) == f"This looks like a full fine-tune: {share}% of the file, where 14.0-29.0% is usual."


@pytest.mark.parametrize(
    ("dtype", "mode", "words"),
    [
        ("f32", Mode.FLOAT, "The low bits of f32 are noise that nothing predicts"),
        ("f16", Mode.FLOAT, "More changed than in a usual fine-tune"),
        ("i8", Mode.INT8, "The quantised weights differ more than training usually makes them"),
        ("q4_0", Mode.QBLOCK, "The quantised weights differ more than training usually makes them"),
    ],
)
def test_a_patch_that_is_too_large_gets_its_reason_beyond_what_is_told_apart(dtype, mode, words):
    usual = {"f32": 0.40, "f16": 0.29, "i8": 0.08, "q4_0": 0.06}[dtype] * 90 * KIB * 1.15
    head = patched((mode, dtype, 90)).size_bytes
    assert advise(patched((mode, dtype, 90), patch_bytes=int(usual) - head - 60)).because == ()
    (because,) = advise(patched((mode, dtype, 90), patch_bytes=int(usual) + 60)).because
    assert because.startswith(words)


def test_numbers_of_two_kinds_get_the_reason_of_the_larger_half():
    mixed = patched((Mode.FLOAT, "f32", 51), (Mode.INT8, "i8", 49), patch_bytes=60_000)
    assert advise(mixed).because[0].startswith("The low bits of f32")
    mixed = patched((Mode.FLOAT, "f32", 49), (Mode.INT8, "i8", 51), patch_bytes=60_000)
    assert advise(mixed).because[0].startswith("The quantised weights differ")


@pytest.mark.parametrize(("lost", "told"), [(20, False), (21, True)])
def test_tensors_without_a_counterpart_are_named_where_they_are_more_than_a_fiftieth(lost, told):
    spans = [(Mode.RAW, "f16", lost), (Mode.FLOAT, "f16", 1000 - lost)]
    found = advise(patched(*spans, names=["lost", "kept"]))
    assert found.because == (
        (
            "1 tensors (2% of the bytes) have no counterpart of their name, kind and shape in the base, or one that "
            "tells nothing about them ('lost'): keep names and shapes as they were.",
        )
        if told
        else ()
    )


def test_three_of_the_tensors_without_a_counterpart_are_named_and_all_counted():
    spans = [(Mode.RAW, "f16", 10)] * 4 + [(Mode.RAW, "bytes", 10), (Mode.FLOAT, "f16", 50)]
    (because,) = advise(patched(*spans, names=["a", "b", "c", "d", "e", "f"])).because
    assert because.startswith("4 tensors (40% of the bytes) ")
    assert "('a', 'b', 'c')" in because


def test_strangers_explain_a_large_patch_alone():
    spans = [(Mode.RAW, "f16", 30), (Mode.FLOAT, "f16", 70)]
    assert len(advise(patched(*spans, patch_bytes=90_000)).because) == 1


# --- shares of the parts ---


def test_parts_are_divided_by_the_bytes_that_each_range_makes():
    made = patched((Mode.GLUE, "bytes", 10), (Mode.COPY, "bytes", 20), (Mode.GLUE, "bytes", 30), patch_bytes=400)
    assert [(one.name, one.mode, one.target_offset, one.target_bytes, one.patch_bytes) for one in summarise(made)] == [
        ("(headers and padding)", "glue", 0, 10 * KIB, 100.0),
        ("(bytes)", "copy", 10 * KIB, 20 * KIB, 0.0),
        ("(headers and padding)", "glue", 30 * KIB, 30 * KIB, 300.0),
    ]


def test_segments_and_their_tables_are_divided_among_their_tensors():
    made = patched((Mode.FLOAT, "f16", 10), (Mode.FLOAT, "f16", 30), patch_bytes=400, names=["a", "b"])
    assert [(one.name, one.dtype, one.patch_bytes, one.ratio) for one in summarise(made)] == [
        ("a", "f16", 100.0, 100 / (10 * KIB)),
        ("b", "f16", 300.0, 300 / (30 * KIB)),
    ]


def test_opaque_ranges_and_factors_have_their_own_parts(monkeypatch):
    monkeypatch.setattr(limits, "DELTA_COPY_BYTES", 10 * KIB)
    raw = patched((Mode.RAW, "bytes", 25), patch_bytes=300)
    assert [(one.name, one.patch_bytes) for one in summarise(raw)] == [("(bytes)", 300.0)]
    whole = patched((Mode.WHOLE, "bytes", 25), patch_bytes=300)
    assert [(one.name, one.patch_bytes) for one in summarise(whole)] == [("(the whole file)", 300.0)]
    merged = patched((Mode.LOWRANK, "f16", 10), patch_bytes=300)
    assert [(one.mode, one.patch_bytes) for one in summarise(merged)] == [("lowrank", 300.0)]
