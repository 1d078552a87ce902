"""What a probe finds, in the real cage: a model that lies, breaks or kills its runtime only fails its probe."""

import json
import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import model_files
from support.repository import onnx_model, probe_of, signature_of
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.formats import PROBES
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.formats import Format
from whimbrel.model.release import Probe, Tensor, Validation


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
    return server.probe(ProbeRequest(path=str(path), **fields))


def test_a_golden_output_that_the_model_does_not_have_fails(server: ProbeServer, model: Path) -> None:
    probe = probe_of()
    other = type(probe)(inputs=probe.inputs, outputs={"z": Tensor(dtype="float32", shape=(1,), values=(1.0,))})
    assert "gave no output 'z'" in tried(server, model, probe=other).reason


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


def test_server_that_rests_leaves_the_memory_and_comes_back_with_the_next_probe(model: Path) -> None:
    eager, patient = ProbeServer(rest_after_s=0), ProbeServer()
    try:
        for server in (eager, patient):
            assert tried(server, model).passed
            server.rest()
        assert (eager._process, patient._process is None) == (None, False)
        assert tried(eager, model).passed
    finally:
        eager.close()
        patient.close()


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
    PROBES[kind].structure(path)


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
        PROBES[kind].structure(path)


@pytest.mark.parametrize(
    ("offsets", "data", "reason"),
    [
        ((0, 5), 4, "tensor 'w' lies at 0 to 5; there are 4 bytes of data"),
        ((0, 3), 4, "its tensors end at byte 3 of 4"),
        ((4, 3), 4, "tensor 'w' lies at 4 to 3; there are 4 bytes of data"),
        ((-1, 4), 4, "tensor 'w' lies at -1 to 4; there are 4 bytes of data"),
        ((0, 4), 3, "tensor 'w' lies at 0 to 4; there are 3 bytes of data"),
    ],
)
def test_tensors_of_a_safetensors_file_fill_its_data_and_no_byte_more(
    tmp_path: Path, offsets: tuple[int, int], data: int, reason: str
) -> None:
    (tmp_path / "model").write_bytes(safetensors(offsets, data=data))
    with pytest.raises(ValueError, match=r"\w") as caught:
        PROBES["safetensors"].structure(tmp_path / "model")
    assert str(caught.value) == reason


def test_structure_of_gguf_that_the_gguf_package_does_not_know_is_good(tmp_path: Path) -> None:
    """A big-endian file was "GGUF version 50331648", and a vocabulary of a million took the package minutes."""
    check = PROBES["gguf"].structure
    assert PROBES["gguf"].structure_by_library is None
    check(model_files.gguf(tmp_path / "big.gguf", big_endian=True))
    check(model_files.gguf(tmp_path / "large.gguf", tokens=1_000_000))
    newer = model_files.gguf(tmp_path / "newer.gguf")
    entry = b"w" + struct.pack("<IQQI", 2, 4, 8, 1)
    newer.write_bytes(newer.read_bytes().replace(entry, entry[:-4] + struct.pack("<I", 9999)))
    check(newer)
    newer.write_bytes(newer.read_bytes()[:300])
    with pytest.raises(ValueError, match="was cut"):
        check(newer)


def test_core_ml_package_with_a_path_out_of_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Manifest.json").write_text(json.dumps({"itemInfoEntries": {"x": {"path": "../../../etc/passwd"}}}))
    with pytest.raises(ValueError, match="not in it"):
        PROBES["coreml"].structure(tmp_path)


# --- ranges, accuracy, memory, network, other packages ---


def validation(labels: tuple[int, ...], floor: float = 1.0) -> Validation:
    """Samples whose greatest input is at the place `number` % 4; the model keeps it there."""
    values = tuple(1.0 if place == number % 4 else 0.0 for number in range(len(labels)) for place in range(4))
    inputs = {"x": Tensor(dtype="float32", shape=(len(labels), 4), values=values)}
    return Validation(inputs=inputs, labels=labels, output="y", accuracy_min=floor)


def test_validation_alone_is_enough_to_run_a_model(server: ProbeServer, model: Path) -> None:
    result = tried(server, model, probe=Probe(validation=validation((0, 1))))
    assert (result.passed, result.how) == (True, "ran")


def test_labels_and_samples_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="there are 2 labels"):
        Validation(
            inputs={"x": Tensor(dtype="float32", shape=(1, 1), values=(0.0,))},
            labels=(0, 1),
            output="y",
            accuracy_min=1,
        )


def test_memory_that_a_model_holds_is_measured_and_has_a_budget(server: ProbeServer, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    shape = helper.make_tensor("s", TensorProto.INT64, [1], [20 * 2**20])  # 80 MiB of float32
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["top"], keepdims=0),
        helper.make_node("Add", ["x", "top"], ["y"]),
    ]
    given, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [given], [out], [shape])
    path = tmp_path / "model.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    assert (tried(server, path, probe=probe_of(factor=1.0)).memory_mib or 0) > 70
    result = tried(server, path, probe=probe_of(factor=1.0, memory_mib_max=50))
    assert (result.passed, result.over_budget) == (False, True)
    assert "at most 50 MiB" in result.reason
    assert tried(server, path, probe=probe_of(factor=1.0, memory_mib_max=300)).passed


_PACKAGE = """
from whimbrel.device.ports import ProbeResult

def good(request):
    return ProbeResult(passed=True, how="other")
"""


def other_package(folder: Path, **entries: str) -> None:
    """A package that is installed in `folder` and brings probes."""
    info = folder / "other_probes-1.0.dist-info"
    info.mkdir(parents=True)
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-probes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[whimbrel.probes]\n{lines}")
    (folder / "other_probes.py").write_text(_PACKAGE)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProbeServer]:
    other_package(tmp_path / "site", tflite="other_probes:good", coreml="other_probes:is_not_there")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    server = ProbeServer()
    yield server
    server.close()


def test_probe_of_another_package_goes_before_ours(others: ProbeServer, model: Path) -> None:
    assert tried(others, model, format="tflite").how == "other"
    broken = tried(others, model, format="coreml")
    assert not broken.passed
    assert "cannot be loaded" in broken.reason
