"""Is this a whole safetensors file? Its header, and the places of its tensors.

Source: https://github.com/huggingface/safetensors#format.
"""

import importlib
import importlib.util
import json
from pathlib import Path

from whimbrel import limits

_HEADER_BYTES_MAX = 100 * limits.MIB


def check(path: Path) -> None:
    """Raises `ValueError` with what was found and expected; `KeyError` or `TypeError` for a header of another shape."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > min(size - 8, _HEADER_BYTES_MAX):
            raise ValueError(f"its header says {length} bytes; the file has {size}")
        header = json.loads(file.read(length))
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        first, last = tensor["data_offsets"]
        if not 0 <= first <= last <= size - 8 - length:
            raise ValueError(f"tensor {name!r} lies at {first} to {last}; there are {size - 8 - length} bytes of data")
        end = max(end, last)
    if end != size - 8 - length:
        raise ValueError(f"its tensors end at byte {end} of {size - 8 - length}")


def check_with_library(path: Path) -> None:
    """The same by the safetensors package, where it is installed: it knows more of tensors than we do."""
    if importlib.util.find_spec("safetensors"):
        with importlib.import_module("safetensors").safe_open(str(path), framework="numpy") as tensors:
            list(tensors.keys())
