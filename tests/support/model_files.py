"""Tiny valid model files of every format, made by the formats' own writers."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from support import tflite_models

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


_COREML_PROGRAM = """
import sys
import coremltools
import numpy as np
from coremltools.converters.mil import Builder
weights = np.random.default_rng(1).random((64, 64), np.float32)
@Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 64))])
def program(x):
    return Builder.linear(x=x, weight=weights, name="y")
precision = coremltools.precision.FLOAT32
model = coremltools.convert(program, convert_to="mlprogram", skip_model_load=True, compute_precision=precision)
model.save(sys.argv[1])
"""


def coreml_program(folder: Path) -> Path:
    """A package of an ML program, whose weights lie in a file of their own."""
    package = folder / "program.mlpackage"
    for name, content in _coreml_program().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(content)
    return package


@cache
def _coreml_program() -> dict[str, bytes]:
    """The package's files; made once, since coremltools takes seconds to be imported."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "program.mlpackage"
        command = [sys.executable, "-W", "ignore", "-c", _COREML_PROGRAM, str(package)]
        subprocess.run(command, check=True, capture_output=True)
        files = (path for path in package.rglob("*") if path.is_file())
        return {path.relative_to(package).as_posix(): path.read_bytes() for path in files}


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


def gguf(
    path: Path,
    *,
    big_endian: bool = False,
    file_type: int | None = 1,
    shard: tuple[int, int] | None = None,
    tokens: int = 3,
) -> Path:
    """A file with a tokenizer and two tensors. `shard`: its place from 0, and how many there are."""
    from gguf import GGUFEndian, GGUFWriter

    writer = GGUFWriter(path, "llama", endianess=GGUFEndian.BIG if big_endian else GGUFEndian.LITTLE)
    writer.add_name("tiny")
    if file_type is not None:
        writer.add_file_type(file_type)
    if shard is not None:
        writer.add_uint16("split.no", shard[0])
        writer.add_uint16("split.count", shard[1])
    writer.add_token_list([f"token {number}" for number in range(tokens)])
    writer.add_tensor("w", np.zeros((8, 4), np.float16))
    writer.add_tensor("b", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tflite(path: Path) -> Path:
    """y = x @ w + b with int8 weights, from 1 x 4 to 1 x 2."""
    from ai_edge_litert import schema_py_generated as schema

    tensors: dict[str, tflite_models.Named] = {
        "x": ("float32", (1, 4), None),
        "w": ("int8", (2, 4), [0] * 8),
        "b": ("float32", (2,), [0.0] * 2),
        "y": ("float32", (1, 2), None),
    }
    step = "FULLY_CONNECTED", ["x", "w", "b"], "y", schema.FullyConnectedOptionsT()
    path.write_bytes(tflite_models.build(tensors, [step]))
    return path
