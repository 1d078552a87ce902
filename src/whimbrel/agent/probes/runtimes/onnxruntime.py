"""ONNX through onnxruntime: one thread, CPU."""

import re
from pathlib import Path
from typing import Any

import onnxruntime

from whimbrel.model.release import TensorSpec

_TENSOR = re.compile(r"^tensor\((\w+)\)$")
_DTYPES = {"float": "float32", "double": "float64", "string": "str"}  # the others are numpy's words already


class OnnxModel:
    """A `golden.Model`."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [_spec(each) for each in self._session.get_inputs()]
        self.outputs = [_spec(each) for each in self._session.get_outputs()]

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def _spec(node: Any) -> TensorSpec:
    match = _TENSOR.match(node.type)
    dtype = _DTYPES.get(match[1], match[1]) if match else ""
    return TensorSpec(name=node.name, dtype=dtype, shape=tuple(node.shape) if match else ())
