"""Tiny valid model files of every format, made by the formats' own writers."""

import subprocess
import sys
from pathlib import Path

import numpy as np

_COREML = """
import sys
import numpy as np
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.models.utils import save_spec
builder = NeuralNetworkBuilder([("x", datatypes.Array(4))], [("y", datatypes.Array(2))])
builder.add_inner_product("fc", np.ones((2, 4), np.float32), np.zeros(2, np.float32), 4, 2, True, "x", "y")
builder.spec.description.metadata.author = "somebody"
save_spec(builder.spec, sys.argv[1] + "/tiny.mlmodel")
save_spec(builder.spec, sys.argv[1] + "/tiny.mlpackage")
"""


def coreml(folder: Path) -> tuple[Path, Path]:
    """A model file and a package. In a child process: coremltools warns when it is imported."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", _COREML, str(folder)], check=True, capture_output=True)
    return folder / "tiny.mlmodel", folder / "tiny.mlpackage"


def onnx(path: Path) -> Path:
    """y = x @ w + b, from batch x 4 to batch x 2."""
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.ones((4, 2), np.float32), "w"),
            numpy_helper.from_array(np.zeros(2, np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests")
    helper.set_model_props(model, {"author": "somebody"})
    save(model, path, "protobuf")
    return path


def safetensors(path: Path) -> Path:
    """Two tensors, most of it float16."""
    from safetensors.numpy import save_file

    weights = {"w": np.zeros((8, 4), np.float16), "b": np.zeros(4, np.float32)}
    save_file(weights, path, metadata={"author": "somebody"})
    return path


def gguf(path: Path) -> Path:
    """A file with a small tokenizer and two tensors."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_file_type(1)
    writer.add_token_list(["a", "b", "c"])
    writer.add_tensor("w", np.zeros((8, 4), np.float16))
    writer.add_tensor("b", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tflite(path: Path) -> Path:
    """y = x @ w + b with int8 weights, from 1 x 4 to 1 x 2."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], kind: int, buffer: int) -> object:
        each = schema.TensorT()
        each.name, each.shape, each.type, each.buffer = name.encode(), shape, kind, buffer
        return each

    def buffer(content: bytes) -> object:
        each = schema.BufferT()
        each.data = list(content) or None
        return each

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    step = schema.OperatorT()
    step.inputs, step.outputs = [0, 1, 2], [3]
    step.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    step.builtinOptions = schema.FullyConnectedOptionsT()
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [1, 4], schema.TensorType.FLOAT32, 0),
        tensor("w", [2, 4], schema.TensorType.INT8, 1),
        tensor("b", [2], schema.TensorType.FLOAT32, 2),
        tensor("y", [1, 2], schema.TensorType.FLOAT32, 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [step]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(b""), buffer(bytes(8)), buffer(bytes(8))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
