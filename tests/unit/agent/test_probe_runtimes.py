"""Real models through the runtimes in the real cage: the same judgement of ONNX in onnxruntime and TFLite in LiteRT.

llama.cpp has no wheel that a lock could name: its path runs with a stand-in that has its names.
"""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import model_files, shadow_models, tflite_models
from support.repository import probe_of, signature_of
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.reference import reference_of
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.formats import Format
from whimbrel.model.release import Probe, Signature, Tensor, TensorSpec, Validation


@pytest.fixture(scope="module")
def server() -> Iterator[ProbeServer]:
    made = ProbeServer()
    yield made
    made.close()


MAKERS: dict[str, Callable[..., bytes]] = {"onnx": shadow_models.good, "tflite": tflite_models.doubling}
Try = Callable[..., ProbeResult]


@pytest.fixture(params=["onnx", "tflite"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def tried(server: ProbeServer, tmp_path: Path, kind: str) -> Try:
    """The probe of a model that doubles; what is changed is what should be found."""

    def attempt(content: bytes | None = None, **changes: Any) -> ProbeResult:
        path = tmp_path / f"model.{kind}"
        path.write_bytes(MAKERS[kind]() if content is None else content)
        fields = {"signature": signature_of(), "probe": probe_of(), "format": kind, **changes}
        return server.probe(ProbeRequest(path=str(path), **fields))

    return attempt


def test_golden_values_within_the_tolerance_pass_and_what_was_measured_is_said(tried: Try) -> None:
    result = tried()
    assert (result.passed, result.how, result.reason) == (True, "ran", "")
    assert (result.latency_ms or 0) > 0
    assert (result.memory_mib or 0) > 0
    assert tried(probe=probe_of(factor=2.01, absolute_tolerance=0.04)).passed
    assert tried(probe=probe_of(factor=2.1, relative_tolerance=0.1)).passed


def test_a_wrong_answer_fails_and_says_where(tried: Try) -> None:
    result = tried(probe=probe_of(factor=2.1, relative_tolerance=0.01))
    assert result.reason == "output 'y' is wrong in 3 of 4 values, first at 1: 2.0 and not 2.1"
    assert not result.passed


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (TensorSpec(name="z", dtype="float32", shape=(1, 4)), "the model's {}s are ['{}']; the release says ['z']"),
        (TensorSpec(name="{}", dtype="int8", shape=(1, 4)), "{} '{}' is float32; the release says int8"),
        (TensorSpec(name="{}", dtype="float32", shape=(1, 5)), "{} '{}' has shape [1, 4]; the release says [1, 5]"),
        (TensorSpec(name="{}", dtype="float32", shape=("n", 4)), "{} '{}' has shape [1, 4]; the release says ['n', 4]"),
        (TensorSpec(name="{}", dtype="float32", shape=(4,)), "{} '{}' has shape [1, 4]; the release says [4]"),
    ],
    ids=["name", "dtype", "size", "free", "dimensions"],
)
@pytest.mark.parametrize(("side", "name"), [("input", "x"), ("output", "y")])
def test_another_signature_fails(tried: Try, spec: TensorSpec, reason: str, side: str, name: str) -> None:
    told = TensorSpec(name=spec.name.format(name), dtype=spec.dtype, shape=spec.shape)
    parts = {"inputs": signature_of().inputs, "outputs": signature_of().outputs, f"{side}s": (told,)}
    result = tried(signature=Signature(**parts))
    assert (result.passed, result.reason) == (False, reason.format(side, name))


def test_golden_inputs_that_the_model_does_not_take_fail(tried: Try) -> None:
    whole = Tensor(dtype="int32", shape=(1, 4), values=(0, 1, 2, 3))
    for inputs in ({"x": whole}, {"other": whole}, probe_of(size=5).inputs):
        result = tried(probe=Probe(inputs=inputs, outputs=probe_of().outputs))
        assert not result.passed
        assert ": " in result.reason


