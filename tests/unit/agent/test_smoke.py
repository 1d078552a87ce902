"""Made-up inputs find models that answer nonsense, and fail no good one: through real runtimes in the real cage."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from support import shadow_models, tflite_models
from support.repository import Repository, Server, onnx_model
from whimbrel import Agent
from whimbrel.agent.probes import ProbeServer
from whimbrel.agent.probes.smoke import made_up, smoke_test
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.release import Probe, TensorSpec

FLOAT, WHOLE = TensorProto.FLOAT, TensorProto.INT64
Try = Callable[..., ProbeResult]


@pytest.fixture(scope="module")
def server() -> Iterator[ProbeServer]:
    made = ProbeServer()
    yield made
    made.close()


@pytest.fixture
def tried(server: ProbeServer, tmp_path: Path) -> Try:
    def attempt(content: bytes, kind: Any = "onnx", **fields: Any) -> ProbeResult:
        path = tmp_path / f"model.{kind}"
        path.write_bytes(content)
        return server.probe(ProbeRequest(path=str(path), format=kind, probe=Probe(**fields) if fields else None))

    return attempt


def onnx(*nodes: Any, kind: int = FLOAT, shape: Any = (1, 4), gives: Any = (1, 4), **constants: Any) -> bytes:
    """A model of these nodes, from `x` to `y` (float32)."""
    held = [helper.make_tensor(name, FLOAT, np.shape(value), np.ravel(value)) for name, value in constants.items()]
    graph = helper.make_graph(
        [
            helper.make_node(*node[:-1], **node[-1]) if isinstance(node[-1], dict) else helper.make_node(*node)
            for node in nodes
        ],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", FLOAT, gives)],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


DOUBLE = ("Add", ["x", "x"], ["y"])
ALWAYS_NAN = (("Sub", ["x", "x"], ["n"]), ("Div", ["n", "n"], ["y"]))
NORM = (("ReduceL2", ["x"], ["n"]), ("Div", ["x", "n"], ["y"]))  # of zeros: 0/0
EMBEDDING = ("Gather", ["table", "x"], ["y"])


def test_a_good_model_without_golden_inputs_has_run(tried: Try) -> None:
    for content, kind in ((onnx(DOUBLE), "onnx"), (tflite_models.doubling(), "tflite")):
        result = tried(content, kind)
        assert (result.passed, result.how, result.reason) == (True, "smoke", "")
        assert (result.latency_ms or 0) > 0


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_model_that_answers_nan_or_infinity_fails(tried: Try, kind: str, factor: float) -> None:
    """It was activated: finiteness was looked at with golden inputs only."""
    make = {"onnx": shadow_models.good, "tflite": tflite_models.doubling}[kind]
    result = tried(make(factor=factor), kind)
    assert not result.passed
    assert result.reason == "output 'y' has values that are not finite, for zeros and for random inputs"


def test_a_model_whose_numbers_meet_nan_on_every_input_fails(tried: Try) -> None:
    assert not tried(onnx(*ALWAYS_NAN)).passed


def test_a_good_model_that_divides_by_the_norm_of_zeros_passes(tried: Try) -> None:
    result = tried(onnx(*NORM), output_ranges={"y": (0, 1)})
    assert (result.passed, result.how) == (True, "smoke")


def test_an_answer_out_of_its_range_fails(tried: Try) -> None:
    assert tried(onnx(DOUBLE), output_ranges={"y": (0, 2)}).passed
    result = tried(onnx(DOUBLE), output_ranges={"y": (0, 0.1)})
    assert not result.passed
    assert result.reason.endswith("the release says 0 to 0.1, for made-up inputs")
    assert "no output 'z'" in tried(onnx(DOUBLE), output_ranges={"z": (0, 1)}).reason


def test_latency_over_its_budget_is_measured_without_golden_inputs(tried: Try) -> None:
    result = tried(onnx(DOUBLE), latency_ms_max=1e-6)
    assert (result.passed, result.over_budget) == (False, True)
    assert tried(onnx(DOUBLE), latency_ms_max=10_000).passed


def test_a_size_that_is_free_is_one(tried: Try) -> None:
    assert tried(onnx(DOUBLE, shape=("batch", 4), gives=("batch", 4))).how == "smoke"
    free = TensorSpec(name="x", dtype="float32", shape=("batch", None, 4))
    assert [arrays["x"].shape for arrays in made_up([free]) or ()] == [(1, 1, 4), (1, 1, 4)]


def test_a_good_model_that_needs_more_rows_than_one_passes(tried: Try) -> None:
    node = ("Conv", ["x", "w"], ["y"], {"kernel_shape": [3]})
    content = onnx(node, shape=(1, 1, "n"), gives=(1, 1, "m"), w=np.ones((1, 1, 3)))
    result = tried(content)
    assert (result.passed, result.how) == (True, "structure")
    with_rows = onnx(node, shape=(1, 1, 9), gives=(1, 1, 7), w=np.ones((1, 1, 3)))
    assert tried(with_rows).how == "smoke"


def test_tokens_are_few_and_a_good_embedding_passes(tried: Try) -> None:
    for rows in (1, 2, 100):  # of a table with one row, 1 is no token
        result = tried(onnx(EMBEDDING, kind=WHOLE, shape=(1,), gives=(1, 4), table=np.ones((rows, 4))))
        assert (result.passed, result.how) == (True, "smoke")


def test_an_embedding_that_is_nan_for_zero_only_passes(tried: Try) -> None:
    table = np.array([[np.nan] * 4, [1.0] * 4])
    assert tried(onnx(EMBEDDING, kind=WHOLE, shape=(1,), table=table)).passed
    assert not tried(onnx(EMBEDDING, kind=WHOLE, shape=(1,), table=np.full((2, 4), np.nan))).passed


def test_a_good_model_that_zero_ends_passes(tried: Try) -> None:
    """A runtime that divides by a whole number of zero ends the process: no input that anybody gives does."""
    whole = "int32", (1, 4), None
    mod = ("FLOOR_MOD", ["seven", "x"], "y", tflite_models._schema().FloorModOptionsT())
    content = tflite_models.build({"seven": ("int32", (1, 4), [7] * 4), "x": whole, "y": whole}, [mod])
    assert tried(content, "tflite").passed


def test_a_publisher_may_go_without(tried: Try) -> None:
    result = tried(onnx(*ALWAYS_NAN), smoke=False)
    assert (result.passed, result.how) == (True, "structure")


def test_a_version_that_answers_nan_is_not_activated(tmp_path: Path, server: ProbeServer) -> None:
    repository = Repository()
    repository.release("detector", 1, onnx_model(factor=2.0))
    repository.release("detector", 2, onnx_model(factor=float("nan")))
    repository.policy("detector", baseline=1)
    with (
        Server(repository) as running,
        Agent.open(
            tmp_path, server=running.url, root=repository.root_bytes, models=["detector"], probes=server
        ) as agent,
    ):
        agent.cycle(force=True)
        assert agent.status()["models"]["detector"]["serial"] == 1
        for _ in range(3):
            with agent.session("detector"):
                pass
        repository.policy("detector", baseline=2, known_good=(1,))
        for _ in range(3):
            agent.cycle(force=True)
        assert agent.status()["models"]["detector"]["serial"] == 1


# --- the judgement by itself ---

ROW = TensorSpec(name="x", dtype="float32", shape=(1, 4))


def judged(run: Callable[[Any], Any], *takes: TensorSpec, gives: Any = (1, 4), **probe: Any) -> tuple[str, bool]:
    output = TensorSpec(name="y", dtype="float32", shape=gives)
    problem, inputs = smoke_test(run, takes=takes or (ROW,), gives=(output,), probe=Probe(**probe))
    return problem, inputs is not None


def raising(error: Exception) -> Callable[[Any], Any]:
    def run(_: Any) -> Any:
        raise error

    return run


def test_a_wrong_shape_fails_where_no_size_was_made_up() -> None:
    said = "output 'y' has shape [1, 4]; the release says [1, 5], for made-up inputs"
    assert judged(lambda inputs: {"y": inputs["x"]}, gives=(1, 5)) == (said, True)
    assert judged(lambda inputs: {"y": inputs["x"]}, gives=("n", 4)) == ("", True)
    free = TensorSpec(name="x", dtype="float32", shape=("n", 4))
    assert judged(lambda inputs: {"y": inputs["x"]}, free, gives=(32, 4)) == ("", True)


def test_a_model_that_never_runs_fails_only_where_no_more_than_values_was_made_up() -> None:
    run = raising(RuntimeError("no kernel"))
    assert judged(run) == ("it does not run on inputs of its own shapes: RuntimeError: no kernel", False)
    for dtype, shape in (("float32", ("n", 4)), ("int64", (1, 4)), ("str", (1,)), ("float32", ())):
        assert judged(run, TensorSpec(name="x", dtype=dtype, shape=shape)) == ("", False)


def test_a_run_that_is_short_of_memory_proves_nothing_without_a_budget() -> None:
    for error in (MemoryError(), RuntimeError("Failed to allocate memory for requested buffer")):
        assert judged(raising(error)) == ("", False)
        with pytest.raises(MemoryError):
            judged(raising(error), memory_mib_max=10)


def test_inputs_that_no_array_holds_are_not_made_up() -> None:
    for dtype in ("", "bfloat16", "seq(tensor(float))"):
        assert made_up([TensorSpec(name="x", dtype=dtype, shape=(1,))]) is None
    assert made_up([TensorSpec(name="x", dtype="float32", shape=(1 << 20, 64))]) is None


def test_inputs_are_the_same_on_every_device() -> None:
    takes = [ROW, TensorSpec(name="t", dtype="int64", shape=(2,)), TensorSpec(name="s", dtype="str", shape=(1,))]
    (zeros, drawn), (_, again) = made_up(takes) or ({}, {}), made_up(takes) or ({}, {})
    assert not zeros["x"].any()
    assert (zeros["t"].tolist(), zeros["s"].tolist()) == ([0, 0], [""])
    assert (drawn["t"].tolist(), drawn["s"].tolist()) == ([1, 1], ["a"])
    assert ((drawn["x"] >= 0) & (drawn["x"] < 1)).all()
    assert (drawn["x"] == again["x"]).all()
