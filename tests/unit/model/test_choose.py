"""Which build of a version fits a device?"""

import pytest

from support.values import file, release, selector
from whimbrel.model.choose import Capacity, choose_variant, fitting_variants, telling_labels
from whimbrel.model.release import Probe, Release, Variant
from whimbrel.model.selector import EVERYONE, Expression, Selector

MIB = 2**20


def build(name: str, asks: Selector = EVERYONE) -> Variant:
    return Variant(name=name, files=(file(),), selector=asks)


def version_of(selector_key: str, *values: str) -> Selector:
    return Selector(match_expressions=(Expression(key=selector_key, operator="Version", values=values),))


def names(release: Release, **labels: str) -> list[str]:
    return [each.name for each in fitting_variants(release, labels)]


def test_the_first_variant_in_the_publishers_order_that_fits_is_chosen() -> None:
    made = release(variants=(build("npu", selector(chip="x1")), build("gpu", selector(os="linux")), build("any")))
    assert names(made, chip="x1", os="linux") == ["npu", "gpu", "any"]
    assert names(made, os="linux") == ["gpu", "any"]
    chosen = choose_variant(made, {"chip": "x1"})
    assert chosen is not None
    assert chosen.name == "npu"


def test_a_device_that_no_variant_fits_is_offered_none() -> None:
    assert choose_variant(release(variants=(build("npu", selector(chip="x1")),)), {"chip": "x2"}) is None


@pytest.mark.parametrize(
    ("builds", "told"),
    [
        ((EVERYONE, EVERYONE), set()),
        ((selector(os="linux"),), set()),
        ((selector(os="linux"), selector(os="linux")), set()),
        ((selector(os="linux"), selector(os="ios")), {"os"}),
        ((selector(os="linux", chip="x1"), selector(os="linux"), EVERYONE), {"os", "chip"}),
        ((selector(os="linux", chip="x1"), selector(os="linux", chip="x2")), {"chip"}),
        ((version_of("app", ">=2"), version_of("app", ">=2")), set()),
        ((version_of("app", ">=2"), version_of("app", ">=3")), {"app"}),
        (
            (
                selector(os="linux"),
                Selector(match_expressions=(Expression(key="os", operator="In", values=("linux",)),)),
            ),
            set(),  # the same said in two ways
        ),
    ],
)
def test_a_variants_name_tells_the_labels_that_only_some_variants_ask_for(
    builds: tuple[Selector, ...], told: set[str]
) -> None:
    made = release(variants=tuple(build(f"v{number}", each) for number, each in enumerate(builds)))
    assert telling_labels(made) == told


@pytest.mark.parametrize(
    ("capacity", "holds"),
    [
        (Capacity(), True),
        (Capacity(memory_mib=3), True),
        (Capacity(memory_mib=2), False),
        (Capacity(room_bytes=3 * MIB), True),
        (Capacity(room_bytes=3 * MIB - 1), False),
        (Capacity(memory_mib=2, room_bytes=3 * MIB), False),
        (Capacity(memory_mib=3, room_bytes=3 * MIB - 1), False),
        (Capacity(memory_mib=3, room_bytes=3 * MIB), True),
    ],
)
def test_a_build_without_a_budget_needs_the_memory_and_the_room_of_its_files(capacity: Capacity, holds: bool) -> None:
    files = (file(size_bytes=2 * MIB), file(name="b", size_bytes=MIB))
    assert capacity.holds(Variant(name="cpu", files=files)) is holds
    assert capacity.holds(Variant(name="cpu", files=files, probe=Probe())) is holds


@pytest.mark.parametrize(("memory_mib", "holds"), [(64, True), (63, False), (None, True)])
def test_a_build_with_a_budget_needs_the_memory_that_its_probe_allows(memory_mib: int | None, holds: bool) -> None:
    made = Variant(name="cpu", files=(file(size_bytes=99 * MIB),), probe=Probe(memory_mib_max=64))
    assert Capacity(memory_mib=memory_mib).holds(made) is holds
    assert not Capacity(memory_mib=memory_mib, room_bytes=98 * MIB).holds(made)
