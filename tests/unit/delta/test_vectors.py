"""Golden patches: what format 2 says on one machine it says on every other, and in every later Whimbrel."""

from pathlib import Path

import pytest

from support.delta import apply, encode, parse
from whimbrel.delta.patch import Group, Mode, count_parts

FOLDER = Path(__file__).parents[2] / "vectors" / "delta"
NAMES = sorted(path.stem for path in FOLDER.glob("*.patch"))


@pytest.mark.parametrize("name", NAMES)
def test_golden_patch_leads_to_its_target(name):
    base, target, patch = ((FOLDER / f"{name}.{kind}").read_bytes() for kind in ("base", "target", "patch"))
    assert apply(base, patch) == target


def test_golden_patches_use_every_mode():
    found = {one.mode for name in NAMES for one in parse((FOLDER / f"{name}.patch").read_bytes()).ranges()}
    assert found == set(Mode)


MADE_TODAY = [  # the others were made by hand, or with limits of their own
    *("bf16", "f16", "f32", "i8", "lowrank_bf16", "lowrank_f16", "lowrank_f32", "q4_0", "q4_1", "q4_k", "q5_0", "q5_1"),
    *("q5_k", "q8_0", "whole"),
]


@pytest.mark.parametrize("name", MADE_TODAY)
def test_golden_patch_is_made_as_it_was(name):
    """Which bytes come from where, and how they are coded; a part of libraries (zstd) may become smaller."""
    base, target, kept = ((FOLDER / f"{name}.{kind}").read_bytes() for kind in ("base", "target", "patch"))
    golden, made = (parse(patch) for patch in (kept, encode(base, target)))
    assert list(made.ranges()) == list(golden.ranges())
    assert made.dictionary == golden.dictionary
    assert (made.base, made.target) == (golden.base, golden.target)
    assert made.output_checks.tolist() == golden.output_checks.tolist()
    assert made.size_bytes <= golden.size_bytes


@pytest.mark.parametrize("name", [name for name in MADE_TODAY if not name.startswith(("lowrank", "whole"))])
def test_numbers_are_coded_to_the_same_bytes(name):
    """Our own coders depend on no library. (Factors of low-rank changes depend on the machine's linear algebra.)"""
    base, target, kept = ((FOLDER / f"{name}.{kind}").read_bytes() for kind in ("base", "target", "patch"))
    parts = [
        [patch[start : start + size] for start, size in (parsed.part(index) for index in coded_parts(parsed))]
        for patch, parsed in ((one, parse(one)) for one in (kept, encode(base, target)))
    ]
    assert parts[0] == parts[1] != []


def coded_parts(parsed):
    """The parts of groups."""
    units = [unit for unit in parsed.units() if isinstance(unit, Group)]
    return [part for unit in units for part in range(unit.part, unit.part + count_parts(unit))]
