"""The judgement of a probe, on models that are a function: each limit from both sides, each reason whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from whimbrel import limits
from whimbrel.agent.probes import golden
from whimbrel.agent.probes.golden import classes_of, judge
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.release import Probe, Signature, Tensor, TensorSpec, Validation

X = TensorSpec(name="x", dtype="float32", shape=("batch", 2))
Y = TensorSpec(name="y", dtype="float32", shape=("batch", 2))


class Model:
    """`answer` of x is y."""

    def __init__(self, answer: Callable[[Any], Any], *, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
        self.answer, self.inputs, self.outputs = answer, inputs, outputs
        self.runs = 0

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.runs += 1
        answer = self.answer(inputs["x"])
        return answer if isinstance(answer, dict) else {"y": answer}


def tensor(*values: float, dtype: str = "float32") -> Tensor:
    return Tensor(dtype=dtype, shape=(1, len(values)), values=values)


def judged(
    answer: Callable[[Any], Any],
    probe: Probe | None = None,
    *,
    signature: Signature | None = None,
    inputs: list[TensorSpec] | None = None,
) -> ProbeResult:
    model = Model(answer, inputs=[X] if inputs is None else inputs, outputs=[Y])
    return judge(model, ProbeRequest(path="m", format="onnx", signature=signature, probe=probe), lambda _: None)


def expecting(*values: float, **changes: Any) -> Probe:
    return Probe(inputs={"x": tensor(1.0, 2.0)}, outputs={"y": tensor(*values)}, **changes)


@pytest.mark.parametrize(
    ("answer", "probe", "reason"),
    [
        ([1.0, 2.0], expecting(1.0, 2.0), ""),
        ([1.0, 2.5], expecting(1.0, 2.0, absolute_tolerance=0.5), ""),
        ([1.0, 3.0], expecting(1.0, 2.0, relative_tolerance=0.5), ""),
        ([1.0, 3.5], expecting(1.0, 2.0, absolute_tolerance=0.5, relative_tolerance=0.5), ""),
        ([0.5, 2.0], expecting(1.0, 2.0, absolute_tolerance=0.5), ""),
        ([1.0, -3.0], expecting(1.0, -2.0, relative_tolerance=0.5), ""),
        (
            [1.0, 2.625],
            expecting(1.0, 2.0, absolute_tolerance=0.5),
            "output 'y' is wrong in 1 of 2 values, first at 1: 2.625 and not 2.0",
        ),
        ([0.0, 0.0], expecting(1.0, 2.0), "output 'y' is wrong in 2 of 2 values, first at 0: 0.0 and not 1.0"),
        ([1.0], expecting(1.0, 2.0), "output 'y' has shape [1, 1]; expected [1, 2]"),
        ([1.0, 2.0], expecting(1.0, 2.0, output_ranges={"y": (1.0, 2.0)}), ""),
        (
            [1.0, 2.0],
            expecting(1.0, 2.0, output_ranges={"y": (1.5, 2.0)}),
            "output 'y' lies in 1 to 2; the release says 1.5 to 2",
        ),
        (
            [1.0, 2.0],
            expecting(1.0, 2.0, output_ranges={"y": (1.0, 1.5)}),
            "output 'y' lies in 1 to 2; the release says 1 to 1.5",
        ),
        (
            [1.0, 2.0],
            expecting(1.0, 2.0, output_ranges={"z": (1.0, 1.5)}),
            "the model gave no output 'z'; it gave ['y']",
        ),
    ],
)
def test_an_answer_is_right_up_to_its_tolerance_and_else_says_where_it_is_wrong(
    answer: list[float], probe: Probe, reason: str
) -> None:
    result = judged(lambda _: np.array([answer], np.float32), probe)
    assert (result.passed, result.reason) == (not reason, reason)
    assert result.how == ("" if reason else "ran")


def test_words_are_right_or_wrong_and_have_no_tolerance() -> None:
    probe = Probe(
        inputs={"x": tensor(1.0, 2.0)},
        outputs={"y": Tensor(dtype="str", shape=(1, 2), values=("yes", "no"))},
        absolute_tolerance=9.0,
    )
    assert judged(lambda _: np.array([["yes", "no"]]), probe).passed
    assert judged(lambda _: np.array([["yes", "on"]]), probe).reason == (
        "output 'y' is wrong in 1 of 2 values, first at 1: on and not no"
    )


def test_an_output_that_is_missing_is_named_with_those_that_are_there() -> None:
    result = judged(lambda x: {"z": x, "a": x}, expecting(1.0, 2.0))
    assert result.reason == "the model gave no output 'y'; it gave ['a', 'z']"


VALIDATION = Validation(
    inputs={"x": Tensor(dtype="float32", shape=(4, 2), values=(1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0))},
    output="y",
    labels=(0, 1, 0, 0),
    accuracy_min=0.75,
)


def test_accuracy_is_enough_at_its_floor_and_else_is_told_with_its_figures() -> None:
    right = judged(lambda x: x, Probe(validation=VALIDATION))
    assert (right.passed, right.accuracy, right.how) == (True, 0.75, "ran")
    wrong = judged(lambda x: x[:, ::-1], Probe(validation=VALIDATION))
    assert (wrong.passed, wrong.accuracy) == (False, 0.25)
    assert wrong.reason == "1 of 4 validation samples are right, 25.0%; at least 75.0% must be"
    missing = judged(lambda x: {"z": x}, Probe(validation=VALIDATION))
    assert (missing.reason, missing.accuracy) == ("the model gave no output 'y'; it gave ['z']", None)
    ranged = judged(lambda x: x * 9, Probe(validation=VALIDATION, output_ranges={"y": (0.0, 1.0)}))
    assert ranged.reason == "output 'y' lies in 0 to 9; the release says 0 to 1, for validation sample 0"


def test_a_class_is_the_greatest_value_or_a_whole_number_itself() -> None:
    model = Model(lambda x: x, inputs=[X], outputs=[Y])
    assert classes_of(model, VALIDATION) == [0, 1, 0, 1]
    assert model.runs == 4
    numbers = Model(lambda x: np.array([int(x[0, 1]) + 6]), inputs=[X], outputs=[Y])
    assert classes_of(numbers, VALIDATION) == [6, 7, 6, 7]
    one = Model(lambda _: np.array([0.9], np.float32), inputs=[X], outputs=[Y])
    assert classes_of(one, VALIDATION) == [0] * 4  # one share is no number of a class


@pytest.mark.parametrize(("limit_ms", "passed"), [(20.0, True), (19.9, False)])
def test_the_median_of_some_runs_is_the_latency(monkeypatch: pytest.MonkeyPatch, limit_ms: float, passed: bool) -> None:
    times = iter([second for run in (0.02, 0.5, 0.01, 0.02, 0.02) for second in (0.0, run)])
    monkeypatch.setattr(limits, "PROBE_RUNS", 5)
    monkeypatch.setattr(golden.time, "perf_counter", lambda: next(times))
    result = judged(lambda x: x, expecting(1.0, 2.0, latency_ms_max=limit_ms))
    assert (result.passed, result.over_budget, result.latency_ms) == (passed, not passed, 20.0)
    assert result.reason == ("" if passed else "an inference takes 20.0 ms; at most 19.9 ms")


def test_slow_runs_are_timed_no_longer_than_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(golden.time, "perf_counter", lambda: float(next(clock)))  # a second each
    monkeypatch.setattr(limits, "PROBE_TIMING_S", 3.0)
    model = Model(lambda x: x, inputs=[X], outputs=[Y])
    request = ProbeRequest(path="m", format="onnx", probe=expecting(1.0, 2.0))
    assert judge(model, request, lambda _: None).latency_ms == 1000.0
    assert model.runs == 1 + 3


def spec(name: str, dtype: str, *shape: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        ([X], ""),
        ([spec("x", "float32", "rows", 2)], ""),
        ([spec("x", "", "batch", 9)], ""),  # numpy has no word for it
        ([spec("z", "float32", "batch", 2)], "the model's inputs are ['z']; the release says ['x']"),
        ([X, spec("z", "float32", 1)], "the model's inputs are ['x', 'z']; the release says ['x']"),
        ([spec("x", "int64", "batch", 2)], "input 'x' is int64; the release says float32"),
        ([spec("x", "float32", "batch", 3)], "input 'x' has shape ['batch', 3]; the release says ['batch', 2]"),
        ([spec("x", "float32", 1, 2)], "input 'x' has shape [1, 2]; the release says ['batch', 2]"),
        ([spec("x", "float32", "batch")], "input 'x' has shape ['batch']; the release says ['batch', 2]"),
    ],
)
def test_a_model_has_the_signature_that_the_release_says_or_it_is_said_what_differs(
    loaded: list[TensorSpec], reason: str
) -> None:
    signature = Signature(inputs=(X,), outputs=(Y,))
    result = judged(lambda x: x, expecting(1.0, 2.0), signature=signature, inputs=loaded)
    assert (result.passed, result.reason) == (not reason, reason)


def test_without_golden_values_and_without_a_smoke_test_only_the_structure_is_claimed() -> None:
    assert judged(lambda _: 1 / 0, Probe(smoke=False)) == ProbeResult(passed=True, how="structure")
