"""A model file is what its bytes are, and its own library says what is in it."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from support import model_files
from whimbrel.cage import child
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.model.release import Signature, TensorSpec
from whimbrel.model.selector import Expression
from whimbrel.stores.inspection import inspect, recognise

WRITERS = [model_files.onnx, model_files.tflite, model_files.gguf, model_files.safetensors]


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", WRITERS)
def test_format_is_told_by_content_and_never_by_name(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    assert recognise(write(tmp_path / "model.txt")) == write.__name__


def test_onnx_gives_its_signature_weights_opset_and_words(tmp_path: Path) -> None:
    found = inspect(model_files.onnx(tmp_path / "tiny.json"))
    assert found.format == "onnx"
    assert found.signature == Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
    )
    assert found.precision == "fp32"
    assert found.details == {
        "tensors": 2,
        "parameters": 10,
        "ir_version": 8,
        "nodes": 1,
        "opset": "ai.onnx 17",
        "producer": "tests",
    }
    assert found.metadata == {"author": "somebody"}
    assert found.note == ""
    assert found.too_old == Expression(key="runtime.onnxruntime", operator="NotVersion", values=("<1.12",))


def test_tflite_gives_its_signature_and_precision(tmp_path: Path) -> None:
    found = inspect(model_files.tflite(tmp_path / "tiny"))
    assert found.format == "tflite"
    assert found.signature == Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 2)),),
    )
    assert found.precision == "int8"
    assert found.tensors[0] == TensorSpec(name="w", dtype="int8", shape=(2, 4))


def test_gguf_gives_its_architecture_tensors_and_words(tmp_path: Path) -> None:
    found = inspect(model_files.gguf(tmp_path / "tiny"))
    assert (found.format, found.precision, found.signature) == ("gguf", "fp16", None)
    assert found.details["architecture"] == "llama"
    assert (found.details["tensors"], found.details["parameters"]) == (2, 36)
    assert found.metadata["tokenizer.ggml.tokens"] == "3 values"
    assert found.tensors[0] == TensorSpec(name="w", dtype="f16", shape=(4, 8))


def test_safetensors_gives_its_tensors_and_words(tmp_path: Path) -> None:
    found = inspect(model_files.safetensors(tmp_path / "tiny"))
    assert (found.format, found.precision, found.signature) == ("safetensors", "fp16", None)
    assert found.details == {"tensors": 2, "parameters": 36}
    assert found.metadata == {"author": "somebody"}


def test_core_ml_gives_its_signature_as_a_file_and_as_a_package(tmp_path: Path) -> None:
    file, package = model_files.coreml(tmp_path)
    before = _files(package)
    for found in (inspect(file), inspect(package)):
        assert found.format == "coreml"
        assert found.signature == Signature(
            inputs=(TensorSpec(name="x", dtype="float64", shape=(4,)),),
            outputs=(TensorSpec(name="y", dtype="float64", shape=(2,)),),
        )
        assert found.details["architecture"] == "neuralNetwork"
        assert found.details["author"] == "somebody"
    assert _files(package) == before, "reading changed the package"


def test_compiled_core_ml_is_recognised_and_the_note_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.mlmodelc").mkdir()
    (tmp_path / "m.mlmodelc" / "coremldata.bin").write_bytes(b"x")
    found = inspect(tmp_path / "m.mlmodelc")
    assert found.format == "coreml"
    assert "publish the package" in found.note


def test_onnx_with_weights_in_another_file_is_read_with_them(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(model_files.onnx(tmp_path / "tiny.onnx"))
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=0)
    found = inspect(tmp_path / "big.onnx")
    assert (found.other_files, found.note, found.details["parameters"]) == (("big.bin",), "", 10)
    (tmp_path / "big.bin").unlink()
    assert inspect(tmp_path / "big.onnx").other_files == ("big.bin",)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 131072\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (POINTER, "is a Git LFS pointer, which stands for 131072 bytes; run: git lfs pull"),
        (b"/annex/objects/SHA256E-s104--a8c1.onnx\n", "run: git annex get"),
        (b"../.git/annex/objects/x/SHA256E-s104--a8c1.onnx\n", "run: git annex get"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04" + bytes(100), "is a ZIP archive"),
    ],
)
def test_what_is_given_in_place_of_a_model_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(UntrustedInput, match=sentence):
        inspect(tmp_path / "m.onnx")


# --- GGUF that the gguf package cannot hold ---


def test_gguf_that_was_cut_says_where(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UntrustedInput, match=r"tensor 'w' ends at byte \d+ of \d+: the file was cut"):
        inspect(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(UntrustedInput, match="inside its header: it was cut"):
        inspect(path)


def test_gguf_of_the_other_byte_order_is_read_and_said(tmp_path: Path) -> None:
    found = inspect(model_files.gguf(tmp_path / "m.gguf", big_endian=True))
    assert (found.details["byte_order"], found.precision) == ("big-endian", "fp16")
    assert "big-endian" in found.note


def test_gguf_with_a_type_that_nobody_knows_is_opaque_and_said(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "m.gguf", file_type=None)
    content = path.read_bytes()
    entry = b"w" + struct.pack("<IQQI", 2, 4, 8, 1)  # its type is float16
    assert entry in content
    path.write_bytes(content.replace(entry, entry[:-4] + struct.pack("<I", 9999)))
    found = inspect(path)
    assert "type of tensors 9999" in found.note
    assert found.precision == ""


def test_gguf_says_which_shard_it_is(tmp_path: Path) -> None:
    found = inspect(model_files.gguf(tmp_path / "m.gguf", shard=(1, 3)))
    assert (found.shard, found.shards) == (2, 3)
    assert inspect(model_files.gguf(tmp_path / "whole.gguf")).shards == 1


def test_gguf_with_a_vocabulary_of_a_million_entries_is_read(tmp_path: Path) -> None:
    """The gguf package makes an object of each entry: it took two minutes, and then the inspection was ended."""
    found = inspect(model_files.gguf(tmp_path / "m.gguf", tokens=1_000_000))
    assert found.metadata["tokenizer.ggml.tokens"] == "1000000 values"


# --- weights of Core ML ---


def _blob_file(*sizes: int) -> bytes:
    """MILBlob's StorageFormat.hpp: a header, and for each blob a record and bytes, all at multiples of 64."""
    content = struct.pack("<II", len(sizes), 2).ljust(64, b"\0")
    for size in sizes:
        content += struct.pack("<IIQQ", 0xDEADBEEF, 2, size, len(content) + 64).ljust(64, b"\0") + bytes(
            -(-size // 64) * 64
        )
    return content


@pytest.mark.parametrize("end", [".mlpackage", ".mlmodelc"])
def test_core_ml_weights_that_were_cut_are_refused(tmp_path: Path, end: str) -> None:
    folder = tmp_path / f"m{end}"
    weights = folder / "weights" / "weight.bin"
    weights.parent.mkdir(parents=True)
    (folder / "coremldata.bin").write_bytes(b"x")
    weights.write_bytes(_blob_file(64, 4096))
    assert inspect(folder).format == "coreml"
    weights.write_bytes(_blob_file(64, 4096)[:-100])
    with pytest.raises(UntrustedInput, match="a tensor ends at 4352: they were cut"):
        inspect(folder)
    weights.write_bytes(POINTER)
    with pytest.raises(UntrustedInput, match=r"weight\.bin is a Git LFS pointer"):
        inspect(folder)


def test_core_ml_weights_that_the_model_points_at_must_be_there(tmp_path: Path) -> None:
    package = model_files.coreml_program(tmp_path)
    assert inspect(package).details["architecture"] == "mlProgram"
    weights = next(package.rglob("weight.bin"))
    content = weights.read_bytes()
    weights.write_bytes(content[:200])
    with pytest.raises(UntrustedInput, match="were cut"):
        inspect(package)
    weights.unlink()
    with pytest.raises(UntrustedInput, match="are missing from the package"):
        inspect(package)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let the child process find none of these modules."""
    hidden = "".join(f"sys.modules[{name!r}] = None; " for name in modules)
    monkeypatch.setattr(child, "_START", f"import sys; {hidden}{child._START}")


@pytest.mark.parametrize(
    ("write", "hidden", "advice"),
    [
        (model_files.onnx, ["onnx", "onnxruntime"], "pip install 'whimbrel[onnx]'"),
        (model_files.tflite, ["ai_edge_litert"], "pip install 'whimbrel[litert]'"),
        (model_files.gguf, ["gguf"], "pip install 'whimbrel[gguf]'"),
        (model_files.safetensors, ["safetensors"], "pip install 'whimbrel[safetensors]'"),
    ],
)
def test_without_its_library_a_format_is_recognised_and_the_note_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path], hidden: list[str], advice: str
) -> None:
    hide(monkeypatch, *hidden)
    found = inspect(write(tmp_path / "tiny"))
    assert found.format == write.__name__
    assert found.signature is None
    assert advice in found.note


def test_onnx_runtime_alone_gives_the_same_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_files.onnx(tmp_path / "tiny")
    both = inspect(path)
    hide(monkeypatch, "onnx")
    alone = inspect(path)
    assert alone.signature == both.signature
    assert alone.metadata == both.metadata
    assert "pip install" in alone.note


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="it does not exist"):
        inspect(tmp_path / "nothing")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput, match="no Core ML package"):
        inspect(tmp_path)


def test_a_module_beside_the_model_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gguf.py").write_text("raise SystemExit(99)\n")
    shutil.copy(model_files.gguf(tmp_path / "tiny"), tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    assert inspect(Path("copy")).format == "gguf"
