"""Real TFLite models from a few lines, and what they do: agree, end their process, eat. Made without TensorFlow.

As in `shadow_models`: x, float32 [1, 4], and y, float32 [1, 4].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Named = tuple[str, Sequence[int | None], Any]  # dtype, shape (None: free), value of a constant
Step = tuple[str, Sequence[str], str, Any]  # builtin operator, inputs, output, its options
_ROW = "float32", (1, 4), None
_SCALAR = "float32", ()


def doubling(*, factor: float = 2.0, rows: int | None = 1) -> bytes:
    """y = x * factor. `rows` None: as many as are given."""
    row = "float32", (rows, 4), None
    return build(
        {"x": row, "factor": (*_SCALAR, factor), "y": row},
        [("MUL", ["x", "factor"], "y", _schema().MulOptionsT())],
    )


def remainder() -> bytes:
    """y = 0 for small x; for -2^31 the least whole number is divided by -1, which ends a process (SIGFPE on x86)."""
    whole = "int32", (1, 4), None
    return build(
        {"x": _ROW, "whole": whole, "minus": ("int32", (1, 4), [-1] * 4), "rest": whole, "y": _ROW},
        [
            ("CAST", ["x"], "whole", _cast("FLOAT32", "INT32")),
            ("FLOOR_MOD", ["whole", "minus"], "rest", _schema().FloorModOptionsT()),
            ("CAST", ["rest"], "y", _cast("INT32", "FLOAT32")),
        ],
    )


def large(numbers: int) -> bytes:
    """y = x, and so many numbers are held on the way."""
    return build(
        {
            "x": _ROW,
            "count": ("int32", (1,), [numbers]),
            "one": (*_SCALAR, 1.0),
            "big": ("float32", (None,), None),
            "axis": ("int32", (1,), [0]),
            "top": (*_SCALAR, None),
            "y": _ROW,
        },
        [
            ("FILL", ["count", "one"], "big", _schema().FillOptionsT()),
            ("REDUCE_MAX", ["big", "axis"], "top", _schema().ReducerOptionsT()),
            ("MUL", ["x", "top"], "y", _schema().MulOptionsT()),
        ],
    )


def build(
    tensors: Mapping[str, Named], steps: Sequence[Step], *, inputs: Sequence[str] = "x", outputs: Sequence[str] = "y"
) -> bytes:
    """A model of these tensors and steps."""
    import flatbuffers

    schema, names = _schema(), list(tensors)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.buffers, model.operatorCodes, graph.tensors, graph.operators = [schema.BufferT()], [], [], []
    for name, (dtype, shape, value) in tensors.items():
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name.encode(), getattr(schema.TensorType, dtype.upper()), 0
        tensor.shape = [1 if size is None else size for size in shape]
        if None in shape:
            tensor.shapeSignature = [-1 if size is None else size for size in shape]
        if value is not None:
            tensor.buffer, buffer = len(model.buffers), schema.BufferT()
            buffer.data = list(np.asarray(value, dtype=dtype).tobytes())
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    for number, (builtin, taken, given, options) in enumerate(steps):
        code, step = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, builtin)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        step.opcodeIndex, step.inputs, step.outputs = (
            number,
            [names.index(each) for each in taken],
            [names.index(given)],
        )
        step.builtinOptions = options
        step.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        model.operatorCodes.append(code)
        graph.operators.append(step)
    graph.inputs, graph.outputs = [names.index(each) for each in inputs], [names.index(each) for each in outputs]
    model.version, model.subgraphs = 3, [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _cast(before: str, after: str) -> Any:
    schema = _schema()
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = getattr(schema.TensorType, before), getattr(schema.TensorType, after)
    return options


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated
