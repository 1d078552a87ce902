"""A call's arrays on their way to the shadow's worker, and how much of two answers agrees."""

from typing import Any

import numpy as np
import pytest

from whimbrel.agent.shadow.agreement import Tolerance, agreement, not_a_number
from whimbrel.agent.shadow.frames import body_bytes, pack, unpack
from whimbrel.errors import UntrustedInput


def test_arrays_come_as_they_were() -> None:
    inputs = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "text": np.array(["ein", "Wort"]), "n": np.int64(7)}
    frame = pack(inputs, {"y": np.array([True, False])})
    line, _, body = frame.partition(b"\n")
    assert body_bytes(line) == len(body)
    call = unpack(line, body)
    np.testing.assert_array_equal(call.inputs["x"], inputs["x"])
    assert call.inputs["text"].tolist() == ["ein", "Wort"]
    assert call.inputs["n"] == 7
    assert isinstance(call.output, dict)
    assert call.output["y"].tolist() == [True, False]


A = np.array([[0.1, 0.9], [0.6, 0.4]], np.float32)


@pytest.mark.parametrize(
    ("active", "candidate", "tolerance", "share"),
    [
        (A, A * 3, Tolerance(), 1.0),  # by class: the greatest is where it was
        (A, A[:, ::-1], Tolerance(), 0.0),
        (A, np.array([[0.1, 0.9], [0.4, 0.6]]), Tolerance(), 0.5),
        (A, A * 1.04, Tolerance("values", relative=0.05), 1.0),
        (A, A * 1.06, Tolerance("values", relative=0.05), 0.0),
        (A, A + 0.01, Tolerance("values", absolute=0.02), 1.0),
        (np.float32(2.0), np.float32(2.05), Tolerance(relative=0.05), 1.0),  # one number: by value
        (np.array([[1.0]]), np.array([[1.2]]), Tolerance(relative=0.05), 0.0),
        (np.array([3, 4]), np.array([3, 5]), Tolerance(relative=0.5), 0.5),  # whole numbers are equal or not
        (np.array([3, 4]), np.array([3, 5]), Tolerance("values", relative=0.5), 1.0),
        (np.array([[3, 4]]), np.array([[1, 9]]), Tolerance("class"), 1.0),
        (np.array(["a", "b"]), np.array(["a", "c"]), Tolerance(), 0.5),
        (A, A[:1], Tolerance(), 0.0),  # another shape
        (np.zeros((0, 2)), np.zeros((0, 2)), Tolerance(), 1.0),
        (np.array([np.inf, np.nan, 1.0]), np.array([np.inf, np.nan, 1.0]), Tolerance("values"), 1.0),
    ],
)
def test_how_much_of_an_output_agrees(active: Any, candidate: Any, tolerance: Tolerance, share: float) -> None:
    assert agreement({"y": active}, {"y": candidate}, tolerance) == pytest.approx(share)


def test_the_output_that_agrees_least_is_the_calls() -> None:
    both = {"y": A, "z": np.array([1, 2])}
    assert agreement(both, {"y": A, "z": np.array([1, 3])}, Tolerance()) == 0.5
    assert agreement(both, {"y": A}, Tolerance()) == 0.0
    assert agreement([A], {"y": A, "z": A}, Tolerance()) == 1.0
    assert agreement([A, A], {"y": A}, Tolerance()) == 0.0


def test_what_is_no_number_is_a_failure_unless_the_active_version_says_so_too() -> None:
    broken = {"y": np.array([np.nan], np.float32)}
    assert not_a_number({"y": np.array([1.0])}, broken) == "y"
    assert not_a_number(broken, broken) == ""


def test_what_is_no_number_and_no_text_does_not_travel() -> None:
    with pytest.raises(UntrustedInput, match="numbers, booleans and texts"):
        pack({"x": np.zeros(3, dtype=[("a", "i4")])})


def test_a_line_that_announces_more_than_may_come_is_refused() -> None:
    line = b'{"inputs":[{"name":"x","dtype":"<f4","shape":[1],"size_bytes":99999999999}]}'
    with pytest.raises(UntrustedInput, match="at most"):
        body_bytes(line)
