"""Which patches should there be, and what does the index say of them? (Step 4 of the journey.)

1. Targets: the newest version of a model, its baseline, the targets of live rollouts, and the arms of experiments.
2. Bases: nothing at all (the whole file, compressed), the newest earlier versions, and what devices really run.
3. Like is patched from like: the file of the same variant and name. Names may carry a version, so a new name is patched
   from the file of the same place whose name is gone.
4. Weights in a file beside an ONNX graph are described by the graph, and are plain bytes without it. So the pair names
   the graph.
5. A patch larger than 90% of the compressed whole file is not kept.
6. The index of a release lists direct patches, and those that lead to their bases: a device may chain them.
7. Of a sealed version the server has no plain bytes. Its patches are its publisher's, direct ones that are sealed to
   its key, and the server makes none to it or from it.

Called by the controllers.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.flows.records import ModelRecord, RolloutRecord, VersionRecord
from whimbrel.model.release import File, Release, Variant
from whimbrel.model.ways import NOTHING, DeltaIndex, Step


class DeltaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A patch that was tried. `sha256` None: it was not worth keeping."""

    model: str
    base: str
    target: str
    target_bytes: int
    sha256: str | None
    size_bytes: int
    advice: Annotated[str, Meta(max_length=limits.TEXT_CHARS)] = ""
    listed: bool = False  # whether the signed index knows it


class Graph(msgspec.Struct, frozen=True):
    """An ONNX graph, and the path by which it speaks of another file of its variant."""

    sha256: str
    path: str


class Pair(msgspec.Struct, frozen=True):
    """A patch that should be tried, from artifact to artifact; and the graphs that may describe them."""

    base: str
    target: str
    target_bytes: int
    base_graph: Graph | None = None
    target_graph: Graph | None = None


def wanted_pairs(
    model: ModelRecord,
    *,
    published: Sequence[tuple[VersionRecord, Release]],
    rollouts: Iterable[RolloutRecord],
    inventory: Mapping[int | None, int],
    tried: Iterable[DeltaRecord],
    arms: Iterable[int] = (),
) -> list[Pair]:
    """Patches that should be there and were not tried, in the order to build them: whole files first."""
    live = {version.serial: release for version, release in published if not version.retired and not release.is_sealed}
    if not live:
        return []
    serials = {max(live), *(rollout.target for rollout in rollouts), *arms} | (
        {model.baseline} if model.baseline else set()
    )
    known = {(delta.base, delta.target) for delta in tried}
    whole: list[Pair] = []
    direct: list[Pair] = []
    for serial in sorted(serials & live.keys(), reverse=True):
        bases = [live[base] for base in _bases(serial, live, inventory, newest=model.settings.delta_bases)]
        for variant in live[serial].variants:
            befores = [each for base in bases for each in base.variants if each.name == variant.name]
            for file in variant.files:
                graph = _graph_of(file, variant)
                whole.append(Pair(NOTHING, file.sha256, file.size_bytes, None, graph))
                for before in befores:
                    if (like := like_of(file, variant, before)) is not None:
                        graphs = _graph_of(like, before), graph
                        direct.append(Pair(like.sha256, file.sha256, file.size_bytes, *graphs))
    pairs = {
        (pair.base, pair.target): pair
        for pair in reversed((*whole, *direct))  # of equal ones the first stays
        if pair.base != pair.target and pair.target_bytes > 0
    }
    return [pair for key, pair in reversed(pairs.items()) if key not in known]


def _graph_of(file: File, variant: Variant) -> Graph | None:
    """The graph that may describe a file; whether it does is for the codec, which reads it."""
    entry = variant.files[0]
    if entry.format != "onnx" or file.packed or file == entry:
        return None
    return Graph(entry.sha256, posixpath.relpath(file.name, posixpath.dirname(entry.name) or "."))


def like_of(file: File, variant: Variant, before: Variant) -> File | None:
    """The file of an earlier build that `file` of this build is patched from; None where it has none."""
    named = next((each for each in before.files if each.name == file.name), None)
    if named is None and (place := variant.files.index(file)) < len(before.files):
        names = {each.name for each in variant.files}
        named = before.files[place] if before.files[place].name not in names else None
    return named if named is not None and (named.format, named.packed) == (file.format, file.packed) else None


def worth_keeping(size_bytes: int, *, target_bytes: int, whole_bytes: int | None) -> bool:
    """Whether a patch of `size_bytes` pays. `whole_bytes`: of the compressed whole file, where one is kept."""
    return size_bytes < limits.DELTA_WORTH * min(target_bytes, whole_bytes or target_bytes)


def write_index(release: Release, deltas: Sequence[DeltaRecord], *, sealed: Sequence[Step] = ()) -> DeltaIndex:
    """The index of a release: patches to its artifacts, and to the bases of those, and so on.

    `sealed`: of a sealed release, the patches that its publisher made; there are no others.
    """
    if release.is_sealed:
        return DeltaIndex(model=release.model, serial=release.serial, steps=tuple(sealed))
    kept = [delta for delta in deltas if delta.sha256 is not None]
    steps: dict[tuple[str, str], Step] = {}
    reach = set(release.digests)
    for _ in range(limits.DELTA_CHAIN):
        fresh = [delta for delta in kept if delta.target in reach and (delta.base, delta.target) not in steps]
        if not fresh:
            break
        for delta in fresh:
            steps[delta.base, delta.target] = Step(
                base=delta.base,
                target=delta.target,
                target_bytes=delta.target_bytes,
                sha256=str(delta.sha256),
                size_bytes=delta.size_bytes,
            )
        reach = {delta.base for delta in fresh} - {NOTHING}
    ordered = sorted(steps.values(), key=lambda step: (step.target not in release.digests, step.target, step.base))
    return DeltaIndex(model=release.model, serial=release.serial, steps=tuple(ordered[: limits.DELTA_STEPS]))


def _bases(serial: int, live: Mapping[int, Release], inventory: Mapping[int | None, int], *, newest: int) -> list[int]:
    earlier = sorted((each for each in live if each < serial), reverse=True)[:newest]
    by_devices = sorted(
        (each for each in inventory if each in live and each not in {serial, *earlier} and each is not None),
        key=lambda each: -inventory[each],
    )
    return [*earlier, *by_devices[: limits.DELTA_BASES_BY_INVENTORY]]
