"""A format is one place: a row of the registry, and exactly one row in the table of each wing."""

import importlib.metadata
import re
import struct
from pathlib import Path
from typing import get_args

import pytest

from whimbrel import limits
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
        (b"\x08\x04\x12\x00\xba\x0c\x00", None),  # field 199 names no kind of Core ML
        (b"\x08\x04\x12\x00\xc2\x0c\x00", "coreml"),  # field 200
        (b"\x08\x04\x12\x00\xfa\xf9\x01\x00", "coreml"),  # field 3999
        (b"\x08\x04\x12\x00\x82\xfa\x01\x00", None),  # field 4000
        (b"\x08\x04\x10\x00\xa2\x1f\x00", None),
        (b"\x0a\x00\x12\x00\xa2\x1f\x00", None),
        (b"\x08\x08\x38\x00", None),
        (b"\x0a\x00\x3a\x00", None),
        (struct.pack("<Q", 1) + b"{}", None),
        (struct.pack("<Q", 2) + b"[]", None),
        (struct.pack("<Q", 3) + b"{ }  ", "safetensors"),
        (b"TFL3", None),
        (b"xGGUF", None),
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


def fields(content: bytes) -> list[protobuf.Field]:
    return list(protobuf.fields_in_order(lambda offset, size: content[offset : offset + size], len(content)))


NO_MESSAGE = "it is no protobuf message: a field with number 0, or thousands of them"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x0a\x05abc", "field 1 has 5 bytes and ends after the file's 5"),
        (b"\x08\x01\x1a\x02a", "field 3 has 2 bytes and ends after the file's 5"),
        (b"\x08", "it ends inside a number"),
        (b"\x08" + b"\xff" * 9, "it ends inside a number"),
        (b"\x08" + b"\xff" * 10, "it has a number of more than 10 bytes"),
        (b"\xff" * 10, "it has a number of more than 10 bytes"),
        (b"\x0d\0\0", "its last field ends after the file's 3 bytes"),
        (b"\x09" + bytes(7), "its last field ends after the file's 8 bytes"),
        (b"\x0b\0", "it is no protobuf message: wire type 3 at byte 1"),
        (b"\x08\x01\x0f\0", "it is no protobuf message: wire type 7 at byte 3"),
        (b"\x02\0", NO_MESSAGE),
        (b"\x80\x80\x80\x80\x10\0", NO_MESSAGE),  # number 2**29
        (b"\x08\x01" * (limits.PROTOBUF_FIELDS + 1), NO_MESSAGE),
    ],
)
def test_bytes_that_are_no_protobuf_message_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        fields(content)


def test_each_field_is_told_with_its_number_or_the_place_of_its_bytes() -> None:
    content = b"".join(
        (
            b"\x08\xac\x02",  # field 1 is 300
            b"\x12\x03abc",
            b"\x19" + bytes(8),
            b"\x25" + bytes(4),
            b"\x12\x00",
            b"\x88\x01" + b"\xff" * 9 + b"\x01",  # field 17, of ten bytes
            b"\xf8\xff\xff\xff\x0f\x00",  # field 2**29 - 1
        )
    )
    assert [tuple(each) for each in fields(content)] == [
        (1, protobuf.VARINT, 300, 0, 0),
        (2, protobuf.BYTES, 0, 5, 3),
        (3, protobuf.FIXED64, 0, 9, 8),
        (4, protobuf.FIXED32, 0, 18, 4),
        (2, protobuf.BYTES, 0, 24, 0),
        (17, protobuf.VARINT, 2**64 - 1, 0, 0),
        (2**29 - 1, protobuf.VARINT, 0, 0, 0),
    ]
    assert fields(b"") == []


def test_a_key_and_a_length_of_ten_bytes_each_are_read() -> None:
    long_zero = b"\x80" * 9 + b"\x00"
    assert fields(b"\x8a" + b"\x80" * 8 + b"\x00" + long_zero) == [protobuf.Field(1, protobuf.BYTES, start=20, size=0)]


def test_a_message_may_have_so_many_fields() -> None:
    """The last one ends the message: nothing is read after it."""
    assert len(fields(b"\x08\x01" * (limits.PROTOBUF_FIELDS - 1))) == limits.PROTOBUF_FIELDS - 1


def test_the_page_for_extending_names_every_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "extend.md").read_text()
    tables = ("model/formats.py", "probes/formats.py", "model_readers/formats.py", "delta/containers/__init__.py")
    assert all(table in page for table in tables)
