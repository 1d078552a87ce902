"""What a probe finds, in the real cage: a model that lies, breaks or kills its runtime only fails its probe."""

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_repository import onnx_model, probe_of, signature_of
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.structure import check, check_with_library
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.release import Format, Probe, Signature, Tensor, TensorSpec, Validation


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


# --- ranges, accuracy, memory, network, other packages ---


def validation(labels: tuple[int, ...], floor: float = 1.0) -> Validation:
    """Samples whose greatest input is at the place `number` % 4; the model keeps it there."""
    values = tuple(1.0 if place == number % 4 else 0.0 for number in range(len(labels)) for place in range(4))
    inputs = {"x": Tensor(dtype="float32", shape=(len(labels), 4), values=values)}
    return Validation(inputs=inputs, labels=labels, output="y", accuracy_min=floor)


def test_outputs_within_the_range_pass_and_others_fail(server: ProbeServer, model: Path) -> None:
    assert tried(server, model, probe=probe_of(output_ranges={"y": (0.0, 6.0)})).passed
    result = tried(server, model, probe=probe_of(output_ranges={"y": (0.0, 5.0)}))
    assert result.reason == "output 'y' lies in 0 to 6; the release says 0 to 5"


def test_accuracy_on_the_validation_set_is_measured_and_has_a_floor(server: ProbeServer, model: Path) -> None:
    good = tried(server, model, probe=probe_of(validation=validation((0, 1, 2, 3, 0))))
    assert (good.passed, good.accuracy) == (True, 1.0)
    bad = tried(server, model, probe=probe_of(validation=validation((0, 1, 2, 0, 1), 0.7)))
    assert (bad.passed, bad.accuracy) == (False, 0.6)
    assert bad.reason == "3 of 5 validation samples are right, 60.0%; at least 70.0% must be"


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
import socket, time
from whimbrel.device.ports import ProbeResult

def hangs(request):
    time.sleep(1000)

def asks(request):
    socket.create_connection(("127.0.0.1", int(open(request.path).read())), timeout=5)
    return ProbeResult(passed=True, how="ran")

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
    other_package(
        tmp_path / "site", gguf="other_probes:hangs", safetensors="other_probes:asks", tflite="other_probes:good",
        coreml="other_probes:is_not_there",
    )  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    server = ProbeServer(wall_s=0.5)
    yield server
    server.close()


def test_probe_of_another_package_goes_before_ours(others: ProbeServer, model: Path) -> None:
    assert tried(others, model, format="tflite").how == "other"
    broken = tried(others, model, format="coreml")
    assert not broken.passed
    assert "cannot be loaded" in broken.reason


def test_a_model_that_hangs_reaches_the_limit_of_the_wall_clock(others: ProbeServer, model: Path) -> None:
    result = tried(others, model, format="gguf")
    assert (result.passed, result.reason) == (False, "it did not answer within 0.5 s")
    assert tried(others, model, format="tflite").passed  # and the server goes on


def test_a_probe_has_no_network_where_the_kernel_allows(others: ProbeServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        path = tmp_path / "port"
        path.write_text(str(listening.getsockname()[1]))
        result = tried(others, path, format="safetensors")
    assert result.passed is not result.offline


_LLAMA = """
import numpy

class Llama:
    def __init__(self, model_path, **settings):
        self.n_tokens, self.scores = 0, numpy.zeros((8, 3), numpy.float32)

    def n_vocab(self):
        return 3

    def reset(self):
        self.n_tokens = 0

    def eval(self, tokens):
        for token in tokens:
            self.scores[self.n_tokens, token] = 1.0
            self.n_tokens += 1
"""


def test_gguf_runs_where_llama_cpp_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama_cpp.py").write_text(_LLAMA)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(GGUF)
    tokens = Tensor(dtype="int32", shape=(1, 2), values=(0, 2))
    probes = [
        Probe(inputs={"tokens": tokens}, outputs={"logits": Tensor(dtype="float32", shape=(1, 3), values=values)})
        for values in ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    ]
    server = ProbeServer()
    try:
        found = [tried(server, tmp_path / "model.gguf", format="gguf", signature=None, probe=probe) for probe in probes]
        assert [(each.passed, each.how) for each in found] == [(True, "ran"), (False, "")]
    finally:
        server.close()


def test_readers_of_the_formats_find_what_a_header_hides(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    check(path, "safetensors")
    with pytest.raises(Exception, match=r"(?i)shape|offset|invalid"):
        check_with_library(path, "safetensors")
