"""Which bytes lead to an artifact? The delta index, and the cheapest way through it.

1. The index is signed online and is only advice: the bytes at the end of any way must hash to the artifact that the
   publisher's release names.
2. A step makes one artifact from another by a patch. A patch from `NOTHING`, the empty artifact that every device has,
   is the whole file in compressed form.
3. Steps may be chained: v1 -> v2 -> v3 may be fewer bytes than v1 -> v3, or than v3 whole.
4. The cheapest way has the fewest bytes to fetch, then the fewest steps.
5. Whoever holds the online key may write any index. So a search takes time in proportion to its steps, and no way leads
   over an artifact that is many times as large as the one that is wanted.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.documents import Document, digest_of
from whimbrel.model.ids import Digest, Name, Serial

NOTHING = digest_of(b"")


class Step(Document, frozen=True):
    """Fetch the patch `sha256` (`size_bytes`). The patch and the artifact `base` make the artifact `target`.

    `sealed`: what is fetched is an age file to the key of the release that `target` is of, and the patch is in it.
    `base` and `target` are never of sealed bytes.
    """

    base: Digest
    target: Digest
    target_bytes: Annotated[int, Meta(ge=0, le=limits.ARTIFACT_BYTES)]
    sha256: Digest
    size_bytes: Annotated[int, Meta(ge=1, le=limits.ARTIFACT_BYTES)]
    codec: Literal["whimbrel-delta-1"] = "whimbrel-delta-1"
    sealed: bool = False


class DeltaIndex(Document, frozen=True, tag_field="format", tag="whimbrel-deltas-1"):
    """The ways to the artifacts of one release. TUF target `deltas/<model>/<serial>.json`, which grows."""

    model: Name
    serial: Serial
    steps: Annotated[tuple[Step, ...], Meta(max_length=limits.DELTA_STEPS)] = ()


class Way(msgspec.Struct, frozen=True):
    """Steps in order; the last one makes the target. `size_bytes`: all bytes to fetch."""

    steps: tuple[Step, ...]
    size_bytes: int


def ways(
    steps: Collection[Step], *, target: str, size_bytes: int, here: Collection[str], below: int | None = None
) -> list[Way]:
    """Ways to `target` (of `size_bytes`) that fetch fewer bytes than `below`, the cheapest first: one a last step.

    `below`: by default as many as the whole file has. `here`: digests of artifacts that this device holds.
    """
    below = size_bytes if below is None else below
    largest = limits.DELTA_BETWEEN * max(size_bytes, limits.DELTA_BETWEEN_BYTES)
    cheapest = _cheapest([step for step in steps if step.target_bytes <= largest], {*here, NOTHING}, below=below)
    found = []
    for last in steps:
        if last.target == target and last.target_bytes == size_bytes and last.base in cheapest:
            before = cheapest[last.base]
            found.append(Way((*before.steps, last), before.size_bytes + last.size_bytes))
    fewer = [way for way in found if way.size_bytes < below and target not in {step.base for step in way.steps}]
    return sorted(fewer, key=lambda way: (way.size_bytes, len(way.steps)))


def _cheapest(steps: Collection[Step], here: Collection[str], *, below: int) -> dict[str, Way]:
    """The cheapest way to every artifact that can be made here with one step fewer than a chain has: Bellman and Ford.

    A round lengthens the ways of the round before by a step, so after k rounds those of at most k steps are known.
    """
    cheapest = {digest: Way((), 0) for digest in here}
    for _ in range(limits.DELTA_CHAIN - 1):
        known, changed = dict(cheapest), False
        for step in steps:
            before = known.get(step.base)
            if before is None:
                continue
            cost = before.size_bytes + step.size_bytes
            if cost < below and (step.target not in cheapest or cost < cheapest[step.target].size_bytes):
                cheapest[step.target], changed = Way((*before.steps, step), cost), True
        if not changed:
            break
    return cheapest
