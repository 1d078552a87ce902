"""Golden patches: what format 2 says on one machine it says on every other, and in every later Whimbrel."""

from pathlib import Path

import pytest

from support.delta import apply, parse
from whimbrel.delta.patch import Mode

FOLDER = Path(__file__).parents[2] / "vectors" / "delta"
NAMES = sorted(path.stem for path in FOLDER.glob("*.patch"))


@pytest.mark.parametrize("name", NAMES)
def test_golden_patch_leads_to_its_target(name):
    base, target, patch = ((FOLDER / f"{name}.{kind}").read_bytes() for kind in ("base", "target", "patch"))
    assert apply(base, patch) == target


def test_golden_patches_use_every_mode():
    found = {one.mode for name in NAMES for one in parse((FOLDER / f"{name}.patch").read_bytes()).ranges()}
    assert found == set(Mode)
