"""Is this a whole ONNX file? Its top-level protobuf fields (onnx.proto, ModelProto)."""

from pathlib import Path

from whimbrel.agent.probes.structure.protobuf_file import fields_of
from whimbrel.model.formats import ONNX_GRAPH, ONNX_IR_VERSION


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    fields = fields_of(path)
    if not {ONNX_IR_VERSION, ONNX_GRAPH} <= fields:
        raise ValueError(f"it has the protobuf fields {sorted(fields)[:20]}; an ONNX model has 1 and 7")
