"""The cheapest way through a delta index."""

import itertools

import msgspec
import pytest

from whimbrel import limits
from whimbrel.model.ways import NOTHING, Step, ways

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def step(base: str, target: str, size: int) -> Step:
    return Step(base=base, target=target, target_bytes=1000, sha256=f"{size:064x}", size_bytes=size)


def sizes(steps: list[Step], *, here: set[str], size: int = 1000) -> list[int]:
    return [way.size_bytes for way in ways(steps, target=C, size_bytes=1000, here=here, below=size)]


def test_patch_from_what_is_here_beats_the_compressed_whole() -> None:
    steps = [step(NOTHING, C, 800), step(B, C, 50)]
    assert sizes(steps, here={B}) == [50, 800]


def test_without_a_base_only_the_compressed_whole_is_left() -> None:
    steps = [step(NOTHING, C, 800), step(B, C, 50)]
    assert sizes(steps, here=set()) == [800]


def test_chain_is_taken_when_it_is_shorter_than_the_direct_patch() -> None:
    steps = [step(A, B, 10), step(B, C, 10), step(A, C, 900)]
    found = ways(steps, target=C, size_bytes=1000, here={A})
    assert [(way.size_bytes, len(way.steps)) for way in found] == [(20, 2), (900, 1)]
    assert [each.target for each in found[0].steps] == [B, C]


def test_base_that_is_not_here_may_be_made_from_nothing() -> None:
    steps = [step(NOTHING, B, 100), step(B, C, 10)]
    assert sizes(steps, here=set()) == [110]


def test_way_that_costs_more_than_the_file_is_none() -> None:
    assert sizes([step(B, C, 1000)], here={B}) == []
    assert sizes([step(B, C, 900)], here={B}, size=300) == []


def test_way_of_one_byte_less_than_is_asked_for_is_one_and_of_as_many_is_none() -> None:
    assert sizes([step(B, C, 999)], here={B}) == [999]
    assert sizes([step(NOTHING, B, 500), step(B, C, 500)], here=set()) == []
    assert sizes([step(NOTHING, B, 500), step(B, C, 499)], here=set()) == [999]
    assert [way.size_bytes for way in ways([step(B, C, 999)], target=C, size_bytes=1000, here={B})] == [999]
    assert ways([step(B, C, 1000)], target=C, size_bytes=1000, here={B}) == []


def test_of_two_ways_with_as_many_bytes_the_one_of_fewer_steps_comes_first() -> None:
    steps = [step(A, B, 10), step(B, C, 10), step(A, C, 20)]
    found = ways(steps, target=C, size_bytes=1000, here={A})
    assert [(way.size_bytes, len(way.steps)) for way in found] == [(20, 1), (20, 2)]


def test_cheaper_of_two_patches_to_one_base_is_taken() -> None:
    steps = [step(A, B, 300), step(NOTHING, B, 100), step(A, B, 200), step(B, C, 10)]
    assert [each.size_bytes for each in ways(steps, target=C, size_bytes=1000, here={A})[0].steps] == [100, 10]


def test_way_through_an_artifact_that_is_here_fetches_it_not() -> None:
    steps = [step(NOTHING, B, 1), step(B, C, 10)]
    assert [each.base for each in ways(steps, target=C, size_bytes=1000, here={B})[0].steps] == [B]


def test_artifact_on_the_way_may_be_so_many_times_as_large_as_the_target() -> None:
    largest = limits.DELTA_BETWEEN * limits.DELTA_BETWEEN_BYTES
    for size, found in ((largest, [20]), (largest + 1, [])):
        between = msgspec.structs.replace(step(A, B, 10), target_bytes=size)
        assert sizes([between, step(B, C, 10)], here={A}) == found
    target_bytes = 2 * limits.DELTA_BETWEEN_BYTES
    for size, count in ((limits.DELTA_BETWEEN * target_bytes, 1), (limits.DELTA_BETWEEN * target_bytes + 1, 0)):
        between = msgspec.structs.replace(step(A, B, 10), target_bytes=size)
        last = msgspec.structs.replace(step(B, C, 10), target_bytes=target_bytes)
        assert len(ways([between, last], target=C, size_bytes=target_bytes, here={A})) == count


def test_nothing_is_the_empty_artifact() -> None:
    assert NOTHING == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_circle_in_the_index_ends() -> None:
    steps = [step(A, B, 1), step(B, A, 1), step(B, C, 1)]
    assert sizes(steps, here=set()) == []


def test_chain_has_at_most_as_many_steps_as_its_limit() -> None:
    names = [f"{number:064x}" for number in range(limits.DELTA_CHAIN)]
    steps = [step(one, two, 1) for one, two in itertools.pairwise([*names, C])]
    assert sizes(steps, here={names[0]}) == [limits.DELTA_CHAIN]
    assert sizes([step(A, names[0], 1), *steps], here={A}) == []


def test_shorter_chain_is_found_where_the_cheaper_one_is_too_long() -> None:
    names = [f"{number:064x}" for number in range(limits.DELTA_CHAIN)]
    steps = [step(one, two, 1) for one, two in itertools.pairwise([A, *names])]
    assert sizes([*steps, step(A, names[-1], 500), step(names[-1], C, 1)], here={A}) == [501]


def test_way_over_an_artifact_that_claims_to_be_huge_is_none() -> None:
    huge = msgspec.structs.replace(step(A, B, 10), target_bytes=limits.ARTIFACT_BYTES)
    assert sizes([huge, step(B, C, 10), step(A, C, 900)], here={A}) == [900]


def test_last_step_that_makes_another_size_is_none() -> None:
    assert sizes([msgspec.structs.replace(step(A, C, 10), target_bytes=999)], here={A}) == []


def test_search_takes_time_in_proportion_to_the_steps() -> None:
    """4,096 steps between few artifacts took four minutes. Counted in comparisons, not in seconds."""
    looked_at = 0

    class Counted(str):
        __slots__ = ()

        def __hash__(self) -> int:
            nonlocal looked_at
            looked_at += 1
            return super().__hash__()

    names = [f"{number:064x}" for number in range(64)]
    steps = [step(one, two, 1) for one in names for two in names]
    counted = [msgspec.structs.replace(each, base=Counted(each.base)) for each in steps[: limits.DELTA_STEPS]]
    ways([*counted, step(names[1], C, 1)], target=C, size_bytes=1000, here={names[0]})
    assert len(counted) <= looked_at <= 2 * limits.DELTA_CHAIN * len(counted)


def test_step_without_bytes_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(step(A, B, 5)) | {"size_bytes": 0}, Step)
