"""Read the metadata of a GGUF model: the header by hand (`model/gguf.py`), and names of types from the gguf package.

The package's own reader makes an object of every entry of a vocabulary, and refuses types that are newer than itself.
A type that it does not know is told by its number. Called in the child process.
"""

import math
import os

from whimbrel.errors import UntrustedInput
from whimbrel.model.gguf import GgufHeader, GgufTensor, read_header
from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers.bounded import PRECISIONS, metadata_of, weights_of
from whimbrel.stores.model_readers.libraries import install_note, is_installed

_SHARDS, _SHARD = "split.count", "split.no"  # gguf-split of llama.cpp


class _Types:
    """Names and sizes of tensors' types, and names of file types, as far as the installed package knows them."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.blocks: dict[int, tuple[int, int]] = {}  # elements of a block, and its bytes
        self.file_types: dict[int, str] = {}
        if is_installed("gguf"):
            from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

            self.names = {int(each): each.name.lower() for each in GGMLQuantizationType}
            self.blocks = {int(each): sizes for each, sizes in GGML_QUANT_SIZES.items()}
            self.file_types = {int(each): each.name for each in LlamaFileType}

    def name(self, number: int) -> str:
        """`q4_k`, or `type 42` for a number that the package does not know."""
        return self.names.get(number, f"type {number}")

    def size_bytes(self, tensor: GgufTensor) -> int | None:
        """Bytes of a tensor; None where its type is not known."""
        if tensor.type_number not in self.blocks:
            return None
        elements, size = self.blocks[tensor.type_number]
        return math.prod(tensor.shape) // elements * size


def read(path: str) -> Inspection:
    """What the file says. Raises `UntrustedInput` where it is cut, or is no GGUF."""
    types = _Types()
    size = os.path.getsize(path)
    with open(path, "rb") as file:

        def at(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        try:
            header = read_header(at, size)
            header.check_bounds(size, types.size_bytes)
        except ValueError as error:
            raise UntrustedInput(str(error)) from error
    words = {key: str(value) for key, value in header.values.items()}
    words |= {key: f"{length} values" for key, length in header.lengths.items()}
    weights = weights_of(
        ((each.name, types.name(each.type_number), list(each.shape)) for each in header.tensors),
        {
            "architecture": words.get("general.architecture", ""),
            "name": words.get("general.name", ""),
            "gguf_version": header.version,
            "keys": len(words),
            "byte_order": "big-endian" if header.order == "big" else "",
        },
    )
    if weights["precision"].startswith("type "):
        weights["precision"] = ""
    file_type = types.file_types.get(header.whole_number("general.file_type") or 0)
    if file_type is not None and "general.file_type" in words:
        named = file_type.removeprefix("MOSTLY_").removeprefix("ALL_").lower()
        weights["precision"] = PRECISIONS.get(named, named)
    return Inspection(
        format="gguf",
        **weights,
        metadata=metadata_of(words.items()),
        note=_note(header, types),
        shards=max(1, header.whole_number(_SHARDS) or 1),
        shard=max(0, header.whole_number(_SHARD) or 0) + 1,
    )


def _note(header: GgufHeader, types: _Types) -> str:
    if not types.names:
        return f"its types of tensors have numbers and no names: {install_note('gguf', 'gguf')}"
    unknown = sorted({each.type_number for each in header.tensors} - types.names.keys())
    notes = []
    if unknown:
        listed = ", ".join(map(str, unknown[:8]))
        notes.append(f"the gguf package does not know the type of tensors {listed}: the device's runtime must")
    if header.order == "big":
        notes.append("it is big-endian: for devices of that byte order")
    return "; ".join(notes)
