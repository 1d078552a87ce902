"""Is this a TFLite file? Its identifier, and the place of its root table.

Source: the FlatBuffers internals page, and tensorflow/lite/schema/schema.fbs.
"""

from pathlib import Path

from whimbrel.model.formats import TFLITE_IDENTIFIER


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:8] != TFLITE_IDENTIFIER:
        raise ValueError(f"bytes 4 to 8 are {head[4:8]!r}; a TFLite file has b'TFL3' there")
    root = int.from_bytes(head[:4], "little")
    if not 8 <= root < size - 4:
        raise ValueError(f"its root table lies at byte {root} of {size}")
