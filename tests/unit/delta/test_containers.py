"""The container parsers find the tensors that the formats' own tools wrote."""

import struct

import gguf as gguf_package
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as tflite_schema
from flatbuffers import Builder
from onnx import TensorProto, helper, numpy_helper

from support.delta import GGUF_TYPES, artifact, blocks, gguf, protobuf, safetensors, tar, torch_zip
from whimbrel.delta import containers
from whimbrel.delta.dtypes import BY_NAME
from whimbrel.errors import UntrustedInput

RNG = np.random.default_rng(3)
WEIGHTS = {
    "one": RNG.normal(0, 1, (8, 16)).astype(np.float32),
    "two": RNG.integers(-128, 128, (16, 32)).astype(np.int8),
    "three": RNG.normal(0, 1, (64,)).astype(np.float16),
}


def found(content, **paths):
    whole = artifact(paths or content)
    return {tensor.name: tensor for tensor in containers.find(whole)}, whole


def assert_same(content, **paths):
    tensors, whole = found(content, **paths)
    assert set(tensors) == set(WEIGHTS)
    for name, array in WEIGHTS.items():
        tensor = tensors[name]
        assert bytes(whole.read(tensor.offset, tensor.size_bytes)) == array.tobytes()
        assert tensor.shape == array.shape
        assert tensor.dtype.name == {"float32": "f32", "int8": "i8", "float16": "f16"}[array.dtype.name]


def onnx_model():
    values = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", info[:1], info[1:], values)
    return helper.make_model(graph)


def test_safetensors_are_found():
    kinds = {"one": "f32", "two": "i8", "three": "f16"}
    assert_same(safetensors({name: (kinds[name], array) for name, array in WEIGHTS.items()}, {"format": "pt"}))


def test_onnx_initialisers_are_found():
    assert_same(onnx_model().SerializeToString())


def test_onnx_constants_inside_subgraphs_are_found():
    values = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    inner = helper.make_graph([helper.make_node("Constant", [], [v.name], value=v) for v in values], "then", [], [])
    outer = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)], "graph", [], [])
    assert_same(helper.make_model(outer).SerializeToString())


