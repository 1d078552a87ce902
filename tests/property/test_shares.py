"""Laws of shares: they go by the devices that follow the model, and leave every device in its bucket."""

from hypothesis import given, settings
from hypothesis import strategies as st

from support.values import SALT, Town, plan, stage, town
from whimbrel.flows.rollouts.shares import Devices, count_treated, share_for
from whimbrel.plan.governance import BlastRadius
from whimbrel.plan.plan import Plan

devices = st.sets(st.integers(0, 10_000), max_size=60)


def devices_of(here: Town) -> Devices:
    return Devices(here.fleet, "wake", salt=SALT)


def shares_of(here: Town, said: Plan) -> list[int]:
    shares: list[int] = []
    for number in range(len(said.stages)):
        shares.append(share_for(devices_of(here), said, stage=number, shares=shares))
    return shares


@settings(max_examples=30, deadline=None)
@given(
    mine=devices,
    others=devices,
    least=st.integers(1, 5),
    most=st.none() | st.integers(5, 30),
    first=st.floats(0.1, 50),
)
def test_devices_of_other_models_change_no_share_and_no_count(
    mine: set[int], others: set[int], least: int, most: int | None, first: float
) -> None:
    radius = None if most is None else BlastRadius(devices=most)
    said = plan(stage("a", first), stage("b", 60), stage("c", 100), min_devices=least, blast_radius=radius)
    with town() as here:
        here.enrol(*(f"dev-{n}" for n in mine), models=("wake",))
        alone = shares_of(here, said)
        before = list(devices_of(here).places())
        here.enrol(*(f"dev-{n}" for n in others - mine), models=("sleep",))
        assert shares_of(here, said) == alone
        places = list(devices_of(here).places())
        assert sorted(place for place, _ in places) == sorted(place for place, _ in before)
        assert alone == sorted(alone)
        if mine and most is None:
            assert count_treated(said, alone[:1], places) >= min(least, 1)
        if most is not None:
            assert count_treated(said, alone[:1], places) <= most
