"""A variant's files are the whole model, and of the precision that is said."""

import msgspec
import pytest

from whimbrel.flows.publishing.check_files import missing_files, precision_objection


class File(msgspec.Struct, frozen=True):
    other_files: tuple[str, ...] = ()
    shard: int = 1
    shards: int = 1


def test_a_file_alone_is_a_whole_model() -> None:
    assert missing_files("m.gguf", File(), ["m.gguf"]) == ""


def test_weights_in_another_file_must_be_among_the_files() -> None:
    model = File(other_files=("m.data", "n.data"))
    assert missing_files("m.onnx", model, ["m.onnx", "m.data", "n.data"]) == ""
    sentence = missing_files("m.onnx", model, ["m.onnx", "m.data"])
    assert sentence == "m.onnx has weights in other files, which devices would not get: n.data"


def test_weights_are_named_from_the_folder_of_the_model() -> None:
    model = File(other_files=("m.data", "./more/../n.data"))
    assert missing_files("onnx/m.onnx", model, ["onnx/m.onnx", "onnx/m.data", "onnx/n.data"]) == ""
    assert "onnx/m.data" in missing_files("onnx/m.onnx", model, ["onnx/m.onnx", "m.data", "onnx/n.data"])


def test_of_many_missing_files_some_are_named() -> None:
    assert missing_files("m", File(other_files=tuple("edcba")), ["m"]).endswith(": a, b, c and 2 more")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("model-00002-of-00003.safetensors", File()),  # by its name
        ("mine.gguf", File(shard=2, shards=3)),  # by what it says
    ],
)
def test_one_shard_of_several_is_no_model(name: str, file: File) -> None:
    assert "is shard 2 of 3 of one model, and 1 of them" in missing_files(name, file, [name])
    assert missing_files(name, file, [name, "a", "b"]) == ""


@pytest.mark.parametrize(
    ("given", "of_file"),
    [
        ("fp32", "fp32"),
        ("float32", "fp32"),
        ("INT8", "int8"),
        ("int8", "q8_0"),
        ("w8a8", "int8"),
        ("int4", "q4_k_m"),
        ("Q4_K_M", "iq4_xs"),
        ("half", "fp16"),
        ("mixed", "fp32"),  # a word of one's own
        ("int8", ""),  # nothing was read
        ("", "int8"),
        ("int8", "image"),
    ],
)
def test_precisions_that_agree_or_cannot_be_compared(given: str, of_file: str) -> None:
    assert precision_objection(given=given, of_file=of_file) == ""


@pytest.mark.parametrize(
    ("given", "of_file"),
    [("int8", "fp32"), ("fp16", "bf16"), ("q4_0", "q8_0"), ("float", "int8"), ("int4", "fp16"), ("fp32", "q6_k")],
)
def test_a_precision_that_contradicts_the_file_is_an_objection(given: str, of_file: str) -> None:
    assert precision_objection(given=given, of_file=of_file) == (
        f"the variant's precision is {given}, and most weights of the file are {of_file}"
    )
