"""What does a format's own library read out of a model file? The child process of `inspection`.

`python -m whimbrel.stores.model_readers FORMAT MEMORY_BYTES PATH` writes one JSON `Reading` to its standard output. Its
limits are set before a library is imported; whatever a library prints goes to standard error.
"""

import importlib.util
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.release import Dimension, Signature, TensorSpec
from whimbrel.stores.inspection import Inspection, Reading, answer

Word = int | str

# How people name the type of most weights. Anything else is its dtype's own name.
_PRECISION = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "int8",
    "f32": "fp32",
    "f16": "fp16",
}
_DTYPE_CHARS = 64  # as TensorSpec
_TENSOR_NAME_CHARS = 1024
_DIMENSIONS = 16
_SIGNATURE_TENSORS = 1024


def main() -> int:
    """Read, answer, and end with status 0 whatever the model is."""
    kind, memory, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    _cage(memory)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        reading = Reading(found=_READERS[kind](path))
    except UntrustedInput as error:
        reading = Reading(refused=str(error))
    except MemoryError:
        reading = Reading(refused=f"reading it takes more than {memory // limits.MIB} MiB of memory")
    except Exception as error:  # noqa: BLE001  a library's objection may be of any kind: it is about this file
        words = " ".join(str(error).split())[:300] or "without a reason"
        said = "".join(each if each.isprintable() else "?" for each in words)  # it may quote the file
        reading = Reading(refused=f"its library refuses it ({type(error).__name__}: {said})")
    with out:
        out.write(answer(reading))
    return 0


def _cage(memory: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows: the time limit of the parent remains
        return
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.INSPECTION_CPU_S),
        (resource.RLIMIT_FSIZE, 2 * limits.DOCUMENT_BYTES),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (bound, bound))
        except (ValueError, OSError):  # macOS refuses some: the others remain
            continue


# --- ONNX ---

# onnx.proto, TensorProto.DataType: numpy's word for each, and onnxruntime's.
_ONNX_TYPES = (
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
_RUNTIME_TYPES = {f"tensor({theirs})": ours for ours, theirs in _ONNX_TYPES}


def _onnx(path: str) -> Inspection:
    if _installed("onnx"):
        return _onnx_by_onnx(path)
    if _installed("onnxruntime"):
        return _onnx_by_runtime(path)
    return Inspection(format="onnx", note=_missing("onnxruntime", "onnx"))


def _onnx_by_onnx(path: str) -> Inspection:
    import onnx

    model = onnx.load(path, "protobuf", load_external_data=False)  # not by the name of the file
    note = ""
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # The checker knows less than the runtime (newer opsets); where the runtime opens the file it is a remark.
        if not _installed("onnxruntime"):
            raise
        _session(path)
        note = f"the onnx checker objects: {' '.join(str(error).split())[:200]}"
    graph = model.graph
    weights = {each.name for each in graph.initializer}
    outside = {
        entry.value
        for each in graph.initializer
        if each.data_location == onnx.TensorProto.EXTERNAL
        for entry in each.external_data
        if entry.key == "location"
    }
    if outside:
        note = f"weights lie in other files: {', '.join(sorted(outside)[:3])[:200]}; publish them with it"
    return Inspection(
        format="onnx",
        signature=_signature(
            (_onnx_spec(each) for each in graph.input if each.name not in weights), map(_onnx_spec, graph.output)
        ),
        **_weights(
            ((each.name, _onnx_dtype(each.data_type), list(each.dims)) for each in graph.initializer),
            {
                "ir_version": model.ir_version,
                "nodes": len(graph.node),
                "producer": f"{model.producer_name} {model.producer_version}".strip(),
                "opset": ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in model.opset_import[:16]),
            },
        ),
        metadata=_bounded((each.key, each.value) for each in model.metadata_props),
        note=note,
    )


def _onnx_by_runtime(path: str) -> Inspection:
    session = _session(path)
    about = session.get_modelmeta()
    specs = [
        [_spec(each.name, _RUNTIME_TYPES.get(each.type, each.type), each.shape) for each in group]
        for group in (session.get_inputs(), session.get_outputs())
    ]
    return Inspection(
        format="onnx",
        signature=_signature(*specs),
        details=_details({"producer": about.producer_name, "graph": about.graph_name}),
        metadata=_bounded(about.custom_metadata_map.items()),
        note=f"for weights and opset {_missing('onnx', 'demo')}",
    )


