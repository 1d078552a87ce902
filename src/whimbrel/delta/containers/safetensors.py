"""Find the tensors of a safetensors file.

Source: https://huggingface.co/docs/safetensors (format section): 8 bytes of header length, a JSON object, the data.
"""

import msgspec

from whimbrel import limits
from whimbrel.delta import dtypes
from whimbrel.delta.containers.cursor import Cursor
from whimbrel.delta.tensor import Tensor
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.model.document_errors import sentence

_NAMES = {
    "F32": "f32",
    "F16": "f16",
    "BF16": "bf16",
    "I8": "i8",
    "U8": "u8",
    "BOOL": "bool",
    "I16": "i16",
    "U16": "u16",
    "I32": "i32",
    "U32": "u32",
    "I64": "i64",
    "U64": "u64",
    "F64": "f64",
    "F8_E4M3": "f8_e4m3",
    "F8_E5M2": "f8_e5m2",
    "F8_E8M0": "f8_e8m0",
    "C64": "c64",
}


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def is_header(start: bytes, size_bytes: int) -> bool:
    """Do the first 9 bytes look like a safetensors file of this size?"""
    return len(start) >= 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size_bytes - 8


def parse(cursor: Cursor) -> list[Tensor]:
    """Tensors in the header's order. Raises `UntrustedInput`."""
    size = cursor.u64()
    if size > limits.DELTA_HEADER_BYTES:
        raise UntrustedInput(f"a safetensors header has {size} bytes; at most {limits.DELTA_HEADER_BYTES} are taken")
    try:
        header = msgspec.json.decode(cursor.take(size), type=dict[str, msgspec.Raw])
        if len(header) > limits.DELTA_TENSORS:
            raise UntrustedInput(f"a safetensors file has {len(header)} tensors; {limits.DELTA_TENSORS} are taken")
        entries = {
            name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items() if name != "__metadata__"
        }
    except msgspec.DecodeError as error:
        raise UntrustedInput(f"a safetensors header is not what the format says: {sentence(str(error))}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UntrustedInput(f"a safetensors header is not what the format says: {reason_of(error)}") from error
    start = cursor.place
    tensors = []
    for name, entry in entries.items():
        begin, end = entry.data_offsets
        if len(entry.shape) > limits.DELTA_DIMENSIONS or min([begin, end - begin, *entry.shape]) < 0:
            raise UntrustedInput(f"the safetensors entry '{name[:80]}' has an impossible shape or place")
        dtype = dtypes.BY_NAME[_NAMES.get(entry.dtype, "bytes")]
        tensors.append(Tensor(name, dtype, tuple(entry.shape), start + begin, end - begin))
    return tensors
