"""A format is one place: a row of the registry, and exactly one row in the table of each wing."""

import importlib.metadata
import re
import struct
from pathlib import Path
from typing import get_args

import pytest

from whimbrel.agent.probes.formats import PROBES, runnable_endings
from whimbrel.delta.containers import CONTAINERS
from whimbrel.model import formats, protobuf
from whimbrel.model.formats import FORMATS, Format, ModelFormat, Without
from whimbrel.stores.model_readers.formats import READERS

NAMES = [row.name for row in FORMATS]
SAFETENSORS = struct.pack("<Q", 2) + b"{}"
ONNX = b"\x08\x08\x3a\x00"  # ir_version 8, an empty graph
COREML = b"\x08\x04\x12\x00\xa2\x1f\x00"  # specification version 4, an empty description, field 500


def recognised(content: bytes) -> Format | None:
    return formats.recognise_file(
        content[: formats.HEAD_BYTES], len(content), lambda offset, size: content[offset : offset + size]
    )


def test_the_literal_of_signed_documents_and_the_registry_have_the_same_names() -> None:
    assert sorted(NAMES) == sorted(get_args(Format))


@pytest.mark.parametrize("table", [READERS, PROBES, CONTAINERS], ids=["server", "agent", "delta"])
def test_every_format_has_a_row_in_the_table_of_each_wing(table: dict[str, object]) -> None:
    assert [name for name in NAMES if name not in table] == []


@pytest.mark.parametrize("row", FORMATS, ids=NAMES)
def test_a_wing_that_does_not_serve_a_format_says_why(row: ModelFormat) -> None:
    for entry in (READERS[row.name], PROBES[row.name].runtime, CONTAINERS[row.name]):
        assert not isinstance(entry, Without) or len(entry.because) > 10


@pytest.mark.parametrize("row", FORMATS, ids=NAMES)
def test_the_agent_has_a_runtime_for_exactly_the_formats_whose_row_names_one(row: ModelFormat) -> None:
    assert bool(row.runtime) is not isinstance(PROBES[row.name].runtime, Without)


@pytest.mark.parametrize("row", [row for row in FORMATS if row.reader], ids=lambda row: row.name)
def test_the_extra_that_a_note_recommends_brings_the_reader(row: ModelFormat) -> None:
    required = importlib.metadata.requires("whimbrel") or []
    brought = [each for each in required if re.search(rf"extra == ['\"]{row.extra}['\"]", each)]
    assert any(re.match(rf"{re.escape(row.reader)}\b(?!-)", each) for each in brought)


def test_no_two_formats_share_an_ending() -> None:
    endings = [ending for row in FORMATS for ending in row.endings]
    assert len(set(endings)) == len(endings)
    assert all(re.fullmatch(r"\.[a-z]+", ending) for ending in endings)


@pytest.mark.parametrize("row", FORMATS, ids=NAMES)
def test_a_format_without_a_reader_says_why(row: ModelFormat) -> None:
    assert bool(row.reader) is bool(row.extra) is not isinstance(READERS[row.name], Without)


@pytest.mark.parametrize("row", FORMATS, ids=NAMES)
def test_every_format_is_recognised_by_something(row: ModelFormat) -> None:
    assert row.begins or row.fields or row.folder


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"GGUF\x03\0\0\0", "gguf"),
        (b"\x20\0\0\0TFL3", "tflite"),
        (SAFETENSORS, "safetensors"),
        (b"\x20\0\0\0ET12", "executorch"),
        (ONNX, "onnx"),
        (COREML, "coreml"),
        (SAFETENSORS[:-1], None),
        (ONNX[:-1], None),
        (b"\x08\x04\x12\x00", None),
        (b"hello", None),
    ],
)
def test_a_file_is_recognised_by_its_bytes(content: bytes, name: Format | None) -> None:
    assert recognised(content) == name


def test_a_folder_is_recognised_by_what_lies_in_it() -> None:
    assert formats.recognise_folder({"Manifest.json": b'{"itemInfoEntries": {}}'}.get) == "coreml"
    assert formats.recognise_folder({"coremldata.bin": b""}.get) == "coreml"
    assert formats.recognise_folder({"Manifest.json": b"{}"}.get) is None
    assert formats.recognise_folder({}.get) is None


def test_only_formats_with_a_runtime_are_runnable() -> None:
    assert [formats.runnable_format(f"Model{ending}") for ending in (".ONNX", ".tflite", ".gguf")] == [
        "onnx",
        "tflite",
        "gguf",
    ]
    assert [formats.runnable_format(name) for name in ("m.safetensors", "m.mlmodel", "onnx", "")] == [None] * 4
    assert runnable_endings() == ".onnx, .tflite and .gguf"


def test_the_sentence_of_formats_names_them_all() -> None:
    assert (
        formats.TITLES == "GGUF, ONNX, TFLite, safetensors, ExecuTorch, or a Core ML model, package or compiled folder"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x0a\x05abc", "field 1 has 5 bytes"),
        (b"\x08", "inside a number"),
        (b"\x08" + b"\xff" * 12, "more than 10 bytes"),
        (b"\x0d\0\0", "last field ends after"),
        (b"\x0b\0", "wire type 3"),
        (b"\x02\0", "a field with number 0"),
    ],
)
def test_bytes_that_are_no_protobuf_message_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        protobuf.top_level_fields(lambda offset, size: content[offset : offset + size], len(content))


def test_the_page_for_extending_names_every_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "extend.md").read_text()
    tables = ("model/formats.py", "probes/formats.py", "model_readers/formats.py", "delta/containers/__init__.py")
    assert all(table in page for table in tables)
