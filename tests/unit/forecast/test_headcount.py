"""Fleets of a forecast: devices decide as devices do, and what is drawn adds up."""

import msgspec
import numpy as np
import pytest

from support.values import plan, stage
from whimbrel import limits
from whimbrel.forecast.effects import NOTHING_WRONG, parse_class_effect, parse_effect
from whimbrel.forecast.headcount import count, fleets_for
from whimbrel.forecast.shape import Presence, Shape
from whimbrel.forecast.streams import Streams
from whimbrel.plan.governance import BlastRadius
from whimbrel.policy.decide_many import buckets

QUICK = plan(stage("canary", 5, hours=2), stage("early", 25, hours=2), stage("general", 100, hours=1))
STEADY = (Presence(name="steady", share=1.0, online=0.99, delay_h=0.5),)
BUSY = Shape(sessions_a_day=60, crash=0.01, presence=STEADY)


# --- who stands where ---


def test_devices_of_a_stage_are_those_whose_buckets_are_in_its_share() -> None:
    head = count(QUICK, BUSY, devices=50_000, fleets=1, seed=9)
    keys = np.random.default_rng([9, 0]).integers(0, 2**64, size=50_000, dtype=np.uint64)
    places = buckets(keys, salt=42)
    assert head.shares.tolist() == [[50_000, 250_000, 900_000]]
    treated = head.treated.sum(axis=(2, 3))[0].tolist()
    assert treated == [
        ((low <= places) & (places < high)).sum() for low, high in ((0, 50_000), (50_000, 250_000), (250_000, 900_000))
    ]
    control = head.control.sum(axis=(3, 4))[0]
    assert [control[s, : s + 1].tolist() for s in range(3)] == [
        [(places >= share).sum()] * (s + 1) for s, share in enumerate((50_000, 250_000, 900_000))
    ]


def test_a_small_fleets_canary_is_never_empty() -> None:
    head = count(QUICK, BUSY, devices=20, fleets=30, seed=1)
    assert (head.treated[:, 0].sum(axis=(1, 2)) >= 1).all()
    assert (head.shares[:, 0] > 50_000).any()


def test_a_stage_of_one_region_holds_devices_of_that_region_alone() -> None:
    asked = plan(stage("canary", 50, hours=1, regions=("NZ",)), stage("all", 100, hours=1))
    shape = msgspec.structs.replace(BUSY, regions={"NZ": 0.1, "AU": 0.9})
    head = count(asked, shape, devices=100_000, fleets=1, seed=1)
    assert head.treated[0, 0].sum() == pytest.approx(100_000 * 0.1 * 0.5, rel=0.05)
    assert head.control[0, 0, 0].sum() == pytest.approx(100_000 * 0.1 * 0.5, rel=0.05)


@pytest.mark.parametrize("devices", [20_000, 200_000])
def test_the_blast_radius_caps_every_stage_but_the_last(devices: int) -> None:
    """The server counts the devices of a small fleet; of a large one the forecast meets the cap on average."""
    capped = msgspec.structs.replace(QUICK, blast_radius=BlastRadius(devices=400))
    head = count(capped, BUSY, devices=devices, fleets=4, seed=1)
    early = head.treated[:, :2].sum(axis=(1, 2, 3))
    assert (early <= 400 + (100 if devices > 50_000 else 0)).all()
    assert early.mean() == pytest.approx(400, abs=40)
    assert head.treated.sum(axis=(1, 2, 3)).mean() == pytest.approx(0.9 * devices, rel=0.02)


def test_a_plan_may_use_a_part_of_the_layer() -> None:
    head = count(msgspec.structs.replace(QUICK, range_percent=(40, 60)), BUSY, devices=100_000, fleets=1, seed=1)
    assert head.treated.sum() == pytest.approx(0.9 * 20_000, rel=0.03)
    assert head.control[0, 0, 0].sum() == pytest.approx(0.95 * 20_000, rel=0.03)


def test_large_fleets_are_shared_by_runs() -> None:
    assert fleets_for(20, 100) == 100
    assert fleets_for(10_000_000, 100) == limits.FORECAST_DECIDED // 10_000_000
    assert fleets_for(limits.FORECAST_DEVICES, 100) == 1


# --- what is drawn ---


def drawn(effect: str | None = None, *, windows: int = 30, shape: Shape = BUSY) -> Streams:
    head = count(QUICK, shape, devices=60_000, fleets=1, seed=1)
    wrong = parse_effect(effect) if effect else NOTHING_WRONG
    streams = Streams(QUICK, shape, head, wrong, runs=4, first=0, seed=[1])
    everyone = np.ones(4, dtype=bool)
    streams.enter(0, everyone)
    for window in range(windows):
        streams.window(window)
        if window == windows // 2:
            streams.enter(1, everyone)
    return streams


def test_every_device_is_in_one_place() -> None:
    streams = drawn("bricked=10%")
    for treated, _ in streams.cohorts.values():
        alive = treated.ages.sum(axis=(0, 2, 3))
        assert (treated.waiting.sum(axis=(1, 2)) + treated.activated + treated.failed == treated.assigned).all()
        assert (alive <= treated.activated).all()
        assert alive.sum() == pytest.approx(0.9 * treated.activated.sum(), rel=0.05)
        assert (treated.reported <= alive).all()
        assert (treated.ages >= 0).all()


def test_controls_that_become_treated_leave_their_cohort() -> None:
    streams = drawn()
    first = streams.cohorts[0][1]
    left = first.waiting.sum() + first.ages.sum()
    assert left == pytest.approx(4 * 60_000 * 0.75, rel=0.02)
    assert first.assigned.sum() == pytest.approx(4 * 60_000 * 0.95, rel=0.02)


@pytest.mark.parametrize("hours", [1, 3, 30])
def test_ages_are_counted_from_the_activation(hours: int) -> None:
    """All activate within minutes, so all are in one age group afterwards."""
    at_once = msgspec.structs.replace(
        BUSY, presence=(Presence(name="all", share=1.0, online=1.0, delay_h=0.01),), install_failed=0.0
    )
    head = count(QUICK, at_once, devices=10_000, fleets=1, seed=1)
    streams = Streams(QUICK, at_once, head, NOTHING_WRONG, runs=1, first=0, seed=[1])
    streams.enter(0, np.ones(1, dtype=bool))
    for window in range(12 * hours + 2):
        streams.window(window)
    group = {1: 1, 3: 2, 30: 5}[hours]
    ages = streams.cohorts[0][0].ages.sum(axis=(1, 2, 3))
    assert ages[group] == ages.sum() == streams.cohorts[0][0].activated.sum()


def test_rates_are_those_of_the_shape_and_of_the_effect() -> None:
    head = count(QUICK, BUSY, devices=200_000, fleets=1, seed=1)
    effect = parse_class_effect("b:crash=4x", classes=["a", "b", "c", "d"])
    streams = Streams(QUICK, BUSY, head, effect, runs=6, first=0, seed=[1])
    streams.enter(0, np.ones(6, dtype=bool))
    crashed, active = np.zeros((2, 4)), np.zeros((2, 4))
    for window in range(40):
        for side, arm in enumerate(streams.window(window)[0]):
            crashed[side] += arm.crashed.sum(axis=(0, 1))
            active[side] += np.asarray(arm.error_units).sum(axis=(0, 1))
    assert crashed[1] / active[1] == pytest.approx([0.01] * 4, rel=0.05)
    assert crashed[0] / active[0] == pytest.approx([0.01, 0.04, 0.01, 0.01], rel=0.15)
