"""Deciding for arrays of devices is deciding for each of them."""

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from support.policies import arms, devices, labels, lines, policies, serials
from support.values import SALT
from whimbrel.model.release import Line
from whimbrel.policy.bucket import bucket, device_key
from whimbrel.policy.decide import Profile, decide
from whimbrel.policy.decide_many import BareDecision, Kind, buckets, decide_many, xxh64
from whimbrel.policy.policy import Arm, Entry, Layer, Policy

kinds_of_devices = st.lists(
    st.builds(Kind, labels=labels, refused=st.frozensets(serials, max_size=2)), min_size=1, max_size=4
)


@settings(max_examples=400, deadline=None)
@given(
    policy=policies,
    line=lines,
    kinds=kinds_of_devices,
    ids=st.lists(devices, min_size=1, max_size=40, unique=True),
    draw=st.randoms(use_true_random=False),
)
def test_arrays_decide_as_each_device_does(policy: Policy, line: Line, kinds: list[Kind], ids: list[str], draw) -> None:
    kind = np.array([draw.randrange(len(kinds)) for _ in ids], dtype=np.uint16)
    keys = np.array([device_key(each) for each in ids], dtype=np.uint64)
    decided = decide_many(policy, line, keys, kind, kinds)
    for place, each in enumerate(ids):
        mine = kinds[kind[place]]
        alone = decide(policy, line, Profile(each, mine.labels, mine.refused))
        assert decided.decisions[decided.which[place]] == BareDecision(
            alone.serial, alone.offer, alone.assignments, alone.beside
        )


@settings(max_examples=60, deadline=None)
@given(few=st.lists(arms(), min_size=1, max_size=6), salt=st.integers(0, 2**53 - 1))
def test_devices_on_both_sides_of_every_edge_decide_alike(few: list[Arm], salt: int) -> None:
    """Random devices seldom stand at an edge: every bucket next to one is asked."""
    ids = [f"dev-{index}" for index in range(300)]
    places = sorted(bucket(device_key(each), salt=salt) for each in ids)
    # Arms that begin exactly where a device stands.
    exact = [
        Arm(role=arm.role, name=arm.name, stage=arm.stage, serial=arm.serial, start=places[7 * n], end=places[-1 - n])
        for n, arm in enumerate(few)
    ]
    for chosen in (tuple(few), tuple(exact)):
        policy = Policy(
            model="wake",
            sequence=1,
            baseline=1,
            layers=(Layer(salt=salt, entries=(Entry(rollout="r1", arms=chosen),)),),
        )
        keys = np.array([device_key(each) for each in ids], dtype=np.uint64)
        decided = decide_many(
            policy, Line(model="wake", sequence=1), keys, np.zeros(len(ids), dtype=np.uint8), [Kind()]
        )
        for place, each in enumerate(ids):
            alone = decide(policy, Line(model="wake", sequence=1), Profile(each))
            assert decided.decisions[decided.which[place]] == BareDecision(
                alone.serial, alone.offer, alone.assignments, alone.beside
            )


@given(values=st.lists(st.integers(0, 2**64 - 1), max_size=50), seed=st.integers(0, 2**64 - 1))
def test_the_hash_of_arrays_is_xxhash(values: list[int], seed: int) -> None:
    keys = np.array(values, dtype=np.uint64)
    expected = [xxhash.xxh64_intdigest(value.to_bytes(8, "little"), seed=seed) for value in values]
    assert xxh64(keys, seed=seed).tolist() == expected


def test_the_vector_of_the_design_falls_into_its_bucket() -> None:
    keys = np.array([device_key("dev-1")], dtype=np.uint64)
    assert keys.tolist() == [10522668389010243576]
    assert buckets(keys, salt=SALT).tolist() == [586382]