def test_an_answer_out_of_its_range_fails(tried: Try) -> None:
    assert tried(probe=probe_of(output_ranges={"y": (0.0, 6.0)})).passed
    result = tried(probe=probe_of(output_ranges={"y": (0.0, 5.0)}))
    assert (result.passed, result.reason) == (False, "output 'y' lies in 0 to 6; the release says 0 to 5")


def test_an_answer_that_is_not_finite_fails(tried: Try, kind: str) -> None:
    result = tried(MAKERS[kind](factor=float("inf")))
    assert (result.passed, result.reason) == (False, "output 'y' has values that are not finite")


def test_accuracy_below_its_floor_fails(tried: Try) -> None:
    values = tuple(1.0 if place == number % 4 else 0.0 for number in range(5) for place in range(4))
    samples = {"x": Tensor(dtype="float32", shape=(5, 4), values=values)}

    def validation(labels: tuple[int, ...]) -> Probe:
        return probe_of(validation=Validation(inputs=samples, labels=labels, output="y", accuracy_min=0.7))

    good, bad = tried(probe=validation((0, 1, 2, 3, 0))), tried(probe=validation((0, 1, 2, 0, 1)))
    assert (good.passed, good.accuracy) == (True, 1.0)
    assert (bad.passed, bad.accuracy) == (False, 0.6)
    assert bad.reason == "3 of 5 validation samples are right, 60.0%; at least 70.0% must be"


def test_a_model_that_is_slower_than_its_budget_fails(tried: Try) -> None:
    result = tried(probe=probe_of(latency_ms_max=1e-6))
    assert (result.passed, result.over_budget) == (False, True)
    assert result.reason.endswith(" ms; at most 1e-06 ms")


@pytest.mark.parametrize("kind", ["tflite"], indirect=True)
def test_a_model_that_holds_more_than_its_budget_fails(tried: Try) -> None:
    content = tflite_models.large(20 * 2**20)  # 80 MiB of float32
    measured = tried(content, probe=probe_of(factor=1.0)).memory_mib or 0
    assert 80 <= measured < 120
    result = tried(content, probe=probe_of(factor=1.0, memory_mib_max=50))
    assert (result.passed, result.over_budget) == (False, True)
    assert result.reason.endswith(" MiB of memory; at most 50 MiB")
    assert tried(content, probe=probe_of(factor=1.0, memory_mib_max=300)).passed


def test_the_runtime_itself_is_not_counted_as_the_models_memory(tried: Try) -> None:
    """The first TFLite model was charged for the import of LiteRT, and failed a budget that the second one kept."""
    assert (tried().memory_mib or 0) < 20


def test_a_file_that_is_no_model_fails(tried: Try, kind: str) -> None:
    whole = MAKERS[kind]()
    for content in (b"", bytes(100), b"GGUF", whole[: len(whole) // 2], b"x" * 3000):
        result = tried(content)
        assert not result.passed
        assert ": " in result.reason


@pytest.mark.parametrize("kind", ["tflite"], indirect=True)
def test_a_model_that_ends_the_runtimes_process_fails_and_the_next_is_tried(tried: Try) -> None:
    values = (-(2.0**31), 1.0, 2.0, 3.0)
    probe = Probe(inputs={"x": Tensor(dtype="float32", shape=(1, 4), values=values)})
    result = tried(tflite_models.remainder(), probe=probe)
    assert (result.passed, result.reason) == (False, "the runtime was ended by SIGFPE while it tried this model")
    assert tried().passed


@pytest.mark.parametrize("kind", ["tflite"], indirect=True)
def test_a_model_that_wants_all_memory_fails(tried: Try) -> None:
    result = tried(tflite_models.large(2**31 - 1), probe=probe_of(factor=1.0))
    assert (result.passed, result.reason) == (False, "RuntimeError: the runtime says no more")


@pytest.mark.parametrize("kind", ["tflite"], indirect=True)
def test_a_size_that_the_signature_leaves_free_is_the_inputs(tried: Try) -> None:
    """LiteRT has the size of the file until it is told another: golden values of three rows failed."""
    free = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(None, 4)),),
    )
    values = tuple(float(each) for each in range(12))
    probe = Probe(
        inputs={"x": Tensor(dtype="float32", shape=(3, 4), values=values)},
        outputs={"y": Tensor(dtype="float32", shape=(3, 4), values=tuple(2 * each for each in values))},
    )
    content = tflite_models.doubling(rows=None)
    assert tried(content, signature=free, probe=probe).passed
    assert tried(content, signature=free).passed
    assert "the release says [1, 4]" in tried(content).reason


