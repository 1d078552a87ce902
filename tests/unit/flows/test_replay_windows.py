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


def counted(cells: list[Cell], *, asked: Plan = DAY) -> list[tuple[int, int, str]]:
    return [(each.window, each.stage, each.stage_name) for each in replay_windows(asked, cells)]


def test_the_stage_is_the_highest_with_treated_devices_so_far() -> None:
    cells = [
        cell("control", 0, n=9),
        cell("treated", 1, n=1),
        cell("control", 2, n=9, stage=1),
        cell("treated", 3, n=1, stage=1),
        cell("treated", 5, n=1),  # late: the stage never goes back
    ]
    assert counted(cells) == [(0, 0, "canary"), (1, 0, "canary"), (2, 0, "canary"), (3, 1, "all"), (5, 1, "all")]


def test_a_stage_soaks_from_its_first_window_on() -> None:
    hour = plan(stage(hours=1), stage("all", 100, hours=0))
    cells = [cell(role, w, n=n) for w in range(20) for role, n in (("treated", 50), ("control", 500))]
    moves = [each.verdict.move for each in replay_windows(hour, cells)]
    assert moves[:12] == ["wait"] * 11 + ["advance"]  # the twelfth five minutes end the hour
    later = [cell(role, w, n=n) for w in range(7, 27) for role, n in (("treated", 50), ("control", 500))]
    assert [each.verdict.move for each in replay_windows(hour, later)][:12] == moves[:12]


def test_nothing_is_asked_after_it_went_back() -> None:
    harm = [
        cell(role, w, n=n, crashed=bad)
        for w in range(40)
        for role, n, bad in (("treated", 100, 40), ("control", 1900, 19))
    ]
    verdicts = list(replay_windows(DAY, harm))
    assert verdicts[-1].verdict.move == "roll_back"
    assert len(verdicts) < 40
    assert {each.verdict.move for each in verdicts[:-1]} <= {"wait"}


def test_a_slice_that_went_back_is_left_out_from_then_on() -> None:
    cells = [
        cell(role, w, n=n, crashed=(n // 4 if (name, role) == ("c0", "treated") else n // 100), hardware_class=name)
        for w in range(60)
        for name in ("c0", "c1", "c2", "c3")
        for role, n in (("treated", 100), ("control", 1900))
    ]
    verdicts = [each.verdict for each in replay_windows(DAY, cells)]
    (back,) = [each for each in verdicts if each.move == "slice_back"]
    assert back.classes == ("c0",)
    assert verdicts[-1].move == "wait"
    assert len(verdicts) == 60


def test_an_arm_that_is_silent_is_missed_by_the_mean_of_an_hour() -> None:
    """The busiest hour had 100 of 100 devices; a quarter of the last hour's reports did not come."""
    day = int(24 * 3600 / DAY.window_s())
    cells = [
        cell(role, w, n=(n if role == "control" or w < day - 6 else n // 2))
        for w in range(day)
        for role, n in (("treated", 100), ("control", 1900))
    ]
    said = last(DAY, cells).verdict.because
    assert "only 75 of the 100 devices that reported are still heard" in said
