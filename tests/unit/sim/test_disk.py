"""The modelled disk after a while: what was written is durable, and nothing else changed."""

import random
from pathlib import Path

import pytest

from whimbrel.sim.disk import ModelledDisk

FILE, OTHER = Path("/a/b/file"), Path("/a/other")


@pytest.fixture
def written() -> ModelledDisk:
    disk = ModelledDisk()
    disk.make_folder(FILE.parent)
    disk.write(FILE, b"one")
    disk.append(FILE, b" and two")
    disk.replace(OTHER, b"three")
    disk.add_folder(Path("/gone"))
    disk.create(Path("/gone/file"), b"four")
    disk.remove(Path("/gone"))
    return disk


def test_what_is_settled_survives_every_power_cut(written: ModelledDisk) -> None:
    before = written.fingerprint()
    assert len(list(written.states(most=500, chance=random.Random(1)))) > 1
    written.settle()
    states = list(written.states(most=500, chance=random.Random(1)))
    assert [state.fingerprint() for state in states] == [before] == [written.fingerprint()]


def test_a_settled_disk_goes_on(written: ModelledDisk) -> None:
    stamp = written.stamp(FILE)
    written.settle()
    assert written.stamp(FILE) == stamp
    written.append(FILE, b", five")
    assert written.read(FILE) == b"one and two, five"
    assert {state.read(FILE) for state in written.states(most=500, chance=random.Random(1))} >= {
        b"one and two",
        b"one and two, five",
    }