def _session(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx_dtype(number: int, *, theirs: bool = False) -> str:
    return _ONNX_TYPES[number][theirs] if 0 <= number < len(_ONNX_TYPES) else f"type {number}"


def _onnx_spec(value: Any) -> TensorSpec:
    kind = value.type
    if not kind.HasField("tensor_type"):
        return _spec(value.name, _onnx_words(kind), ())
    tensor = kind.tensor_type
    return _spec(value.name, _onnx_dtype(tensor.elem_type), [_onnx_dimension(each) for each in tensor.shape.dim])


def _onnx_dimension(each: Any) -> Dimension:
    if each.HasField("dim_value"):
        return int(each.dim_value)
    return str(each.dim_param) or None


def _onnx_words(kind: Any, depth: int = 0) -> str:
    """A type in onnxruntime's words: seq(map(int64,tensor(float)))."""
    case = kind.WhichOneof("value")
    if depth > 8 or case is None:
        return "undefined"
    if case == "tensor_type":
        return f"tensor({_onnx_dtype(kind.tensor_type.elem_type, theirs=True)})"
    if case == "sequence_type":
        return f"seq({_onnx_words(kind.sequence_type.elem_type, depth + 1)})"
    if case == "map_type":
        key = _onnx_dtype(kind.map_type.key_type, theirs=True)
        return f"map({key},{_onnx_words(kind.map_type.value_type, depth + 1)})"
    return str(case).removesuffix("_type")


# --- TFLite ---


def _tflite(path: str) -> Inspection:
    if not _installed("ai_edge_litert"):
        return Inspection(format="tflite", note=_missing("ai-edge-litert", "litert"))
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    reader = Interpreter(model_path=path, num_threads=1, experimental_preserve_all_tensors=False)

    def specs(each: dict[str, Any]) -> TensorSpec:
        shape = each["shape_signature"] if len(each["shape_signature"]) else each["shape"]
        return _spec(each["name"], np.dtype(each["dtype"]).name, shape.tolist())

    tensors = reader.get_tensor_details()
    edges = {each["index"] for each in (*reader.get_input_details(), *reader.get_output_details())}
    found = _weights(
        (
            (each["name"], np.dtype(each["dtype"]).name, each["shape"].tolist())
            for each in tensors
            if each["index"] not in edges
        ),
        {"signatures": ", ".join(sorted(reader.get_signature_list())[:16])},
    )
    del found["details"]["parameters"]  # the interpreter does not tell weights from what lies between layers
    return Inspection(
        format="tflite",
        signature=_signature(map(specs, reader.get_input_details()), map(specs, reader.get_output_details())),
        **found,
    )


# --- GGUF ---


def _gguf(path: str) -> Inspection:
    if not _installed("gguf"):
        return Inspection(format="gguf", note=_missing("gguf", "gguf"))
    from gguf import GGUFReader, GGUFValueType, LlamaFileType

    reader = GGUFReader(path)
    words: dict[str, str] = {}
    for key, field in reader.fields.items():
        if not field.types or key.startswith("GGUF."):
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            words[key] = f"{len(field.data)} values"
        else:
            words[key] = str(field.contents())
    found = _weights(
        ((each.name, each.tensor_type.name.lower(), each.shape.tolist()) for each in reader.tensors),
        {
            "architecture": words.get("general.architecture", ""),
            "name": words.get("general.name", ""),
            "gguf_version": int(reader.fields["GGUF.version"].contents()),
            "keys": len(words),
        },
    )
    file_type = words.get("general.file_type", "")
    if file_type.isdigit() and int(file_type) in set(LlamaFileType):
        named = LlamaFileType(int(file_type)).name.removeprefix("MOSTLY_").removeprefix("ALL_").lower()
        found["precision"] = {"f32": "fp32", "f16": "fp16"}.get(named, named)
    return Inspection(
        format="gguf",
        **found,
        metadata=_bounded(words.items()),
    )


# --- safetensors ---

_SAFETENSORS_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def _safetensors(path: str) -> Inspection:
    if not _installed("safetensors"):
        return Inspection(format="safetensors", note=_missing("safetensors", "safetensors"))
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as reader:
        slices = [(name, reader.get_slice(name)) for name in reader.keys()]  # noqa: SIM118  it is no dict
        return Inspection(
            format="safetensors",
            **_weights(
                (name, _SAFETENSORS_TYPES.get(each.get_dtype(), each.get_dtype().lower()), each.get_shape())
                for name, each in slices
            ),
            metadata=_bounded((reader.metadata() or {}).items()),
        )


# --- Core ML ---

# Model.proto, ArrayFeatureType.ArrayDataType
_COREML_TYPES = {65568: "float32", 65600: "float64", 131104: "int32", 65552: "float16", 131080: "int8"}


def _coreml(path: str) -> Inspection:
    if os.path.isdir(path) and not os.path.isfile(os.path.join(path, "Manifest.json")):
        return Inspection(format="coreml", note="a compiled model is recognised only; publish the package to read it")
    if not _installed("coremltools"):
        return Inspection(format="coreml", note=_missing("coremltools", "coreml"))
    from coremltools.models.utils import load_spec

    spec = load_spec(path)
    about = spec.description
    if not about.input and not about.output:
        raise UntrustedInput("it names neither inputs nor outputs")
    return Inspection(
        format="coreml",
        signature=_signature(map(_coreml_spec, about.input), map(_coreml_spec, about.output)),
        details=_details(
            {
                "specification_version": spec.specificationVersion,
                "architecture": spec.WhichOneof("Type") or "",
                "author": about.metadata.author,
                "license": about.metadata.license,
                "description": about.metadata.shortDescription,
                "model_version": about.metadata.versionString,
            }
        ),
        metadata=_bounded(about.metadata.userDefined.items()),
    )


def _coreml_spec(feature: Any) -> TensorSpec:
    kind = feature.type
    case = kind.WhichOneof("Type") or "undefined"
    if case == "multiArrayType":
        array = kind.multiArrayType
        return _spec(feature.name, _COREML_TYPES.get(array.dataType, f"type {array.dataType}"), list(array.shape))
    if case == "imageType":
        return _spec(feature.name, "image", [kind.imageType.height, kind.imageType.width])
    words = {"int64Type": "int64", "doubleType": "float64", "stringType": "string"}
    return _spec(feature.name, words.get(case, case.removesuffix("Type")), ())


_READERS: dict[str, Callable[[str], Inspection]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "gguf": _gguf,
    "safetensors": _safetensors,
    "coreml": _coreml,
}


# --- bounded, whatever the file claims ---


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _missing(package: str, extra: str) -> str:
    return f"{package} is not installed here: pip install 'whimbrel[{extra}]'"


def _spec(name: str, dtype: str, shape: Iterable[Any]) -> TensorSpec:
    sizes = list(shape)
    if len(name) > _TENSOR_NAME_CHARS or len(dtype) > _DTYPE_CHARS or len(sizes) > _DIMENSIONS:
        raise UntrustedInput(
            f"a tensor {name[:40]!r} has a name of {len(name)} characters, a type of {len(dtype)} and {len(sizes)} "
            f"dimensions; at most {_TENSOR_NAME_CHARS}, {_DTYPE_CHARS} and {_DIMENSIONS} are taken"
        )
    return TensorSpec(name=name, dtype=dtype, shape=tuple(map(_dimension, sizes)))


def _dimension(size: Any) -> Dimension:
    if isinstance(size, str):
        return size[:_TENSOR_NAME_CHARS] or None
    return None if size is None or int(size) < 0 else int(size)


def _signature(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
    takes, gives = tuple(inputs), tuple(outputs)
    if max(len(takes), len(gives)) > _SIGNATURE_TENSORS:
        raise UntrustedInput(f"it has more than {_SIGNATURE_TENSORS} inputs or outputs")
    return Signature(inputs=takes, outputs=gives)


def _weights(tensors: Iterable[tuple[str, str, list[int]]], more: dict[str, Word] | None = None) -> dict[str, Any]:
    """The precision guess, the counts (and `more` details) and the largest tensors, as fields of an `Inspection`."""
    elements: Counter[str] = Counter()
    listed: list[tuple[int, TensorSpec]] = []
    count = 0
    for name, dtype, shape in tensors:
        size = math.prod(max(each, 0) for each in shape[:_DIMENSIONS])
        elements[dtype] += size
        count += 1
        listed.append((size, _spec(name, dtype, shape)))
        if len(listed) > 4 * limits.INSPECTED_TENSORS:
            listed = _largest(listed)
    common = elements.most_common(1)
    return {
        "precision": _PRECISION.get(common[0][0], common[0][0]) if common and common[0][1] else "",
        "details": _details(
            {"tensors": count, "parameters": min(sum(elements.values()), 2**63 - 1), **(more or {})},
        ),
        "tensors": tuple(spec for _, spec in _largest(listed)),
    }


def _largest(listed: list[tuple[int, TensorSpec]]) -> list[tuple[int, TensorSpec]]:
    return sorted(listed, key=lambda each: -each[0])[: limits.INSPECTED_TENSORS]


def _details(words: dict[str, Word]) -> dict[str, Word]:
    """Those that say something, cut to size."""
    return {
        key: value[: limits.INSPECTED_TEXT_CHARS] if isinstance(value, str) else value
        for key, value in words.items()
        if value != ""
    }


def _bounded(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The first entries by name, cut to size."""
    some = sorted((key[:128], value[: limits.INSPECTED_TEXT_CHARS]) for key, value in entries)
    return dict(some[: limits.INSPECTED_KEYS])


if __name__ == "__main__":
    sys.exit(main())
