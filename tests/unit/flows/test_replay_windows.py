"""A file of windows tells nothing of single devices: what became of them follows from how many spoke."""

import random

from support.values import cell, plan, stage
from whimbrel.flows.replay_windows import WindowVerdict, replay_windows
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Plan

DAY = plan(stage(hours=24), stage("all", 100, hours=0))
WINDOWS = int(24 * 3600 / DAY.window_s())


def windows(*, treated: int, last: int, after: int = WINDOWS // 2, spread: float = 0.0, **more: object) -> list[Cell]:
    """`treated` devices that speak in every window, `last` of them from window `after` on; 2,000 controls."""
    chance = random.Random(7)

    def spoke(count: int) -> int:
        return sum(chance.random() >= spread for _ in range(count))

    made = []
    for w in range(WINDOWS):
        made.append(cell("treated", w, n=spoke(treated if w < after else last), **more))
        made.append(cell("control", w, n=spoke(2000)))
    return made


def last(asked: Plan, cells: list[Cell]) -> WindowVerdict:
    return list(replay_windows(asked, cells))[-1]


def test_a_stage_of_which_fewer_and_fewer_devices_speak_holds() -> None:
    verdict = last(DAY, windows(treated=200, last=20)).verdict
    assert verdict.move == "hold"
    assert "only 20 of the 200 devices that reported are still heard" in verdict.because
    assert last(DAY, windows(treated=200, last=140)).verdict.move == "hold"


def test_devices_that_speak_in_some_windows_alone_are_not_silent() -> None:
    for few in (20, 100, 400):
        assert last(DAY, windows(treated=few, last=few, spread=0.4)).verdict.move == "advance"


def test_a_stage_that_fills_up_and_a_fleet_that_sleeps_hold_nothing() -> None:
    assert last(DAY, windows(treated=20, last=200)).verdict.move == "advance"
    night = [
        cell(each.role, each.window, n=each.at_risk if each.window < WINDOWS * 3 // 4 else each.at_risk * 3 // 5)
        for each in windows(treated=200, last=200)
    ]
    assert last(DAY, night).verdict.move == "advance"


def test_an_arm_that_says_nothing_at_all_any_more_is_silent() -> None:
    gone = [each for each in windows(treated=200, last=200) if each.role == "control" or each.window < WINDOWS // 2]
    assert last(DAY, gone).verdict.move == "hold"
