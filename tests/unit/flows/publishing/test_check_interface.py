"""A new version takes and gives what the one before does, unless its publisher means it."""

import pytest

from support.values import file
from whimbrel.flows.publishing.check_interface import interface_objection
from whimbrel.model.formats import Format
from whimbrel.model.release import Dimension, Signature, TensorSpec, Variant


def spec(name: str, *shape: Dimension, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


X, Y = spec("x", 1, 4), spec("y", 1, 2)
BEFORE = Signature(inputs=(X,), outputs=(Y,))


def variant(signature: Signature | None, name: str = "default", kind: Format = "onnx") -> Variant:
    return Variant(name=name, files=(file(format=kind),), signature=signature)


def test_an_equal_interface_is_no_change() -> None:
    assert interface_objection([variant(BEFORE)], [variant(BEFORE)]) == ""


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        (Signature((spec("image", 1, 4),), (Y,)), "its inputs were x and become image"),
        (Signature((X, spec("mask", 1)), (Y,)), "its inputs were x and become x, mask"),
        (Signature((X,), ()), "its outputs were y and become none"),
        (Signature((spec("x", 1, 5),), (Y,)), "its input 'x' was float32 1x4 and becomes float32 1x5"),
        (Signature((spec("x", None, 4),), (Y,)), "its input 'x' was float32 1x4 and becomes float32 ?x4"),
        (Signature((X,), (spec("y", 1, 2, dtype="int64"),)), "its output 'y' was float32 1x2 and becomes int64 1x2"),
    ],
)
def test_each_kind_of_change_is_said(after: Signature, sentence: str) -> None:
    change = interface_objection([variant(BEFORE)], [variant(after)])
    assert change == f"the interface of the variant 'default' changes: {sentence}"


def test_another_order_is_a_change_for_apps_that_go_by_it() -> None:
    one, other = Signature((X, Y)), Signature((Y, X))
    assert "become y, x, in this order" in interface_objection([variant(one)], [variant(other)])


def test_the_name_of_a_free_size_may_change() -> None:
    one, other = Signature((spec("x", "batch", 4),)), Signature((spec("x", None, 4),))
    assert interface_objection([variant(one)], [variant(other)]) == ""


def test_what_is_not_known_is_not_compared() -> None:
    assert interface_objection([variant(None)], [variant(BEFORE)]) == ""
    assert interface_objection([variant(BEFORE)], [variant(None), variant(BEFORE, "other")]) == ""
    assert interface_objection([], [variant(BEFORE)]) == ""


def test_a_version_that_says_nothing_of_its_interface_is_not_taken_for_the_same() -> None:
    change = interface_objection([variant(BEFORE)], [variant(None, kind="safetensors")])
    assert change == "the inputs and outputs were known, and those of the new version (safetensors) cannot be read here"


def test_a_variant_is_compared_with_its_name_and_else_with_its_format() -> None:
    other = Signature(inputs=(spec("z", 1),))
    before = [variant(BEFORE, "big"), variant(other, "small"), variant(other, "phone", "tflite")]
    assert interface_objection(before, [variant(other, "small")]) == ""
    assert "'big' changes" in interface_objection(before, [variant(other, "big")])
    assert interface_objection(before, [variant(other, "new")]) == "", "it is like one of its format"
    assert "'new' changes" in interface_objection(before, [variant(Signature((spec("w", 1),)), "new")])
    assert interface_objection(before, [variant(BEFORE, "new", "gguf")]) == "", "the first of its format"


def test_a_variant_whose_name_had_another_format_is_compared_with_its_format() -> None:
    before = [variant(BEFORE, "default", "tflite"), variant(BEFORE, "big")]
    assert "'default' changes" in interface_objection(before, [variant(Signature((spec("w", 1),)), "default")])
