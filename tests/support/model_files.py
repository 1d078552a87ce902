"""Tiny valid model files of every format, made by the formats' own writers."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

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


def onnx_external(folder: Path, *, factor: float = 1.0, size: int = 64, location: str = "model.onnx.data") -> Path:
    """y = x @ w from 1 x `size` to 1 x `size`; the bytes of w (`external_weights`) lie in another file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "external",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(external_weights(factor=factor, size=size), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).unlink(missing_ok=True)  # onnx appends
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def external_weights(*, factor: float = 1.0, size: int = 64) -> Any:
    """Noise in columns that add up to 0, and `factor` on the diagonal: y = `factor` * x for an x of equal values.

    The noise differs a little from `factor` to `factor`, as after a fine-tuning.
    """
    noise = np.random.default_rng(1).normal(0, 0.01, (size, size))
    noise += np.random.default_rng(2).normal(0, 1e-5, (size, size)) * factor
    return (noise - noise.mean(axis=0) + np.eye(size) * factor).astype(np.float32)


def safetensors_sharded(folder: Path, *, factor: float = 1.0) -> Path:
    """Two shards and their index, as the libraries of Hugging Face write them; the first shard."""
    import json

    from safetensors.numpy import save_file

    weight_map = {}
    for number, name in enumerate(("encoder.weight", "decoder.weight"), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: np.full((32, 32), factor * number, np.float32)}, folder / file)
        weight_map[name] = file
    index = {"metadata": {"total_size": 8192}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / "model-00001-of-00002.safetensors"


def gguf_split(folder: Path) -> Path:
    """Two files with a tensor each; the first one."""
    from gguf import GGUFWriter

    writer = GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=1)
    writer.add_name("split")
    for name in ("w", "b"):
        writer.add_tensor(name, np.zeros((8, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "m-00001-of-00002.gguf"


def executorch(path: Path, *, segment: bytes = b"w" * 100) -> Path:
    """A program with one method and one data segment, written by the schema: ExecuTorch itself needs torch."""
    import flatbuffers

    builder = flatbuffers.Builder(256)
    name = builder.CreateString("forward")
    builder.StartObject(9)  # ExecutionPlan
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    plan = builder.EndObject()
    builder.StartObject(2)  # DataSegment
    builder.PrependUint64Slot(0, 0, 0)
    builder.PrependUint64Slot(1, len(segment), 0)
    data = builder.EndObject()
    vectors = []
    for table in (plan, data):
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(table)
        vectors.append(builder.EndVector())
    builder.StartObject(8)  # Program
    builder.PrependUOffsetTRelativeSlot(1, vectors[0], 0)
    builder.PrependUOffsetTRelativeSlot(4, vectors[1], 0)
    builder.Finish(builder.EndObject(), file_identifier=b"ET12")
    program = bytes(builder.Output())
    # The extended header goes between the FlatBuffers header and the tables, which moves the root table.
    header_bytes = 24
    size = len(program) + header_bytes
    header = b"eh00" + header_bytes.to_bytes(4, "little") + size.to_bytes(8, "little") + size.to_bytes(8, "little")
    root = int.from_bytes(program[:4], "little") + header_bytes
    path.write_bytes(root.to_bytes(4, "little") + program[4:8] + header + program[8:] + segment)
    return path
