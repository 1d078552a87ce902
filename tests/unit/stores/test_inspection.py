"""A model file is what its bytes are, and its own library says what is in it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support import model_files
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
    assert (found.note, found.details["parameters"]) == ("", 10)
    (tmp_path / "big.bin").unlink()
    with pytest.raises(UntrustedInput, match=r"big\.bin"):
        inspect(tmp_path / "big.onnx")


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
    hide = "".join(f"sys.modules[{name!r}] = None\n" for name in hidden)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{hide}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = inspect(write(tmp_path / "tiny"))
    assert found.format == write.__name__
    assert found.signature is None
    assert advice in found.note


def test_onnx_runtime_alone_gives_the_same_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_files.onnx(tmp_path / "tiny")
    both = inspect(path)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnx'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    alone = inspect(path)
    assert alone.signature == both.signature
    assert alone.metadata == both.metadata
    assert "pip install" in alone.note


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        inspect(tmp_path / "nothing")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrustedInput, match="no Core ML package"):
        inspect(tmp_path)


def test_a_module_beside_the_model_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gguf.py").write_text("raise SystemExit(99)\n")
    shutil.copy(model_files.gguf(tmp_path / "tiny"), tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    assert inspect(Path("copy")).format == "gguf"
