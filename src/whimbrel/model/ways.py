"""Which bytes lead to an artifact? The delta index, and the cheapest way through it.

1. The index is signed online and is only advice: the bytes at the end of any way must hash to the artifact that the
   publisher's release names.
2. A step makes one artifact from another by a patch. A patch from `NOTHING`, the empty artifact that every device has,
   is the whole file in compressed form.
3. Steps may be chained: v1 -> v2 -> v3 may be fewer bytes than v1 -> v3, or than v3 whole.
4. The cheapest way has the fewest bytes to fetch, then the fewest steps.
"""

import heapq
from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document, digest_of
from whimbrel.model.ids import Digest, Name, Serial

NOTHING = digest_of(b"")


class Step(Document, frozen=True):
    """Fetch the patch `sha256` (`size_bytes`). The patch and the artifact `base` make the artifact `target`."""

    base: Digest
    target: Digest
    target_bytes: Annotated[int, Meta(ge=0, le=limits.ARTIFACT_BYTES)]
    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=limits.ARTIFACT_BYTES)]
    codec: Literal["whimbrel-delta-1"] = "whimbrel-delta-1"


class DeltaIndex(Document, frozen=True, tag_field="format", tag="whimbrel-deltas-1"):
    """The ways to the artifacts of one release. TUF target `deltas/<model>/<serial>.json`, which grows."""

    model: Name
    serial: Serial
    steps: Annotated[tuple[Step, ...], Meta(max_length=limits.DELTA_STEPS)] = ()


class Way(msgspec.Struct, frozen=True):
    """Steps in order; the last one makes the target. `size_bytes`: all bytes to fetch."""

    steps: tuple[Step, ...]
    size_bytes: int


def ways(steps: Collection[Step], *, target: str, size_bytes: int, here: Collection[str]) -> list[Way]:
    """Ways to `target` that are cheaper than the whole file (`size_bytes`), the cheapest first: one for each last step.

    `here`: digests of artifacts that this device holds.
    """
    bases = {*here, NOTHING}
    all_ways = [way for last in steps if last.target == target if (way := _cheapest(last, steps, bases)) is not None]
    return sorted(
        (way for way in all_ways if way.size_bytes < size_bytes), key=lambda way: (way.size_bytes, len(way.steps))
    )


def _cheapest(last: Step, steps: Collection[Step], here: Collection[str]) -> Way | None:
    """The cheapest way that ends with `last`: Dijkstra backwards, to an artifact that is here."""
    waiting: list[tuple[int, int, int, tuple[Step, ...]]] = [(last.size_bytes, 1, 0, (last,))]
    visited = {last.target}
    pushed = 0
    while waiting:
        cost, length, _, path = heapq.heappop(waiting)
        base = path[0].base
        if base in here:
            return Way(path, cost)
        if base in visited or length >= limits.DELTA_CHAIN:
            continue
        visited.add(base)
        for step in steps:
            if step.target == base:
                pushed += 1  # breaks ties: steps themselves have no order
                heapq.heappush(waiting, (cost + step.size_bytes, length + 1, pushed, (step, *path)))
    return None
