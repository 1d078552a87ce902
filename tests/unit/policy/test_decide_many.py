"""Large fleets: what arrays decide where there are many devices, stretches, kinds and pins at once.

tests/property/test_decide_many.py has the law, on small random policies; here stand the sizes that it never draws.
"""

import numpy as np
import pytest

from support.values import SALT, arm, line, policy, selector
from whimbrel.policy.bucket import BUCKETS, device_key
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.decide_many import BareDecision, Kind, decide_many
from whimbrel.policy.policy import Entry, Layer, Pin, Policy

KINDS = [Kind(), Kind({"region": "NZ"}), Kind({"region": "NZ"}, frozenset({2}))]


def decided(asked: Policy, ids: list[str], kind: "np.ndarray[tuple[int], np.dtype[np.uint8]]") -> list[BareDecision]:
    keys = np.array([device_key(each) for each in ids], dtype=np.uint64)
    many = decide_many(asked, line(), keys, kind, KINDS)
    return [many.decisions[which] for which in many.which]


def alone(asked: Policy, device: str, kind: Kind) -> BareDecision:
    one = decide(asked, line(), Profile(device, kind.labels, kind.refused))
    return BareDecision(one.serial, one.offer, one.assignments, one.beside)


def test_a_fleet_of_several_chunks_is_decided_to_its_last_device() -> None:
    """Three chunks of 16,384 devices, the last one of few: the first and the last of each, and some between."""
    ids = [f"dev-{n}" for n in range(2 * 16_384 + 9)]
    kind = np.array([n % 3 for n in range(len(ids))], dtype=np.uint8)
    asked = policy(
        pins=(Pin(serial=7, devices=(ids[5], ids[-2])), Pin(serial=8, devices=(ids[16_384], ids[5]))),
        layers=(
            Layer(salt=7, entries=(Entry(rollout="r2", arms=(arm("treated", 0, 200_000, serial=3),), end=200_000),)),
            *policy().layers,
        ),
    )
    many = decided(asked, ids, kind)
    places = {0, 1, 5, 16_383, 16_384, 16_385, 32_767, 32_768, *range(32_769, len(ids)), *range(0, len(ids), 37)}
    assert {place: many[place] for place in places} == {
        place: alone(asked, ids[place], KINDS[kind[place]]) for place in places
    }
    assert [many[place].serial for place in (5, 16_384, len(ids) - 2)] == [7, 8, 7]


@pytest.mark.parametrize(("arms", "more"), [(64, 0), (128, 0), (128, 1), (200, 0)])
def test_as_many_stretches_of_buckets_as_a_layer_may_have_are_told_apart(arms: int, more: int) -> None:
    """A table of 256 stretches is numbered in bytes, and one of 257 is not; two kinds of devices look into it."""
    width = BUCKETS // arms
    every = [arm("treated", width * n, width * n + width // 2, serial=n + 2, stage=n % 32) for n in range(arms)]
    entries = tuple(
        Entry(
            rollout=f"r{n}",
            arms=tuple(every[n : n + 64]),
            start=every[n].start,
            end=every[min(n + 64, arms) - 1].end + (more if n + 64 >= arms else 0),
            selector=selector(region="NZ"),
        )
        for n in range(0, arms, 64)
    )
    asked = policy(layers=(Layer(salt=SALT, entries=entries),))
    ids = [f"dev-{n}" for n in range(900)]
    kind = np.array([n % 2 for n in range(len(ids))], dtype=np.uint8)
    many = decided(asked, ids, kind)
    assert many == [alone(asked, device, KINDS[which]) for device, which in zip(ids, kind, strict=True)]
    assert len({each.serial for each in many}) > arms / 2


def test_a_pin_by_selector_and_pins_by_id_are_kept_among_many() -> None:
    ids = [f"dev-{n}" for n in range(300)]
    kind = np.array([n % 3 for n in range(len(ids))], dtype=np.uint8)
    asked = policy(
        pins=(Pin(serial=9, selector=selector(region="NZ")), Pin(serial=2, devices=(ids[0], ids[2], ids[3])))
    )
    many = decided(asked, ids, kind)
    assert many == [alone(asked, device, KINDS[which]) for device, which in zip(ids, kind, strict=True)]
    assert [each.serial for each in many[:4]] == [2, 9, 9, 2]


def test_no_devices_have_no_decisions() -> None:
    many = decide_many(policy(), line(), np.array([], dtype=np.uint64), np.array([], dtype=np.uint8), KINDS)
    assert many.which.tolist() == []
