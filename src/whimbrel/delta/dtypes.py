"""The dtypes of tensors: which numbers they are, and how they lie in bytes.

1. A dtype has a code that is part of the patch format: codes are never reused.
2. Everything is in blocks: a plain float is a block of one element, a Q4_0 block has 32 elements in 18 bytes.
3. The family says which coder understands it. `OPAQUE` bytes travel too, but compress less.

Called by the container parsers (which name dtypes) and by the codec (which acts on families). Block sizes of the
quantised types: `ggml/src/ggml-common.h` and `gguf-py/gguf/constants.py` of llama.cpp.
"""

from dataclasses import dataclass
from enum import IntEnum


class Family(IntEnum):
    """The coder that understands a dtype."""

    OPAQUE = 0
    FLOAT = 1
    QBLOCK = 2
    INT8 = 3


@dataclass(frozen=True, slots=True)
class Dtype:
    """`block_elements` numbers lie in `block_bytes` bytes."""

    code: int
    name: str
    family: Family
    block_elements: int
    block_bytes: int

    def elements(self, size_bytes: int) -> int:
        """How many numbers are in `size_bytes`, which must be whole blocks."""
        return size_bytes // self.block_bytes * self.block_elements


_TABLE = (
    Dtype(0, "bytes", Family.OPAQUE, 1, 1),
    Dtype(1, "f32", Family.FLOAT, 1, 4),
    Dtype(2, "f16", Family.FLOAT, 1, 2),
    Dtype(3, "bf16", Family.FLOAT, 1, 2),
    Dtype(4, "i8", Family.INT8, 1, 1),
    Dtype(5, "u8", Family.INT8, 1, 1),
    Dtype(6, "bool", Family.OPAQUE, 1, 1),
    Dtype(7, "i16", Family.OPAQUE, 1, 2),
    Dtype(8, "u16", Family.OPAQUE, 1, 2),
    Dtype(9, "i32", Family.OPAQUE, 1, 4),
    Dtype(10, "u32", Family.OPAQUE, 1, 4),
    Dtype(11, "i64", Family.OPAQUE, 1, 8),
    Dtype(12, "u64", Family.OPAQUE, 1, 8),
    Dtype(13, "f64", Family.OPAQUE, 1, 8),
    Dtype(14, "f8_e4m3", Family.OPAQUE, 1, 1),
    Dtype(15, "f8_e5m2", Family.OPAQUE, 1, 1),
    Dtype(16, "c64", Family.OPAQUE, 1, 8),
    Dtype(17, "c128", Family.OPAQUE, 1, 16),
    Dtype(18, "f8_e8m0", Family.OPAQUE, 1, 1),
    # GGML block types: 64 + the number that GGUF gives them.
    Dtype(64 + 2, "q4_0", Family.QBLOCK, 32, 18),
    Dtype(64 + 3, "q4_1", Family.QBLOCK, 32, 20),
    Dtype(64 + 6, "q5_0", Family.QBLOCK, 32, 22),
    Dtype(64 + 7, "q5_1", Family.QBLOCK, 32, 24),
    Dtype(64 + 8, "q8_0", Family.QBLOCK, 32, 34),
    Dtype(64 + 9, "q8_1", Family.OPAQUE, 32, 40),
    Dtype(64 + 10, "q2_k", Family.QBLOCK, 256, 84),
    Dtype(64 + 11, "q3_k", Family.QBLOCK, 256, 110),
    Dtype(64 + 12, "q4_k", Family.QBLOCK, 256, 144),
    Dtype(64 + 13, "q5_k", Family.QBLOCK, 256, 176),
    Dtype(64 + 14, "q6_k", Family.QBLOCK, 256, 210),
    Dtype(64 + 15, "q8_k", Family.OPAQUE, 256, 292),
    Dtype(64 + 16, "iq2_xxs", Family.OPAQUE, 256, 66),
    Dtype(64 + 17, "iq2_xs", Family.OPAQUE, 256, 74),
    Dtype(64 + 18, "iq3_xxs", Family.OPAQUE, 256, 98),
    Dtype(64 + 19, "iq1_s", Family.OPAQUE, 256, 50),
    Dtype(64 + 20, "iq4_nl", Family.OPAQUE, 32, 18),
    Dtype(64 + 21, "iq3_s", Family.OPAQUE, 256, 110),
    Dtype(64 + 22, "iq2_s", Family.OPAQUE, 256, 82),
    Dtype(64 + 23, "iq4_xs", Family.OPAQUE, 256, 136),
    Dtype(64 + 29, "iq1_m", Family.OPAQUE, 256, 56),
    Dtype(64 + 34, "tq1_0", Family.OPAQUE, 256, 54),
    Dtype(64 + 35, "tq2_0", Family.OPAQUE, 256, 66),
    Dtype(64 + 39, "mxfp4", Family.OPAQUE, 32, 17),
)
BY_CODE = {dtype.code: dtype for dtype in _TABLE}
BY_NAME = {dtype.name: dtype for dtype in _TABLE}
BYTES = BY_NAME["bytes"]
