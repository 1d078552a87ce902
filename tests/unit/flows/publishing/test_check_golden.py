"""Golden values that no device could run are said at publication."""

import pytest

from whimbrel.flows.publishing.check_golden import golden_objection
from whimbrel.model.release import Probe, Signature, Tensor, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 2)), TensorSpec(name="s", dtype="float32", shape=())),
    outputs=(TensorSpec(name="y", dtype="int64", shape=(None,)),),
)


def _tensor(*shape: int, dtype: str = "float32") -> Tensor:
    count = 1
    for size in shape:
        count *= size
    return Tensor(dtype=dtype, shape=shape, values=(0,) * count)


GOOD = {"x": _tensor(3, 2), "s": _tensor()}


def test_values_that_fit_are_taken_whatever_the_batch() -> None:
    assert golden_objection(Probe(inputs=GOOD, outputs={"y": _tensor(3, dtype="int64")}), SIGNATURE) is None
    assert golden_objection(Probe(), SIGNATURE) is None


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ({"x": _tensor(3, 2)}, {}, "no input 's'"),
        ({**GOOD, "z": _tensor(1)}, {}, "input 'z' is not one of the model's: s, x"),
        (GOOD, {"z": _tensor(1)}, "output 'z' is not one of the model's: y"),
        ({**GOOD, "x": _tensor(3, 3)}, {}, "shape [3, 3]; the model says ['batch', 2]"),
        ({**GOOD, "x": _tensor(2)}, {}, "shape [2]"),
        (GOOD, {"y": _tensor(3)}, "type float32; the model says int64"),
    ],
)
def test_values_that_do_not_fit_are_said(inputs: dict[str, Tensor], outputs: dict[str, Tensor], said: str) -> None:
    assert said in (golden_objection(Probe(inputs=inputs, outputs=outputs), SIGNATURE) or "")
