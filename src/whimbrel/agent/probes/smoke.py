"""The smoke test: a model whose release brings no inputs is run on made-up ones, and must give sane outputs.

1. Two runs: on zeros, and on a seeded draw (floats from [0, 1), whole numbers 1, truth values true, texts "a"). Random
   whole numbers would be tokens or classes that do not exist. A size that the signature leaves free is 1.
2. A good model must not fail for an input that nobody would give it. So NaN and infinity fail in both runs only: a norm
   of zeros divides by nothing. Where a run raises, this fails only if both do and no more than values was made up:
   every input is of floats, and of a given shape. The same holds where the runtime ends the process, or never answers.
3. The shape of an output is checked where all inputs had given shapes. `output_ranges` hold for any input, and so here.
4. Where a run is short of memory, and the release has no budget of it, nothing is proven: the cage's bound is ours.

Called in the caged child, by the judgement of golden values (`golden.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from whimbrel import limits
from whimbrel.agent.probes.answers import not_finite
from whimbrel.model.release import Probe, TensorSpec

Arrays = dict[str, Any]

_SEED = 20_260_305  # any number: the same on every device
_FLOATS = "float16", "float32", "float64"
_TEXT = "str", "string", "object"


class Smoke(NamedTuple):
    """`problem`: why the model fails, or "". `inputs`: what it answered last; None where it never did."""

    problem: str
    inputs: Arrays | None


def smoke_test(
    run: Callable[[Arrays], Arrays], *, takes: Sequence[TensorSpec], gives: Sequence[TensorSpec], probe: Probe
) -> Smoke:
    """Run a model that `takes` and `gives` these tensors on made-up inputs. Raises `MemoryError` over a budget."""
    made = made_up(takes)
    if made is None:
        return Smoke("", None)
    answers: list[tuple[Arrays, Arrays]] = []
    errors: list[Exception] = []
    for inputs in made:
        try:
            answers.append((inputs, run(inputs)))
        except Exception as error:  # runtimes raise errors of their own, without a common tree
            if _is_short_of_memory(error):
                if probe.memory_mib_max is not None:
                    raise MemoryError(str(error)) from error
                return Smoke("", None)
            errors.append(error)
    if not answers:
        words = f"it does not run on inputs of its own shapes: {type(errors[0]).__name__}: {errors[0]}"
        return Smoke(words if only_values_are_made_up(takes) else "", None)
    problem = _problem([outputs for _, outputs in answers], takes=takes, gives=gives, probe=probe, runs=len(made))
    return Smoke(problem, answers[-1][0])


def made_up(takes: Sequence[TensorSpec]) -> tuple[Arrays, Arrays] | None:
    """Zeros and a seeded draw for these inputs; None where one of them is no tensor that numpy knows, or very large."""
    chance = np.random.default_rng(_SEED)
    zeros: Arrays = {}
    drawn: Arrays = {}
    size_bytes = 0
    for spec in takes:
        shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
        is_text = spec.dtype in _TEXT
        try:
            dtype = np.dtype(object if is_text else spec.dtype or "unknown")
        except TypeError:  # bfloat16, float8, int4, or a sequence or map of tensors
            return None
        size_bytes += math.prod(shape) * dtype.itemsize
        if size_bytes > limits.SMOKE_INPUT_BYTES or dtype.kind not in "fciubO":
            return None
        zeros[spec.name] = np.full(shape, "", dtype) if is_text else np.zeros(shape, dtype)
        if dtype.kind in "fc":
            drawn[spec.name] = np.asarray(chance.random(shape), dtype)
        else:
            drawn[spec.name] = np.full(shape, "a" if is_text else 1, dtype)
    return zeros, drawn


def _problem(
    answers: Sequence[Arrays], *, takes: Sequence[TensorSpec], gives: Sequence[TensorSpec], probe: Probe, runs: int
) -> str:
    for outputs in answers:
        problem = _wrong_shape(outputs, gives) if all(map(_has_given_shape, takes)) else ""
        problem = problem or _finite_out_of_range(outputs, probe.output_ranges)
        if problem:
            return f"{problem}, for made-up inputs"
    not_finite_in = [problem for problem in map(not_finite, answers) if problem]
    if len(not_finite_in) == runs:
        return f"{not_finite_in[-1]}, for zeros and for random inputs"
    return ""


def _wrong_shape(outputs: Mapping[str, Any], gives: Sequence[TensorSpec]) -> str:
    for spec in gives:
        value = outputs.get(spec.name)
        if not isinstance(value, np.ndarray) or not spec.shape:  # no dimensions: a scalar, or a shape that is not known
            continue
        fits = len(value.shape) == len(spec.shape) and all(
            size == expected or not isinstance(expected, int)
            for size, expected in zip(value.shape, spec.shape, strict=True)
        )
        if not fits:
            return f"output {spec.name!r} has shape {list(value.shape)}; the release says {list(spec.shape)}"
    return ""


def _finite_out_of_range(outputs: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> str:
    for name, (least, greatest) in ranges.items():
        if name not in outputs:
            return f"the model gave no output {name!r}; it gave {sorted(outputs)}"
        value = outputs[name]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            continue
        value = value[np.isfinite(value)]
        if value.size and not (least <= value.min() and value.max() <= greatest):
            interval = f"{value.min():g} to {value.max():g}"
            return f"output {name!r} lies in {interval}; the release says {least:g} to {greatest:g}"
    return ""


def only_values_are_made_up(takes: Sequence[TensorSpec]) -> bool:
    """Whether all inputs are of floats and of a given shape, so that a model that cannot run on them is a bad one."""
    return all(_has_given_shape(spec) and spec.dtype in _FLOATS for spec in takes)


def _has_given_shape(spec: TensorSpec) -> bool:
    return bool(spec.shape) and all(isinstance(size, int) for size in spec.shape)


def _is_short_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "alloc" in str(error).lower()
