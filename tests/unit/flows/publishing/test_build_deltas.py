"""Which patches should there be, and what the index says of them."""

from typing import Any

import msgspec
import pytest

from support.values import file, release, version
from whimbrel.flows.publishing.build_deltas import DeltaRecord, Graph, like_of, wanted_pairs, worth_keeping, write_index
from whimbrel.flows.records import ModelRecord, ModelSettings, VersionRecord
from whimbrel.model.release import File, Release, Sealed, Variant
from whimbrel.model.ways import NOTHING, Step


def digest(serial: int, variant: str = "cpu") -> str:
    return f"{serial:02d}{variant}".encode().hex().ljust(64, "0")


def published(serial: int, *variants: str, **changes: Any) -> tuple[VersionRecord, Release]:
    release = Release(
        model="detector",
        serial=serial,
        version=f"2026.01.01.{serial}",
        semantic_version=f"1.{serial}.0",
        build_hash="0" * 12,
        created="2026-01-01T00:00:00Z",
        variants=tuple(
            Variant(
                name=name,
                files=(File(name="m.onnx", size_bytes=1000, sha256=digest(serial, name), format="onnx"),),
            )
            for name in variants or ("cpu",)
        ),
    )
    version = VersionRecord(
        namespace="default",
        model="detector",
        serial=serial,
        version=release.version,
        semantic_version=release.semantic_version,
        build_hash="0" * 12,
        created_at=0,
        size_bytes=1000,
        **changes,
    )
    return version, release


def model(**changes: Any) -> ModelRecord:
    fields = {"namespace": "default", "name": "detector", "created_at": 0, "salt": 1, "settings": ModelSettings()}
    return ModelRecord(**(fields | changes))


def pairs(*versions: tuple[VersionRecord, Release], inventory: dict[int | None, int] | None = None, **more: Any) -> Any:
    found = wanted_pairs(
        more.pop("of", model()), published=versions, rollouts=[], inventory=inventory or {}, tried=more.pop("tried", [])
    )
    return [(pair.base, pair.target) for pair in found]


def tried(base: str, target: str, size: int, *, kept: bool = True) -> DeltaRecord:
    return DeltaRecord(
        model="detector",
        base=base,
        target=target,
        target_bytes=1000,
        size_bytes=size,
        sha256=f"{size:064x}" if kept else None,
    )


def test_newest_version_gets_a_whole_and_patches_from_the_last_two() -> None:
    assert pairs(*(published(serial) for serial in (1, 2, 3, 4))) == [
        (NOTHING, digest(4)),
        (digest(3), digest(4)),
        (digest(2), digest(4)),
    ]


def test_version_that_devices_still_run_is_a_base_too() -> None:
    found = pairs(*(published(serial) for serial in (1, 2, 3, 4)), inventory={1: 7, None: 3})
    assert (digest(1), digest(4)) in found


def test_like_is_patched_from_like() -> None:
    found = pairs(published(1, "cpu", "npu"), published(2, "cpu", "npu"))
    assert (digest(1, "cpu"), digest(2, "cpu")) in found
    assert (digest(1, "cpu"), digest(2, "npu")) not in found


def built(*files: str, name: str = "cpu") -> Variant:
    """A variant of files as `name=digit`."""
    pairs = [file.split("=") for file in files]
    return Variant(
        name=name,
        files=tuple(File(name=path, size_bytes=1000, sha256=mark * 64, format="onnx") for path, mark in pairs),
    )


@pytest.mark.parametrize(
    ("before", "after", "bases"),
    [
        (["m.onnx=1", "m.data=2"], ["m.onnx=3", "m.data=4"], ["1", "2"]),
        (["m.onnx=1", "b.txt=2", "a/w=3"], ["m.onnx=4", "a/w=5", "b.txt=6"], ["1", "3", "2"]),
        (["m-1.onnx=1", "m-1.data=2"], ["m-2.onnx=3", "m-2.data=4"], ["1", "2"]),
        (["m.onnx=1", "a=2"], ["m.onnx=3", "new=4", "a=5"], ["1", None, "2"]),
        (["m.onnx=1"], ["m.onnx=3", "new=4"], ["1", None]),
    ],
    ids=["by name", "in another order", "new names by place", "a file more", "one file more at the end"],
)
def test_file_is_patched_from_the_file_of_its_name(
    before: list[str], after: list[str], bases: list[str | None]
) -> None:
    target, base = built(*after), built(*before)
    like = [like_of(file, target, base) for file in target.files]
    assert [each.sha256[0] if each else None for each in like] == bases