def test_onnx_external_data_is_found_in_its_own_file(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(onnx_model(), str(path), save_as_external_data=True, location="model.data", size_threshold=0)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert_same(None, **files)


def test_onnx_external_data_outside_the_artifact_is_left_alone(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(onnx_model(), str(path), save_as_external_data=True, location="model.data", size_threshold=0)
    assert found(path.read_bytes())[0] == {}


def test_tflite_buffers_are_found():
    model = tflite_schema.ModelT()
    model.version = 3
    graph = tflite_schema.SubGraphT()
    model.buffers, graph.tensors = [tflite_schema.BufferT()], []
    numbers = {"float32": 0, "float16": 1, "int8": 9}
    for name, array in WEIGHTS.items():
        buffer, tensor = tflite_schema.BufferT(), tflite_schema.TensorT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        tensor.name, tensor.shape, tensor.buffer = name, list(array.shape), len(model.buffers)
        tensor.type = numbers[array.dtype.name]
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    model.subgraphs = [graph]
    builder = Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    assert_same(bytes(builder.Output()))


def test_core_ml_weights_get_names_and_shapes_from_the_spec():
    numbers = {"float16": 1, "float32": 2, "int8": 4}
    weights = struct.pack("<II", len(WEIGHTS), 2) + bytes(56)
    operations = []
    for name, array in WEIGHTS.items():
        record = len(weights)
        weights += struct.pack("<IIQQ", 0xDEADBEEF, numbers[array.dtype.name], array.nbytes, record + 64) + bytes(40)
        weights += array.tobytes() + bytes(-array.nbytes % 64)
        dimensions = [(3, protobuf((1, protobuf((1, size))))) for size in array.shape]
        blob = protobuf((1, b"@model_path/weights/weight.bin"), (2, record))
        value = protobuf((2, protobuf((1, protobuf((1, 11), (2, 2), *dimensions)))), (5, blob))
        attribute = protobuf((1, b"val"), (2, value))
        operations.append((3, protobuf((1, b"const"), (3, protobuf((1, name.encode()))), (5, attribute))))
    function = protobuf((3, protobuf((1, b"CoreML7"), (2, protobuf(*operations)))))
    program = protobuf((2, protobuf((1, b"main"), (2, function))))
    spec = protobuf((1, 7), (502, program))
    assert_same(None, **{"Data/model.mlmodel": spec, "Data/weights/weight.bin": weights})


def test_torch_storages_are_found_without_running_the_pickle():
    kinds = {"float32": "FloatStorage", "float16": "HalfStorage", "int8": "CharStorage"}
    content = torch_zip({name: (kinds[array.dtype.name], array.tobytes()) for name, array in WEIGHTS.items()})
    tensors, whole = found(content)
    assert {name: tensor.dtype.name for name, tensor in tensors.items()} == {"one": "f32", "two": "i8", "three": "f16"}
    for name, tensor in tensors.items():
        assert bytes(whole.read(tensor.offset, tensor.size_bytes)) == WEIGHTS[name].tobytes()


def test_torch_pickle_with_unknown_opcodes_leaves_the_storages_as_bytes():
    content = torch_zip({"one": ("FloatStorage", WEIGHTS["one"].tobytes())})
    broken = content.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9")
    assert [tensor.dtype.name for tensor in found(broken)[0].values()] == ["bytes"]


def test_files_in_a_tar_keep_their_tensors():
    inner = safetensors({"one": ("f32", WEIGHTS["one"])})
    tensors, whole = found(tar({"a/model.safetensors": inner, "readme": b"words"}))
    tensor = tensors["a/model.safetensors:one"]
    assert bytes(whole.read(tensor.offset, tensor.size_bytes)) == WEIGHTS["one"].tobytes()


@pytest.mark.parametrize("dtype", sorted(GGUF_TYPES))
def test_gguf_types_have_the_block_sizes_of_llama_cpp(dtype):
    elements, size = gguf_package.constants.GGML_QUANT_SIZES[gguf_package.GGMLQuantizationType(GGUF_TYPES[dtype])]
    assert (BY_NAME[dtype].block_elements, BY_NAME[dtype].block_bytes) == (elements, size)


def test_every_gguf_type_of_llama_cpp_is_listed():
    codes = {dtype.code - 64 for dtype in BY_NAME.values() if dtype.code >= 64}
    codes |= {0, 1, 24, 25, 26, 27, 28, 30}
    retired_or_newer = {int(kind) for kind in gguf_package.GGMLQuantizationType} - codes
    assert retired_or_newer <= {40, 41, 42, 43, 44}


def test_gguf_tensors_are_where_the_package_says(tmp_path):
    content = gguf(
        {"a": ("q8_0", (4, 64), blocks(RNG, "q8_0", 8).tobytes()), "b": ("f32", (3,), bytes(12))},
        {"general.architecture": "test", "tokenizer": "x" * 100},
    )
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    reader = gguf_package.GGUFReader(path)
    theirs = {tensor.name: (int(tensor.data_offset), int(tensor.n_bytes)) for tensor in reader.tensors}
    ours = {name: (tensor.offset, tensor.size_bytes) for name, tensor in found(content)[0].items()}
    assert ours == theirs


def test_overlapping_tensors_are_left_out():
    header = (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    )
    tensors, _ = found(struct.pack("<Q", len(header)) + header + bytes(12))
    assert set(tensors) == {"a"}


def test_shape_that_does_not_fit_the_bytes_is_replaced_by_their_number():
    header = b'{"a":{"dtype":"F32","shape":[3,5],"data_offsets":[0,8]}}'
    tensors, _ = found(struct.pack("<Q", len(header)) + header + bytes(8))
    assert tensors["a"].shape == (2,)


def test_unknown_bytes_have_no_tensors():
    assert found(b"just some words, and no model at all")[0] == {}


def test_refused_container_still_travels_as_bytes():
    content = b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0)
    with pytest.raises(UntrustedInput, match="claims 1152921504606846976 tensors"):
        containers.parse(artifact(content).members[0])
    assert found(content)[0] == {}
