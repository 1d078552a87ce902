"""What is in a patch, tensor by tensor?

Bytes of parts that several tensors share are divided by the bytes that each makes: exact for a segment of one tensor,
an estimate where small tensors share one. Called by `whimbrel delta inspect` and the advice.
"""

from dataclasses import dataclass

from whimbrel.delta.patch import Copy, Factor, Glue, Group, Mode, Opaque, Patch, Range


@dataclass(frozen=True, slots=True)
class Line:
    """A range of the target: `patch_bytes` is its share of the parts."""

    name: str
    mode: str
    dtype: str
    target_offset: int
    target_bytes: int
    patch_bytes: float

    @property
    def ratio(self) -> float:
        return self.patch_bytes / self.target_bytes


def summarise(patch: Patch) -> list[Line]:
    """One line a range, in the target's order; the bytes of the head belong to no line."""
    shares: dict[int, float] = {}

    def add(one: Range, part_bytes: float) -> None:
        shares[one.index] = shares.get(one.index, 0.0) + part_bytes

    for unit in patch.units():
        if isinstance(unit, Copy):
            continue
        size = patch.part(unit.part)[1]
        if isinstance(unit, Group):
            whole = sum(piece.size_bytes for pieces in unit.segments for piece in pieces)
            for part, pieces in enumerate(unit.segments, unit.part + 1):
                made = sum(piece.size_bytes for piece in pieces)
                for piece in pieces:
                    add(piece.range, patch.part(part)[1] * piece.size_bytes / made + size * piece.size_bytes / whole)
        elif isinstance(unit, Glue):
            whole = sum(one.size_bytes for one in unit.ranges)
            for one in unit.ranges:
                add(one, size * one.size_bytes / whole)
        elif isinstance(unit, Opaque | Factor):
            add(unit.range, size)
    return [
        Line(
            _label(one),
            one.mode.name.lower(),
            one.dtype.name,
            one.target_offset,
            one.size_bytes,
            shares.get(one.index, 0.0),
        )
        for one in patch.ranges()
    ]


def _label(one: Range) -> str:
    if one.name:
        return one.name
    return {Mode.GLUE: "(headers and padding)", Mode.WHOLE: "(the whole file)"}.get(one.mode, "(bytes)")
