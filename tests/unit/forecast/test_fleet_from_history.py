"""A fleet from history: its numbers where there are enough, defaults where there are not, and which."""

import math

import pytest

from whimbrel.errors import Refused
from whimbrel.flows.reports.history import Delays, History, Running
from whimbrel.forecast.fleet_description import FleetDescription
from whimbrel.forecast.fleet_from_history import fleet_from_history, sizes_from_history

DAY = tuple(100 + 10 * hour for hour in range(24))
FULL = History(
    model="wake",
    devices=500,
    rollouts=2,
    at_risk=24_000,
    active=sum(DAY),
    crashed=43,
    errors=21.5,
    at_risk_by_hour=(1000,) * 24,
    active_by_hour=DAY,
    labelled=2000,
    right=1700.0,
    latency_p50_ms=10.0,
    latency_p99_ms=40.0,
    due=1000,
    overdue=8,
    tried=2000,
    failed=3,
    hardware={"pi4": 300, "pi5": 200},
    delays=Delays(mean_h=(0.5, 1.0, 2.0, 6.0), never=0.2, devices=100),
    running=(
        Running(version="1.0", serial=1, devices=300, way="delta", size_bytes=5),
        Running(version=None, serial=None, devices=100, way="whole", size_bytes=90),
    ),
)


def test_a_full_history_leaves_nothing_to_defaults() -> None:
    fleet, unknown = fleet_from_history(FULL)
    assert unknown == []
    assert (fleet.crash, fleet.error) == (pytest.approx(43 / 5160, rel=1e-3), pytest.approx(21.5 / 5160, rel=1e-3))
    assert fleet.accuracy == pytest.approx(0.85)
    assert fleet.hardware == {"pi4": 0.6, "pi5": 0.4}
    assert [(each.share, each.delay_h) for each in fleet.presence] == [
        (pytest.approx(0.2), hours) for hours in (0.5, 1.0, 2.0, 6.0, None)
    ]
    assert fleet.presence[0].online == pytest.approx(0.8)  # of a thousand, eight missed three reports in a row
    assert [(base.name, base.share, base.way) for base in fleet.versions] == [
        ("1.0", 0.75, "delta"),
        ("none", 0.25, "whole"),
    ]
    assert fleet.latency_ms * math.exp(2.3263 * fleet.latency_spread) == pytest.approx(40.0)
    assert "2 rollouts" in fleet.source


@pytest.mark.parametrize("hour", [0, 23])
def test_sessions_come_back_as_they_were_told(hour: int) -> None:
    fleet, _ = fleet_from_history(FULL)
    assert fleet.sessions(hour, window_s=300) == pytest.approx(DAY[hour] / 1000, rel=1e-6)


def test_what_too_few_told_is_a_default_and_is_said() -> None:
    fleet, unknown = fleet_from_history(History(model="wake", devices=3, at_risk=10, rollouts=1))
    assert fleet.crash == FleetDescription().crash
    assert fleet.presence == FleetDescription().presence
    assert {each.partition(" (")[0] for each in unknown} == {
        "sessions and rates",
        "accuracy",
        "latency",
        "failures of installs",
        "hardware classes",
        "delays",
        "versions",
    }


def test_no_history_is_no_forecast() -> None:
    with pytest.raises(Refused, match="no device reported"):
        fleet_from_history(History(model="wake", devices=3))


def test_many_versions_are_counted_together() -> None:
    many = History(
        model="wake",
        devices=40,
        at_risk=1,
        running=tuple(Running(version=f"{n}.0", serial=n, devices=2, way="delta", size_bytes=n) for n in range(1, 21)),
    )
    fleet, _ = fleet_from_history(many)
    sizes = sizes_from_history(many)
    assert sizes is not None
    assert {base.name for base in fleet.versions} == sizes.by_version.keys()
    assert sizes.by_version["others"] == ("whole", pytest.approx(18.0))
    assert sum(base.share for base in fleet.versions) == pytest.approx(1)
    assert (
        sizes_from_history(History(model="wake", devices=3, running=(Running(version="1", serial=1, devices=3),)))
        is None
    )
