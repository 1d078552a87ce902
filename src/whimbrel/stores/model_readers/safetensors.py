"""Read the metadata of a safetensors file with the safetensors package.

Called in the child process.
"""

from whimbrel.stores.inspection import Inspection
from whimbrel.stores.model_readers.bounded import metadata_of, weights_of
from whimbrel.stores.model_readers.libraries import is_installed, without_library

_TYPES = {
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


def read(path: str) -> Inspection:
    """What the file says. Raises whatever the library raises."""
    if not is_installed("safetensors"):
        return without_library("safetensors")
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as reader:
        slices = [(name, reader.get_slice(name)) for name in reader.keys()]  # noqa: SIM118  it is no dict
        return Inspection(
            format="safetensors",
            **weights_of(
                (name, _TYPES.get(each.get_dtype(), each.get_dtype().lower()), each.get_shape())
                for name, each in slices
            ),
            metadata=metadata_of((reader.metadata() or {}).items()),
        )
