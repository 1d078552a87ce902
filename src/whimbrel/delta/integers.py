"""How do the 8-bit codes of a version (ONNX, TFLite) follow from those of the version before?

1. The change is `new - old` modulo 256, as a signed byte.
2. Its context is the tensor: each run of a tensor in a segment has a level, the mean size of its changes in quarter
   octaves, so that tensors that change alike share a table.

Called by the codec with the numbers of one segment; the rows are the runs.
"""

import numpy as np

from whimbrel.delta.floats import DEAD, Segment
from whimbrel.delta.streams import U8, Array, StreamReader, StreamWriter
from whimbrel.errors import UntrustedInput

_FINEST = 64  # quarter octaves below 1: 2**-16, less than one change in a segment


def _contexts(segment: Segment, levels: Array) -> U8:
    return np.asarray(np.repeat((levels.astype(np.int16) + _FINEST).clip(0, 255), segment.rows), np.uint8)


class IntegerWriter:
    """Codes segments of one group."""

    def __init__(self) -> None:
        self._levels, self._changes = StreamWriter(), StreamWriter(minimum=None)

    def add(self, before: Segment, after: Array) -> None:
        change = (after - before.bits).view(np.int8)
        starts = np.concatenate(([0], np.cumsum(before.rows)[:-1])).astype(np.intp)
        sizes = np.add.reduceat(np.abs(change.astype(np.int16)), starts, dtype=np.int64) / before.rows
        levels = np.rint(4 * np.log2(np.maximum(sizes, 2.0**-15))).clip(-_FINEST + 1, 63).astype(np.int16)
        levels[sizes == 0] = DEAD
        live = np.repeat(levels != DEAD, before.rows)
        self._levels.add(levels)
        self._changes.add(change[live], _contexts(before, levels)[live])

    def finish(self) -> tuple[bytes, list[bytes]]:
        """(head of the group, one string a segment)."""
        levels, level_pages = self._levels.finish()
        changes, pages = self._changes.finish()
        return levels + changes, [a + b for a, b in zip(level_pages, pages, strict=True)]


class IntegerReader:
    """Reads the segments of one group."""

    def __init__(self, head: bytes) -> None:
        self._levels, self._changes = StreamReader(np.int16), StreamReader(np.int8)
        if self._changes.open(head, self._levels.open(head, 0)) != len(head):
            raise UntrustedInput("a group's head has bytes that belong to nothing")

    def read(self, before: Segment, content: bytes) -> Array:
        """The new bytes."""
        levels, place = self._levels.read_plain(content, 0, len(before.rows))
        live = np.repeat(levels != DEAD, before.rows)
        contexts = _contexts(before, levels)[live]
        change, place = self._changes.read(content, place, contexts)
        if place != len(content):
            raise UntrustedInput("a segment has bytes that belong to nothing")
        after = before.bits.copy()
        after[live] += change.view(np.uint8)
        return after
