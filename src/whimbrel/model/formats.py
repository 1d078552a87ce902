"""The model formats. Each has one row: its names, how it is recognised, and what runs and reads it.

1. A row holds what is true of a format everywhere. Each wing has one table with the same names that says which of its
   own modules know the format: `agent/probes/formats.py`, `stores/model_readers/formats.py` and
   `delta/containers/__init__.py`. A test fails where a table leaves a format out; `Without` says why on purpose.
2. Recognition goes by content and never by a file's name: by the first bytes, then by the top-level protobuf fields, or
   by what lies in the folder. It gets bytes and names only, so it opens no file.
3. To add a format: `docs/howto/extend.md`. A release that names it is refused by agents that do not know it yet.

Called by the tables above, by publishing, and by whoever words a list of formats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from whimbrel.model import protobuf

Format = Literal["onnx", "gguf", "tflite", "safetensors", "executorch", "coreml"]  # as signed documents write it

HEAD_BYTES = 64  # of a file: enough to recognise it by its beginning

GGUF_MAGIC = b"GGUF"  # https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
TFLITE_IDENTIFIER = b"TFL3"  # FlatBuffers: after the offset of the root table
EXECUTORCH_IDENTIFIER = b"ET12"  # the same; schema/program.fbs of pytorch/executorch

# onnx.proto, ModelProto
ONNX_IR_VERSION, ONNX_GRAPH = 1, 7
# Model.proto of Core ML; the kind of model is one of the fields from 200 on
COREML_SPECIFICATION_VERSION, COREML_DESCRIPTION, _COREML_KINDS = 1, 2, range(200, 4000)
COREML_MANIFEST = "Manifest.json"


@dataclass(frozen=True, slots=True)
class Without:
    """A format that a table does not serve, and why."""

    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFormat:
    """What is true of one format everywhere.

    `begins`: whether a file of so many bytes that begins so is of this format. `fields`: the same by the top-level
    protobuf fields, number to wire type. `folder`: names in a folder of this format, any of which tells it, and what
    that file contains in its first MiB.
    """

    name: Format
    title: str  # what people call it, as part of a sentence
    endings: tuple[str, ...]  # of file names, in lower case; the first is the usual one
    runtime: str = ""  # the Python module that runs it on a device
    runtime_packages: tuple[str, ...] = ()  # the distributions that bring that module; the version is theirs
    reader: str = ""  # the package that reads it for publishing
    extra: str = ""  # pip install 'whimbrel[...]' brings that package
    begins: Callable[[bytes, int], bool] | None = None
    fields: Callable[[Mapping[int, int]], bool] | None = None
    folder: Mapping[str, bytes] = field(default_factory=dict)


def _is_safetensors(head: bytes, size_bytes: int) -> bool:
    # https://github.com/huggingface/safetensors#format: the length of a JSON object, and that object
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size_bytes - 8


def _is_onnx(fields: Mapping[int, int]) -> bool:
    return fields.get(ONNX_IR_VERSION) == protobuf.VARINT and fields.get(ONNX_GRAPH) == protobuf.BYTES


def _is_coreml(fields: Mapping[int, int]) -> bool:
    return (
        fields.get(COREML_SPECIFICATION_VERSION) == protobuf.VARINT
        and fields.get(COREML_DESCRIPTION) == protobuf.BYTES
        and any(number in _COREML_KINDS for number in fields)
    )


FORMATS: tuple[ModelFormat, ...] = (
    ModelFormat(
        name="gguf",
        title="GGUF",
        endings=(".gguf",),
        runtime="llama_cpp",
        runtime_packages=("llama-cpp-python",),
        reader="gguf",
        extra="gguf",
        begins=lambda head, _: head.startswith(GGUF_MAGIC),
    ),
    ModelFormat(
        name="onnx",
        title="ONNX",
        endings=(".onnx",),
        runtime="onnxruntime",
        runtime_packages=(
            "onnxruntime",
            "onnxruntime-gpu",
            "onnxruntime-openvino",
            "onnxruntime-directml",
            "onnxruntime-qnn",
            "onnxruntime-rocm",
        ),
        reader="onnxruntime",
        extra="onnx",
        fields=_is_onnx,
    ),
    ModelFormat(
        name="tflite",
        title="TFLite",
        endings=(".tflite",),
        runtime="ai_edge_litert",
        runtime_packages=("ai-edge-litert",),
        reader="ai-edge-litert",
        extra="litert",
        begins=lambda head, _: head[4:8] == TFLITE_IDENTIFIER,
    ),
    ModelFormat(
        name="safetensors",
        title="safetensors",
        endings=(".safetensors",),
        reader="safetensors",
        extra="safetensors",
        begins=_is_safetensors,
    ),
    ModelFormat(
        name="executorch",
        title="ExecuTorch",
        endings=(".pte",),
        begins=lambda head, _: head[4:8] == EXECUTORCH_IDENTIFIER,
    ),
    ModelFormat(
        name="coreml",
        title="a Core ML model, package or compiled folder",
        endings=(".mlmodel", ".mlpackage", ".mlmodelc"),
        reader="coremltools",
        extra="coreml",
        fields=_is_coreml,
        folder={COREML_MANIFEST: b"itemInfoEntries", "coremldata.bin": b""},
    ),
)
BY_NAME: dict[Format, ModelFormat] = {each.name: each for each in FORMATS}
TITLES = f"{', '.join(each.title for each in FORMATS[:-1])}, or {FORMATS[-1].title}"  # all of them, for a sentence


def runtime_label(kind: Format) -> str:
    """The device's label that says which version of the format's runtime is installed: `runtime.onnxruntime`."""
    return f"runtime.{BY_NAME[kind].runtime}"


def runnable_format(file_name: str) -> Format | None:
    """The format of an installed file by its ending, where that format has a runtime; None otherwise."""
    return next((row.name for row in FORMATS if row.runtime and file_name.lower().endswith(row.endings)), None)


def recognise_file(head: bytes, size_bytes: int, read: Callable[[int, int], bytes]) -> Format | None:
    """The format of a file of `size_bytes` that begins with `head`; None where it is of none.

    `read(offset, size)` gives bytes of the file, fewer of them at its end.
    """
    for row in FORMATS:
        if row.begins is not None and row.begins(head, size_bytes):
            return row.name
    try:
        fields = protobuf.top_level_fields(read, size_bytes)
    except ValueError:
        return None
    return next((row.name for row in FORMATS if row.fields is not None and row.fields(fields)), None)


def recognise_folder(content: Callable[[str], bytes | None]) -> Format | None:
    """The format of a folder; None where it is of none. `content(name)`: a file's first MiB, None without that file."""
    for row in FORMATS:
        for name, mark in row.folder.items():
            start = content(name)
            if start is not None and mark in start:
                return row.name
    return None
