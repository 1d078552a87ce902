"""Is this a whole ONNX model? Its top-level protobuf fields (onnx.proto, ModelProto), and the files of its weights.

Weights may lie in other files ("external data"): each tensor names the file, relative to the folder of the model, and
the bytes in it.
"""

from pathlib import Path

from whimbrel.agent.probes.structure.open_file import reading
from whimbrel.agent.probes.structure.protobuf_file import fields_of
from whimbrel.delta.containers import onnx
from whimbrel.delta.containers.cursor import Budget, Cursor
from whimbrel.errors import UntrustedInput
from whimbrel.model.formats import ONNX_GRAPH, ONNX_IR_VERSION


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    fields = fields_of(path)
    if not {ONNX_IR_VERSION, ONNX_GRAPH} <= fields:
        raise ValueError(f"it has the protobuf fields {sorted(fields)[:20]}; an ONNX model has 1 and 7")
    external = _external(path)
    for name in sorted(external.paths):
        if not (path.parent / name).is_file():
            raise ValueError(f"its weights lie in {name!r}, which is not beside it")
    for name, tensor in external.tensors:
        size = (path.parent / name).stat().st_size
        if tensor.end > size:
            raise ValueError(f"tensor {tensor.name!r} ends at byte {tensor.end} of {name!r}, which has {size}")


def parts(path: Path) -> tuple[str, ...]:
    """The model, and the files of its weights: names relative to its folder. Raises `ValueError`."""
    return path.name, *sorted(_external(path).paths)


def _external(path: Path) -> onnx.External:
    external = onnx.External()
    try:
        with reading(path) as (read, size):
            onnx.parse(Cursor(read, size, budget=Budget()), external=external)
    except UntrustedInput as error:
        raise ValueError(str(error)) from error
    outside = sorted(name for name in external.paths if name.startswith(("/", "..")) or name == ".")
    if outside:
        raise ValueError(f"its weights lie in {outside[0]!r}, outside of its folder")
    return external
