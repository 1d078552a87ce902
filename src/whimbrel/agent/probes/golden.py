"""Does a model answer as its publisher says? The judgement is the same for every runtime."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from whimbrel import limits
from whimbrel.agent.probes.answers import not_finite
from whimbrel.agent.probes.smoke import Arrays, only_values_are_made_up, smoke_test
from whimbrel.device.ports import ProbeRequest, ProbeResult
from whimbrel.model.release import Dimension, Probe, Tensor, TensorSpec, Validation

Keep = Callable[[ProbeResult], None]

_TEXT = "str", "string", "object"


class Model(Protocol):
    """A loaded model. A tensor's dtype is "" where numpy has no word for it."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""


def judge(model: Model, request: ProbeRequest, keep: Keep) -> ProbeResult:
    """Check signature, golden values, finiteness, range, latency and accuracy. The first failure is the reason.

    Without golden values and validation samples made-up inputs are run instead (`smoke.py`). `keep` takes the result
    that holds if the runtime ends the process on an input that nobody would give.
    """
    if request.signature is not None:
        for what, loaded, released in (
            ("input", model.inputs, request.signature.inputs),
            ("output", model.outputs, request.signature.outputs),
        ):
            problem = _difference(what, loaded, released)
            if problem:
                return ProbeResult(passed=False, reason=problem)
    probe = request.probe or Probe()
    timed: Arrays | None = None  # inputs to measure an inference with
    accuracy: float | None = None
    if probe.inputs:
        timed = {name: array_of(tensor) for name, tensor in probe.inputs.items()}
        outputs = model.run(timed)
        problem = _wrong_values(outputs, probe) or _out_of_range(outputs, probe)
        if problem:
            return ProbeResult(passed=False, reason=problem)
    elif probe.validation is not None:
        timed = {name: array_of(tensor)[:1] for name, tensor in probe.validation.inputs.items()}
    elif probe.smoke:
        if not only_values_are_made_up(model.inputs):
            keep(ProbeResult(passed=True, how="structure"))
        gives = request.signature.outputs if request.signature is not None else model.outputs
        problem, timed = smoke_test(model.run, takes=model.inputs, gives=gives, probe=probe)
        if problem:
            return ProbeResult(passed=False, reason=problem[:1000])
    latency_ms = _latency_ms(model, timed) if timed is not None else None
    limit = probe.latency_ms_max
    if latency_ms is not None and limit is not None and latency_ms > limit:
        reason = f"an inference takes {latency_ms:.1f} ms; at most {limit:g} ms"
        return ProbeResult(passed=False, reason=reason, latency_ms=latency_ms, over_budget=True)
    if probe.validation is not None:
        problem, accuracy = _validated(model, probe, probe.validation)
        if problem:
            return ProbeResult(passed=False, reason=problem, accuracy=accuracy, latency_ms=latency_ms)
    how = "ran" if probe.inputs or probe.validation else "smoke" if timed is not None else "structure"
    return ProbeResult(passed=True, how=how, latency_ms=latency_ms, accuracy=accuracy)


def _validated(model: Model, probe: Probe, validation: Validation) -> tuple[str, float | None]:
    samples = {name: array_of(tensor) for name, tensor in validation.inputs.items()}
    right = 0
    for place, label in enumerate(validation.labels):
        outputs = model.run({name: array[place : place + 1] for name, array in samples.items()})
        if validation.output not in outputs:
            return f"the model gave no output {validation.output!r}; it gave {sorted(outputs)}", None
        problem = not_finite(outputs) or _out_of_range(outputs, probe)
        if problem:
            return f"{problem}, for validation sample {place}", None
        right += _class_of(np.asarray(outputs[validation.output])) == label
    accuracy = right / len(validation.labels)
    if accuracy < validation.accuracy_min:
        counted = f"{right} of {len(validation.labels)} validation samples are right"
        return f"{counted}, {accuracy:.1%}; at least {validation.accuracy_min:.1%} must be", accuracy
    return "", accuracy


