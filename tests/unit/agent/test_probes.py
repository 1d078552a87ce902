"""What a probe finds, in the real cage: a model that lies, breaks or kills its runtime only fails its probe."""

import json
import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_repository import onnx_model, probe_of, signature_of
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.structure import check
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.release import Format, Signature, Tensor, TensorSpec


@pytest.fixture(scope="module")
def server() -> Iterator[ProbeServer]:
    made = ProbeServer()
    yield made
    made.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model(factor=2.0))
    return path


def tried(server: ProbeServer, path: Path, **changes: object) -> ProbeResult:
    fields = {"signature": signature_of(), "probe": probe_of(factor=2.0), "format": "onnx", **changes}
    return server.probe(ProbeRequest(path=str(path), **fields))  # type: ignore[arg-type]


def test_a_model_that_keeps_its_word_passes(server: ProbeServer, model: Path) -> None:
    result = tried(server, model)
    assert (result.passed, result.how) == (True, "ran")
    assert result.latency_ms is not None


def test_wrong_answers_fail_and_say_where(server: ProbeServer, model: Path) -> None:
    result = tried(server, model, probe=probe_of(factor=2.1))
    assert not result.passed
    assert "output 'y' is wrong in 3 of 4 values, first at 1: 2.0 and not 2.1" in result.reason


def test_answers_within_the_tolerance_pass(server: ProbeServer, model: Path) -> None:
    assert tried(server, model, probe=probe_of(factor=2.1, relative_tolerance=0.1)).passed


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (TensorSpec(name="z", dtype="float32", shape=(1, 4)), "the model's inputs are"),
        (TensorSpec(name="x", dtype="int8", shape=(1, 4)), "is float32; the release says int8"),
        (TensorSpec(name="x", dtype="float32", shape=(1, 5)), "has shape [1, 4]"),
        (TensorSpec(name="x", dtype="float32", shape=("batch", 4)), "has shape [1, 4]"),
    ],
)
def test_another_signature_fails(server: ProbeServer, model: Path, spec: TensorSpec, reason: str) -> None:
    result = tried(server, model, signature=Signature(inputs=(spec,), outputs=signature_of().outputs))
    assert not result.passed
    assert reason in result.reason


def test_values_that_are_not_finite_fail(server: ProbeServer, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model(factor=float("nan")))
    result = tried(server, path)
    assert not result.passed
    assert "not finite" in result.reason


def test_a_model_that_is_slower_than_its_budget_fails(server: ProbeServer, model: Path) -> None:
    result = tried(server, model, probe=probe_of(factor=2.0, latency_ms_max=1e-6))
    assert not result.passed
    assert "at most 1e-06 ms" in result.reason


def test_golden_inputs_of_the_wrong_shape_fail(server: ProbeServer, model: Path) -> None:
    probe = probe_of(size=5)
    assert not tried(server, model, probe=probe).passed


def test_a_golden_output_that_the_model_does_not_have_fails(server: ProbeServer, model: Path) -> None:
    probe = probe_of()
    other = type(probe)(inputs=probe.inputs, outputs={"z": Tensor(dtype="float32", shape=(1,), values=(1.0,))})
    assert "gave no output 'z'" in tried(server, model, probe=other).reason


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"GGUF", onnx_model()[:-20], os.urandom(3000)])
def test_a_file_that_is_no_model_fails(server: ProbeServer, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    result = tried(server, path)
    assert not result.passed
    assert result.reason


def test_a_file_that_is_not_there_fails(server: ProbeServer, tmp_path: Path) -> None:
    assert not tried(server, tmp_path / "none").passed


def test_a_model_that_wants_all_memory_fails(server: ProbeServer, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    shape = helper.make_tensor("s", TensorProto.INT64, [1], [16 * 2**30])
    node = helper.make_node("ConstantOfShape", ["s"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    graph = helper.make_graph([node], "g", [], [out], [shape])
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    assert not tried(server, path, signature=None).passed


def test_a_server_that_was_killed_is_started_again(model: Path) -> None:
    server = ProbeServer()
    try:
        assert tried(server, model).passed
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        assert tried(server, model).passed
    finally:
        server.close()


def test_one_server_serves_many_threads(server: ProbeServer, model: Path) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(tried(server, model).passed)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_golden_inputs_without_a_runtime_fail(server: ProbeServer, model: Path) -> None:
    result = tried(server, model, format="safetensors")
    assert not result.passed
    assert "no runtime" in result.reason


def safetensors(offsets: tuple[int, int] = (0, 4), *, data: int = 4) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(data)


GGUF = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + bytes(100)
TFLITE = struct.pack("<I", 16) + b"TFL3" + bytes(64)


@pytest.mark.parametrize(
    ("kind", "content"),
    [("gguf", GGUF), ("safetensors", safetensors()), ("tflite", TFLITE), ("onnx", onnx_model())],
)
def test_structure_of_a_whole_file_is_good(tmp_path: Path, kind: Format, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    check(path, kind)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("gguf", b""),
        ("gguf", b"GGUF" + struct.pack("<IQQ", 9, 1, 1) + bytes(100)),
        ("gguf", b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1) + bytes(100)),
        ("safetensors", b""),
        ("safetensors", safetensors(data=3)),
        ("safetensors", safetensors((0, 2**50))),
        ("safetensors", struct.pack("<Q", 2**60) + b"{}"),
        ("tflite", b"TFL3" + bytes(64)),
        ("tflite", struct.pack("<I", 2**30) + b"TFL3" + bytes(64)),
        ("onnx", onnx_model()[:-3]),
        ("onnx", b""),
        ("coreml", b"\xff" * 50),
    ],
)
def test_structure_of_another_or_a_cut_file_is_not(tmp_path: Path, kind: Format, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises((ValueError, KeyError, TypeError)):
        check(path, kind)


def test_core_ml_package_with_a_path_out_of_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Manifest.json").write_text(json.dumps({"itemInfoEntries": {"x": {"path": "../../../etc/passwd"}}}))
    with pytest.raises(ValueError, match="not in it"):
        check(tmp_path, "coreml")
