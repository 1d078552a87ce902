"""When a device may act: what is asked for and not known counts as not given."""

import pytest

from whimbrel.device.conditions import Situation, permit, start_jitter
from whimbrel.rollout.policy import Conditions


@pytest.mark.parametrize(
    ("conditions", "situation", "now", "allowed"),
    [
        (Conditions(), Situation(), 0, True),
        (Conditions(unmetered=True), Situation(), 0, False),
        (Conditions(unmetered=True), Situation(unmetered=False), 0, False),
        (Conditions(unmetered=True), Situation(unmetered=True), 0, True),
        (Conditions(charging=True), Situation(charging=True), 0, True),
        (Conditions(idle=True), Situation(charging=True), 0, False),
        (Conditions(battery_min=0.4), Situation(), 0, False),
        (Conditions(battery_min=0.4), Situation(battery=0.39), 0, False),
        (Conditions(battery_min=0.4), Situation(battery=0.4), 0, True),
        (Conditions(battery_min=0.4), Situation(charging=True), 0, True),
        (Conditions(window_utc=(3600, 7200)), Situation(), 86400 + 3599, False),
        (Conditions(window_utc=(3600, 7200)), Situation(), 86400 + 3600, True),
        (Conditions(window_utc=(82800, 3600)), Situation(), 86400 * 3 + 100, True),
        (Conditions(window_utc=(82800, 3600)), Situation(), 86400 * 3 + 43200, False),
    ],
)
def test_permit(conditions: Conditions, situation: Situation, now: float, allowed: bool) -> None:
    answer = permit(conditions, situation, now=now)
    assert answer.allowed is allowed
    assert bool(answer.because) is not allowed


def test_jitter_is_the_same_however_often_it_is_asked_and_spreads_over_devices() -> None:
    conditions = Conditions(start_jitter_s=100)
    waits = [start_jitter(conditions, device_id=f"dev-{number}", occasion="m/1") for number in range(1000)]
    assert waits[7] == start_jitter(conditions, device_id="dev-7", occasion="m/1")
    assert all(0 <= wait < 100 for wait in waits)
    assert 45 < sum(waits) / 1000 < 55
