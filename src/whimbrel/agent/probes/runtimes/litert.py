"""TFLite through LiteRT: one thread, CPU."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from whimbrel.model.release import TensorSpec


class LiteRtModel:
    """A `golden.Model`."""

    def __init__(self, path: Path) -> None:
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.inputs = [_spec(each) for each in self._inputs]
        self.outputs = [_spec(each) for each in self._outputs]
        self._shapes = [(each["index"], tuple(int(size) for size in each["shape"])) for each in self._inputs]

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        missing = [each["name"] for each in self._inputs if each["name"] not in inputs]
        if missing:
            raise ValueError(f"the inputs have no {missing[0]!r}; they have {sorted(inputs)}")
        given = [(each["index"], np.asarray(inputs[each["name"]])) for each in self._inputs]
        self._fit([(index, array.shape) for index, array in given])
        for index, array in given:
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return {each["name"]: self._interpreter.get_tensor(each["index"]) for each in self._outputs}

    def _fit(self, shapes: list[tuple[int, tuple[int, ...]]]) -> None:
        """Tell the interpreter the sizes that the signature leaves free. Raises `ValueError`."""
        if shapes == self._shapes:
            return
        self._shapes = []  # after a refused size some inputs are resized and others not
        for index, shape in shapes:
            self._interpreter.resize_tensor_input(index, shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _spec(details: Any) -> TensorSpec:
    signature = details.get("shape_signature")
    shape = details["shape"] if signature is None or not len(signature) else signature
    return TensorSpec(
        name=details["name"],
        dtype=np.dtype(details["dtype"]).name,
        shape=tuple(int(size) if size >= 0 else None for size in shape),
    )
