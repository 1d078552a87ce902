"""The top-level fields of a file that is one protobuf message, for ONNX and Core ML."""

from pathlib import Path

from whimbrel.agent.probes.structure.open_file import reading
from whimbrel.model import protobuf


def fields_of(path: Path) -> set[int]:
    """The numbers of its fields. Raises `ValueError` where the file is no whole message."""
    with reading(path) as (read, size):
        return set(protobuf.top_level_fields(read, size))
