"""Read the metadata of a TFLite model with LiteRT's interpreter, which does not run it.

Called in the child process.
"""

from typing import Any

from whimbrel.model.release import TensorSpec
from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers.bounded import signature_of, tensor_spec, weights_of
from whimbrel.stores.model_readers.libraries import is_installed, without_library


def read(path: str) -> Inspection:
    """What the file says. Raises whatever the library raises."""
    if not is_installed("ai_edge_litert"):
        return without_library("tflite")
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1, experimental_preserve_all_tensors=False)

    def spec(details: dict[str, Any]) -> TensorSpec:
        shape = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
        return tensor_spec(details["name"], np.dtype(details["dtype"]).name, shape.tolist())

    tensors = interpreter.get_tensor_details()
    edges = {each["index"] for each in (*interpreter.get_input_details(), *interpreter.get_output_details())}
    weights = weights_of(
        (
            (each["name"], np.dtype(each["dtype"]).name, each["shape"].tolist())
            for each in tensors
            if each["index"] not in edges
        ),
        {"signatures": ", ".join(sorted(interpreter.get_signature_list())[:16])},
    )
    del weights["details"]["parameters"]  # the interpreter does not tell weights from what lies between layers
    return Inspection(
        format="tflite",
        signature=signature_of(map(spec, interpreter.get_input_details()), map(spec, interpreter.get_output_details())),
        **weights,
    )