def test_weights_beside_a_graph_are_patched_with_the_graphs_that_describe_them() -> None:
    releases = []
    for serial, marks in ((1, "12"), (2, "34")):
        version, release = published(serial)
        files = f"onnx/m.onnx={marks[0]}", f"onnx/weights/w={marks[1]}"
        releases.append((version, msgspec.structs.replace(release, variants=(built(*files),))))
    found = wanted_pairs(model(), published=releases, rollouts=[], inventory={}, tried=[])
    graphs = {(pair.base[0], pair.target[0]): (pair.base_graph, pair.target_graph) for pair in found}
    one, two = Graph("1" * 64, "weights/w"), Graph("3" * 64, "weights/w")
    assert graphs["2", "4"] == (one, two)
    assert graphs[NOTHING[0], "4"] == (None, two)
    assert graphs["1", "3"] == (None, None)


def test_what_was_tried_is_not_tried_again() -> None:
    versions = published(1), published(2)
    known = [tried(NOTHING, digest(2), 900), tried(digest(1), digest(2), 950, kept=False)]
    assert pairs(*versions, tried=known) == []


def test_retired_version_is_neither_base_nor_target() -> None:
    assert pairs(published(1, retired=True), published(2)) == [(NOTHING, digest(2))]
    assert pairs(published(1), published(2, retired=True)) == [(NOTHING, digest(1))]


def test_model_may_ask_for_no_patches_from_earlier_versions() -> None:
    assert pairs(published(1), published(2), of=model(settings=ModelSettings(delta_bases=0))) == [(NOTHING, digest(2))]


def test_patch_over_nine_tenths_of_the_compressed_whole_is_not_kept() -> None:
    assert worth_keeping(71, target_bytes=100, whole_bytes=80)
    assert not worth_keeping(72, target_bytes=100, whole_bytes=80)
    assert not worth_keeping(90, target_bytes=100, whole_bytes=None)


def test_index_lists_direct_patches_and_what_leads_to_their_bases() -> None:
    _, release = published(3)
    known = [tried(digest(2), digest(3), 10), tried(digest(1), digest(2), 20), tried(NOTHING, digest(3), 900)]
    index = write_index(release, [*known, tried(digest(1), digest(3), 999, kept=False), tried(digest(7), digest(8), 5)])
    assert {(step.base, step.target) for step in index.steps} == {
        (digest(2), digest(3)),
        (digest(1), digest(2)),
        (NOTHING, digest(3)),
    }


def test_of_a_sealed_version_the_server_makes_no_patch_and_lists_its_publishers() -> None:
    """It has no plain bytes, neither as a base nor as a target."""
    sealed = Sealed(sha256="d" * 64, size_bytes=300)
    plain = release(1, variants=(Variant(name="cpu", files=(file("a" * 64),)),))
    secret = release(2, variants=(Variant(name="cpu", files=(file("b" * 64, sealed=sealed),)),))
    published = [(version(1), plain), (version(2), secret)]
    found = wanted_pairs(model(), published=published, rollouts=[], inventory={}, tried=[])
    assert {(pair.base, pair.target) for pair in found} == {(NOTHING, "a" * 64)}
    step = Step(base="a" * 64, target="b" * 64, target_bytes=100, sha256="e" * 64, size_bytes=9, sealed=True)
    open_patch = DeltaRecord(
        model="wake", base="a" * 64, target="b" * 64, target_bytes=100, sha256="f" * 64, size_bytes=5
    )
    assert write_index(secret, [open_patch], sealed=[step]).steps == (step,)
    assert step not in write_index(plain, [open_patch]).steps
