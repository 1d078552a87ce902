"""How do weights become the files that devices use: safetensors and GGUF?"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from delta_pairs import kquants

Array = npt.NDArray[Any]
Weights = dict[str, Array]
Tensors = dict[str, tuple[int, tuple[int, ...], bytes]]
"""GGML's number of the type, shape, data."""


def to_bits(weight: Array, dtype: str) -> Array:
    if dtype == "F16":
        return weight.astype(np.float16).view(np.uint16)
    bits = weight.astype(np.float32).view(np.uint32)
    if dtype == "F32":
        return bits
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def safetensors(weights: Weights, dtype: str, note: str = "") -> bytes:
    header: dict[str, Any] = {"__metadata__": {"note": note}} if note else {}
    content = []
    place = 0
    for name, weight in weights.items():
        data = weight.tobytes() if dtype == "I8" else to_bits(weight, dtype).tobytes()
        header[name] = {"dtype": dtype, "shape": list(weight.shape), "data_offsets": [place, place + len(data)]}
        content.append(data)
        place += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(content)


def read_f16(path: Path) -> Weights:
    """The float16 tensors of a safetensors file, as float32."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    found = {}
    for name, one in json.loads(content[8 : 8 + size]).items():
        if name != "__metadata__" and one["dtype"] == "F16":
            first, last = (8 + size + place for place in one["data_offsets"])
            found[name] = np.frombuffer(content[first:last], np.float16).reshape(one["shape"]).astype(np.float32)
    return found


def gguf(weights: Weights, kind: str, note: str = "first") -> bytes:
    """Matrices in blocks by llama.cpp's own arithmetic, the rest as f32.

    Rows that are no whole blocks of a K-quant take the type that llama.cpp falls back to.
    """
    from gguf import GGMLQuantizationType

    tensors: Tensors = {}
    for name, weight in weights.items():
        used, content = _blocks(weight, kind)
        tensors[name] = int(GGMLQuantizationType[used]), weight.shape, content + b"\0" * (-len(content) % 32)
    contents = [content for _, _, content in tensors.values()]
    return gguf_head(tensors, list(map(len, contents)), note) + b"".join(contents)


_FALL_BACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def _blocks(weight: Array, kind: str) -> tuple[str, bytes]:
    from gguf import GGMLQuantizationType, quants

    if kind in _FALL_BACK and weight.ndim == 2 and weight.shape[1] % kquants.BLOCK == 0:
        return kind, kquants.quantise(weight, kind)
    kind = _FALL_BACK.get(kind, kind)
    if weight.ndim == 2 and weight.shape[1] % 32 == 0:
        return kind, quants.quantize(weight, GGMLQuantizationType[kind]).tobytes()
    return "F32", weight.tobytes()


def gguf_head(tensors: Tensors, sizes: list[int], note: str = "first") -> bytes:
    """What stands before the data of tensors that take `sizes` bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    for text in ("general.version", note):
        head += struct.pack("<Q", len(text)) + text.encode() + (struct.pack("<I", 8) if text != note else b"")
    place = 0
    for (name, (number, shape, _)), size in zip(tensors.items(), sizes, strict=True):
        head += struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += struct.pack("<IQ", number, place)
        place += size + -size % 32
    return head + b"\0" * (-len(head) % 32)
