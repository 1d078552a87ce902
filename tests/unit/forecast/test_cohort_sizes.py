"""Fleets of a forecast: devices decide as devices do, and what is drawn adds up."""

import msgspec
import numpy as np
import pytest

from support.values import plan, stage
from whimbrel import limits
from whimbrel.forecast.cohort_sizes import count_cohorts, fleets_for
from whimbrel.forecast.effects import NOTHING_WRONG, parse_class_effect, parse_effect
from whimbrel.forecast.fleet_description import FleetDescription, PresenceGroup
from whimbrel.forecast.simulated_reports import SimulatedReports
from whimbrel.plan.governance import BlastRadius
from whimbrel.policy.decide_many import buckets

QUICK = plan(stage("canary", 5, hours=2), stage("early", 25, hours=2), stage("general", 100, hours=1))
STEADY = (PresenceGroup(name="steady", share=1.0, online=0.99, delay_h=0.5),)
BUSY = FleetDescription(sessions_a_day=60, crash=0.01, presence=STEADY)


# --- who stands where ---


def test_devices_of_a_stage_are_those_whose_buckets_are_in_its_share() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=50_000, fleets=1, seed=9)
    keys = np.random.default_rng([9, 0]).integers(0, 2**64, size=50_000, dtype=np.uint64)
    places = buckets(keys, salt=42)
    assert cohorts.shares.tolist() == [[50_000, 250_000, 900_000]]
    treated = cohorts.treated.sum(axis=(2, 3))[0].tolist()
    assert treated == [
        ((low <= places) & (places < high)).sum() for low, high in ((0, 50_000), (50_000, 250_000), (250_000, 900_000))
    ]
    control = cohorts.control.sum(axis=(3, 4))[0]
    assert [control[s, : s + 1].tolist() for s in range(3)] == [
        [(places >= share).sum()] * (s + 1) for s, share in enumerate((50_000, 250_000, 900_000))
    ]


def test_a_small_fleets_canary_is_never_empty() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=20, fleets=30, seed=1)
    assert (cohorts.treated[:, 0].sum(axis=(1, 2)) >= 1).all()
    assert (cohorts.shares[:, 0] > 50_000).any()


def test_a_stage_of_one_region_holds_devices_of_that_region_alone() -> None:
    asked = plan(stage("canary", 50, hours=1, regions=("NZ",)), stage("all", 100, hours=1))
    fleet = msgspec.structs.replace(BUSY, regions={"NZ": 0.1, "AU": 0.9})
    cohorts = count_cohorts(asked, fleet, devices=100_000, fleets=1, seed=1)
    assert cohorts.treated[0, 0].sum() == pytest.approx(100_000 * 0.1 * 0.5, rel=0.05)
    assert cohorts.control[0, 0, 0].sum() == pytest.approx(100_000 * 0.1 * 0.5, rel=0.05)


@pytest.mark.parametrize("devices", [20_000, 50_000, 200_000])
def test_the_blast_radius_caps_every_stage_but_the_last(devices: int) -> None:
    """The server counts the devices of a small fleet; of a large one the forecast meets the cap on average."""
    capped = msgspec.structs.replace(QUICK, blast_radius=BlastRadius(devices=400))
    cohorts = count_cohorts(capped, BUSY, devices=devices, fleets=4, seed=1)
    early = cohorts.treated[:, :2].sum(axis=(1, 2, 3))
    assert (early <= 400 + (100 if devices > 50_000 else 0)).all()
    assert early.mean() == pytest.approx(400, abs=40)
    assert cohorts.treated.sum(axis=(1, 2, 3)).mean() == pytest.approx(0.9 * devices, rel=0.02)


def test_a_plan_may_use_a_part_of_the_layer() -> None:
    cohorts = count_cohorts(
        msgspec.structs.replace(QUICK, range_percent=(40, 60)), BUSY, devices=100_000, fleets=1, seed=1
    )
    assert cohorts.treated.sum() == pytest.approx(0.9 * 20_000, rel=0.03)
    assert cohorts.control[0, 0, 0].sum() == pytest.approx(0.95 * 20_000, rel=0.03)


