"""One tensor as a container describes it.

Called by the container parsers (which make them), `align` (which pairs them) and the codec.
"""

import math
from dataclasses import dataclass

from whimbrel.delta.dtypes import Dtype


@dataclass(frozen=True, slots=True)
class Tensor:
    """`size_bytes` bytes at `offset` hold `shape` numbers of `dtype`, the last dimension fastest."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes

    @property
    def is_whole(self) -> bool:
        """Whether the shape accounts for every byte."""
        return math.prod(self.shape) * self.dtype.block_bytes == self.size_bytes * self.dtype.block_elements