def classes_of(model: Model, validation: Validation) -> list[int]:
    """The class that the model gives to each sample."""
    samples = {name: array_of(tensor) for name, tensor in validation.inputs.items()}
    return [
        _class_of(np.asarray(model.run({n: a[place : place + 1] for n, a in samples.items()})[validation.output]))
        for place in range(len(validation.labels))
    ]


def _class_of(output: Any) -> int:
    return int(output.ravel()[0]) if output.size == 1 and output.dtype.kind in "iub" else int(np.argmax(output))


def _out_of_range(outputs: dict[str, Any], probe: Probe) -> str:
    for name, (least, greatest) in probe.output_ranges.items():
        if name not in outputs:
            return f"the model gave no output {name!r}; it gave {sorted(outputs)}"
        value = np.asarray(outputs[name])
        if value.size and not (least <= value.min() and value.max() <= greatest):
            interval = f"{value.min():g} to {value.max():g}"
            return f"output {name!r} lies in {interval}; the release says {least:g} to {greatest:g}"
    return ""


def array_of(tensor: Tensor) -> Any:
    """A golden tensor as a numpy array."""
    dtype = np.dtype(object) if tensor.dtype in _TEXT else np.dtype(tensor.dtype)
    return np.array(tensor.values, dtype=dtype).reshape(tensor.shape)


def _difference(what: str, loaded: Sequence[TensorSpec], released: Sequence[TensorSpec]) -> str:
    names, expected = [spec.name for spec in loaded], [spec.name for spec in released]
    if sorted(names) != sorted(expected):
        return f"the model's {what}s are {names}; the release says {expected}"
    by_name = {spec.name: spec for spec in loaded}
    for spec in released:
        other = by_name[spec.name]
        if other.dtype and spec.dtype and not _same_dtype(other.dtype, spec.dtype):
            return f"{what} {spec.name!r} is {other.dtype}; the release says {spec.dtype}"
        if other.dtype and not _same_shape(other.shape, spec.shape):
            return f"{what} {spec.name!r} has shape {list(other.shape)}; the release says {list(spec.shape)}"
    return ""


def _same_dtype(one: str, other: str) -> bool:
    return one == other or (one in _TEXT and other in _TEXT)


def _same_shape(one: Sequence[Dimension], other: Sequence[Dimension]) -> bool:
    return len(one) == len(other) and all(
        a == b if isinstance(a, int) and isinstance(b, int) else isinstance(a, int) == isinstance(b, int)
        for a, b in zip(one, other, strict=True)
    )


def _wrong_values(outputs: dict[str, Any], probe: Probe) -> str:
    problem = not_finite(outputs)
    if problem:
        return problem
    for name, tensor in probe.outputs.items():
        if name not in outputs:
            return f"the model gave no output {name!r}; it gave {sorted(outputs)}"
        expected, value = array_of(tensor), np.asarray(outputs[name])
        if value.shape != expected.shape:
            return f"output {name!r} has shape {list(value.shape)}; expected {list(expected.shape)}"
        if expected.dtype.kind not in "fiub" or value.dtype.kind not in "fiub":
            wrong = np.asarray(value.astype(object) != expected.astype(object))
        else:
            distance = np.abs(value.astype(np.float64) - expected.astype(np.float64))
            allowed = probe.absolute_tolerance + probe.relative_tolerance * np.abs(expected.astype(np.float64))
            wrong = ~(distance <= allowed)
        if wrong.any():
            place = int(np.argmax(wrong.ravel()))
            return (
                f"output {name!r} is wrong in {int(wrong.sum())} of {wrong.size} values, first at {place}: "
                f"{value.ravel()[place]!s} and not {expected.ravel()[place]!s}"
            )
    return ""


def _latency_ms(model: Model, inputs: Arrays) -> float:
    taken: list[float] = []
    while len(taken) < limits.PROBE_RUNS and sum(taken) < 1000 * limits.PROBE_TIMING_S:
        begin = time.perf_counter()
        model.run(inputs)
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken)
