"""The top-level fields of a file that is one protobuf message, for ONNX and Core ML."""

from pathlib import Path

from whimbrel.model import protobuf


def fields_of(path: Path) -> set[int]:
    """The numbers of its fields. Raises `ValueError` where the file is no whole message."""
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return set(protobuf.top_level_fields(read, path.stat().st_size))
