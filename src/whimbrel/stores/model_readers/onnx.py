"""Read the metadata of an ONNX model with the onnx package, or with onnxruntime where only that is installed.

Which weights lie in other files is read by hand: onnxruntime does not say it. Called in the child process.
"""

import os
import posixpath
from typing import Any

import msgspec

from whimbrel import limits
from whimbrel.delta.containers import onnx as container
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.errors import UntrustedInput
from whimbrel.model.release import Dimension, TensorSpec
from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers.bounded import details_of, metadata_of, signature_of, tensor_spec, weights_of
from whimbrel.stores.model_readers.libraries import install_note, is_installed, without_library

# onnx.proto, TensorProto.DataType: numpy's word for each, and onnxruntime's.
_TYPES = (
    ("undefined", "undefined"),
    ("float32", "float"),
    ("uint8", "uint8"),
    ("int8", "int8"),
    ("uint16", "uint16"),
    ("int16", "int16"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("string", "string"),
    ("bool", "bool"),
    ("float16", "float16"),
    ("float64", "double"),
    ("uint32", "uint32"),
    ("uint64", "uint64"),
    ("complex64", "complex64"),
    ("complex128", "complex128"),
    ("bfloat16", "bfloat16"),
    ("float8_e4m3fn", "float8e4m3fn"),
    ("float8_e4m3fnuz", "float8e4m3fnuz"),
    ("float8_e5m2", "float8e5m2"),
    ("float8_e5m2fnuz", "float8e5m2fnuz"),
    ("uint4", "uint4"),
    ("int4", "int4"),
    ("float4_e2m1fn", "float4e2m1"),
)
_RUNTIME_TYPES = {f"tensor({runtime})": ours for ours, runtime in _TYPES}


def read(path: str) -> Inspection:
    """What the file says. Raises whatever the library raises."""
    others = _other_files(path)
    folder = os.path.dirname(path)
    if is_installed("onnx"):
        inspection = _by_onnx(path)
    elif is_installed("onnxruntime") and all(os.path.isfile(os.path.join(folder, name)) for name in others):
        inspection = _by_onnxruntime(path)
    elif is_installed("onnxruntime"):
        inspection = Inspection(format="onnx", note="it was not read, as weights that it names are not beside it")
    else:
        inspection = without_library("onnx")
    names = sorted({*inspection.other_files, *others})
    if len(names) > limits.INSPECTED_OTHER_FILES:
        raise UntrustedInput(f"its weights lie in {len(names)} files; at most {limits.INSPECTED_OTHER_FILES} are taken")
    return msgspec.structs.replace(inspection, other_files=tuple(names))


def _other_files(path: str) -> set[str]:
    """The files that its weights lie in, as it names them."""
    external = container.External()
    with open(path, "rb") as file:

        def at(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        container.parse(Cursor(at, os.path.getsize(path), budget=Budget()), external=external)
    return {name for name, _ in external.tensors}


def _by_onnx(path: str) -> Inspection:
    import onnx

    model = onnx.load(path, "protobuf", load_external_data=False)  # not by the name of the file
    graph = model.graph
    initializers = {each.name for each in graph.initializer}
    outside = {
        entry.value
        for each in graph.initializer
        if each.data_location == onnx.TensorProto.EXTERNAL
        for entry in each.external_data
        if entry.key == "location"
    }
    note = ""
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # The checker knows less than the runtime (newer opsets), which is asked after this, where it is installed.
        if not outside:  # it also objects to weights that are not beside the model
            if not is_installed("onnxruntime"):
                raise
            note = f"the onnx checker objects: {' '.join(str(error).split())[:200]}"
    return Inspection(
        format="onnx",
        signature=signature_of(
            (_spec(each) for each in graph.input if each.name not in initializers), map(_spec, graph.output)
        ),
        **weights_of(
            ((each.name, _dtype(each.data_type), list(each.dims)) for each in graph.initializer),
            {
                "ir_version": model.ir_version,
                "nodes": len(graph.node),
                "producer": f"{model.producer_name} {model.producer_version}".strip(),
                "opset": ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in model.opset_import[:16]),
            },
        ),
        metadata=metadata_of((each.key, each.value) for each in model.metadata_props),
        note=note,
        other_files=tuple(posixpath.normpath(name) for name in outside),
    )


def _by_onnxruntime(path: str) -> Inspection:
    session = _session(path)
    about = session.get_modelmeta()
    specs = [
        [tensor_spec(each.name, _RUNTIME_TYPES.get(each.type, each.type), each.shape) for each in group]
        for group in (session.get_inputs(), session.get_outputs())
    ]
    return Inspection(
        format="onnx",
        signature=signature_of(*specs),
        details=details_of({"producer": about.producer_name, "graph": about.graph_name}),
        metadata=metadata_of(about.custom_metadata_map.items()),
        note=f"for weights and opset {install_note('onnx', 'demo')}",
    )


def _session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _dtype(number: int, *, runtime: bool = False) -> str:
    return _TYPES[number][runtime] if 0 <= number < len(_TYPES) else f"type {number}"


def _spec(value: Any) -> TensorSpec:
    kind = value.type
    if not kind.HasField("tensor_type"):
        return tensor_spec(value.name, _type_words(kind), ())
    tensor = kind.tensor_type
    return tensor_spec(value.name, _dtype(tensor.elem_type), [_dimension(each) for each in tensor.shape.dim])


def _dimension(each: Any) -> Dimension:
    if each.HasField("dim_value"):
        return int(each.dim_value)
    return str(each.dim_param) or None


def _type_words(kind: Any, depth: int = 0) -> str:
    """A type in onnxruntime's words: seq(map(int64,tensor(float)))."""
    case = kind.WhichOneof("value")
    if depth > 8 or case is None:
        return "undefined"
    if case == "tensor_type":
        return f"tensor({_dtype(kind.tensor_type.elem_type, runtime=True)})"
    if case == "sequence_type":
        return f"seq({_type_words(kind.sequence_type.elem_type, depth + 1)})"
    if case == "map_type":
        key = _dtype(kind.map_type.key_type, runtime=True)
        return f"map({key},{_type_words(kind.map_type.value_type, depth + 1)})"
    return str(case).removesuffix("_type")