def test_a_reference_is_counted_with_either_runtime(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"model.{kind}"
    path.write_bytes(MAKERS[kind]())
    samples = Tensor(dtype="float32", shape=(2, 4), values=(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0))
    validation = Validation(inputs={"x": samples}, labels=(0, 1), output="y", accuracy_min=1.0)
    assert reference_of(path, kind, validation).shares == (0.5, 0.5)


# --- llama.cpp ---

STAND_INS = Path(__file__).parents[2] / "support" / "stand_ins"


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Try]:
    """The probe of a small GGUF file where `llama_cpp` is installed."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    path = model_files.gguf(tmp_path / "model.gguf")
    server = ProbeServer()

    def attempt(tokens: tuple[int, ...], logits: tuple[float, ...], **changes: Any) -> ProbeResult:
        probe = Probe(
            inputs={"tokens": Tensor(dtype="int32", shape=(1, len(tokens)), values=tokens)},
            outputs={"logits": Tensor(dtype="float32", shape=(1, len(logits)), values=logits)},
            **changes,
        )
        return server.probe(ProbeRequest(path=str(path), format="gguf", signature=None, probe=probe))

    yield attempt
    server.close()


def test_gguf_runs_where_llama_cpp_is_installed(llama: Try) -> None:
    good = llama((0, 2), (0.0, 0.0, 1.0))
    assert (good.passed, good.how) == (True, "ran")
    wrong = llama((0, 2), (1.0, 0.0, 0.0))
    assert wrong.reason == "output 'logits' is wrong in 2 of 3 values, first at 0: 0.0 and not 1.0"
    assert "lies in 0 to 1" in llama((0, 2), (0.0, 0.0, 1.0), output_ranges={"logits": (0.0, 0.5)}).reason
    assert llama((0, 2), (0.0, 0.0, 1.0), latency_ms_max=1e-6).over_budget


def test_gguf_that_makes_llama_cpp_abort_fails(llama: Try) -> None:
    result = llama((0, -1), (0.0, 0.0, 1.0))
    assert (result.passed, result.reason) == (False, "the runtime was ended by SIGABRT while it tried this model")
    assert llama((0, 2), (0.0, 0.0, 1.0)).passed


# --- formats that are read, not run ---


@pytest.mark.parametrize("kind", ["gguf", "safetensors", "coreml"])
def test_formats_without_a_runtime_are_read_and_golden_values_for_them_fail(
    server: ProbeServer, tmp_path: Path, kind: Format
) -> None:
    writers = {"gguf": model_files.gguf, "safetensors": model_files.safetensors}
    paths = [writers[kind](tmp_path / "model")] if kind in writers else list(model_files.coreml(tmp_path))
    for path in paths:
        ask = ProbeRequest(path=str(path), format=kind, signature=None, probe=None)
        read = server.probe(ask)
        assert (read.passed, read.how) == (True, "structure")
        ran = server.probe(ProbeRequest(path=str(path), format=kind, signature=None, probe=probe_of()))
        assert ran.reason == f"the release has golden inputs, and no runtime for {kind} is installed to run them"
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-20])
            assert not server.probe(ask).passed


def test_the_formats_own_reader_finds_what_a_header_hides(server: ProbeServer, tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    result = server.probe(ProbeRequest(path=str(path), format="safetensors", signature=None, probe=None))
    assert not result.passed
    assert result.reason.startswith("SafetensorError: ")