def test_large_fleets_are_shared_by_runs() -> None:
    assert fleets_for(20, 100) == 100
    assert fleets_for(10_000_000, 100) == limits.FORECAST_DECIDED // 10_000_000
    assert fleets_for(limits.FORECAST_DEVICES, 100) == 1


# --- what is drawn ---


def drawn(effect: str | None = None, *, windows: int = 30, fleet: FleetDescription = BUSY) -> SimulatedReports:
    cohorts = count_cohorts(QUICK, fleet, devices=60_000, fleets=1, seed=1)
    wrong = parse_effect(effect) if effect else NOTHING_WRONG
    reports = SimulatedReports(QUICK, fleet, cohorts, wrong, runs=4, first=0, seed=[1])
    everyone = np.ones(4, dtype=bool)
    reports.enter(0, everyone)
    for window in range(windows):
        reports.window(window)
        if window == windows // 2:
            reports.enter(1, everyone)
    return reports


def test_every_device_is_in_one_place() -> None:
    reports = drawn("bricked=10%")
    for treated, _ in reports.cohorts.values():
        alive = treated.ages.sum(axis=(0, 2, 3))
        assert (treated.waiting.sum(axis=(1, 2)) + treated.activated + treated.failed == treated.assigned).all()
        assert (alive <= treated.activated).all()
        assert alive.sum() == pytest.approx(0.9 * treated.activated.sum(), rel=0.05)
        assert (treated.reported <= alive).all()
        assert (treated.ages >= 0).all()


def test_controls_that_become_treated_leave_their_cohort() -> None:
    reports = drawn()
    first = reports.cohorts[0][1]
    left = first.waiting.sum() + first.ages.sum()
    assert left == pytest.approx(4 * 60_000 * 0.75, rel=0.02)
    assert first.assigned.sum() == pytest.approx(4 * 60_000 * 0.95, rel=0.02)


@pytest.mark.parametrize("hours", [1, 3, 30])
def test_ages_are_counted_from_the_activation(hours: int) -> None:
    """All activate within minutes, so all are in one age group afterwards."""
    at_once = msgspec.structs.replace(
        BUSY, presence=(PresenceGroup(name="all", share=1.0, online=1.0, delay_h=0.01),), install_failed=0.0
    )
    cohorts = count_cohorts(QUICK, at_once, devices=10_000, fleets=1, seed=1)
    reports = SimulatedReports(QUICK, at_once, cohorts, NOTHING_WRONG, runs=1, first=0, seed=[1])
    reports.enter(0, np.ones(1, dtype=bool))
    for window in range(12 * hours + 2):
        reports.window(window)
    group = {1: 1, 3: 2, 30: 5}[hours]
    ages = reports.cohorts[0][0].ages.sum(axis=(1, 2, 3))
    assert ages[group] == ages.sum() == reports.cohorts[0][0].activated.sum()


def test_rates_are_those_of_the_shape_and_of_the_effect() -> None:
    cohorts = count_cohorts(QUICK, BUSY, devices=200_000, fleets=1, seed=1)
    effect = parse_class_effect("b:crash=4x", classes=["a", "b", "c", "d"])
    reports = SimulatedReports(QUICK, BUSY, cohorts, effect, runs=6, first=0, seed=[1])
    reports.enter(0, np.ones(6, dtype=bool))
    crashed, active = np.zeros((2, 4)), np.zeros((2, 4))
    for window in range(40):
        for side, arm in enumerate(reports.window(window)[0]):
            crashed[side] += arm.crashed.sum(axis=(0, 1))
            active[side] += np.asarray(arm.error_units).sum(axis=(0, 1))
    assert crashed[1] / active[1] == pytest.approx([0.01] * 4, rel=0.05)
    assert crashed[0] / active[0] == pytest.approx([0.01, 0.04, 0.01, 0.01], rel=0.15)
