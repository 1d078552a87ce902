"""Read hostile bytes: never outside of them, not for ever, and not more than memory holds.

1. Every read is checked against the end; a short file is `UntrustedInput`, never an `IndexError`.
2. Every field costs a step, and steps are counted: a file cannot make a parser loop for longer than its limit.
3. What is taken out whole (a name, a JSON header) has a limit of its own; the rest is skipped, not read.

Called by the parsers in this folder, and by the agent's checks of a file's structure.
"""

import struct
from collections.abc import Callable

from whimbrel import limits
from whimbrel.errors import UntrustedInput

_WINDOW_BYTES = 64 * limits.KIB
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_U16 = struct.Struct("<H")
_U64 = struct.Struct("<Q")


class Budget:
    """Steps that one artifact's parsers may take together."""

    def __init__(self, steps: int = limits.DELTA_CONTAINER_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise UntrustedInput(f"a container has more than {limits.DELTA_CONTAINER_STEPS} fields")


class Cursor:
    """A place in `[start, end)` of something that `read(offset, size)` gives."""

    def __init__(
        self, read: Callable[[int, int], bytes | memoryview], end: int, *, budget: Budget, start: int = 0
    ) -> None:
        self.read = read
        self.end = end
        self.place = start
        self.budget = budget
        self._window = b""
        self._window_start = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes. The caller has checked `size` against a limit of its own."""
        self.budget.spend()
        place = self.place
        if size < 0 or size > self.end - place:
            raise UntrustedInput(f"a container ends at byte {self.end}, inside a field of {size} bytes at {place}")
        self.place = place + size
        inside = place - self._window_start
        if inside < 0 or inside + size > len(self._window):
            if size >= _WINDOW_BYTES:
                return bytes(self._read(place, size))
            self._window = bytes(self._read(place, min(_WINDOW_BYTES, self.end - place)))
            self._window_start = place
            inside = 0
        return self._window[inside : inside + size]

    def _read(self, offset: int, size: int) -> bytes | memoryview:
        found = self.read(offset, size)
        if len(found) != size:
            raise UntrustedInput("a container became shorter while it was read")
        return found

    def at(self, place: int) -> "Cursor":
        """Go to `place`."""
        if not 0 <= place <= self.end:
            raise UntrustedInput(f"a container points at byte {place}, outside its {self.end}")
        self.place = place
        return self

    def skip(self, size: int) -> None:
        self.at(self.place + size)

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int(_U16.unpack(self.take(2))[0])

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def i32(self) -> int:
        return int(_I32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def varint(self) -> int:
        """A protobuf varint, at most 64 bits."""
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                return value & 0xFFFF_FFFF_FFFF_FFFF
            shift += 7
            if shift > 63:
                raise UntrustedInput("a container has a number of more than 64 bits")

    def name(self, size: int) -> str:
        """UTF-8 text of `size` bytes; bytes that are no UTF-8 are kept apart from each other."""
        if size > limits.DELTA_TENSOR_NAME_BYTES:
            raise UntrustedInput(
                f"a tensor's name has {size} bytes; at most {limits.DELTA_TENSOR_NAME_BYTES} are taken"
            )
        return self.take(size).decode("utf-8", "backslashreplace")
