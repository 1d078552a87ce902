"""Harm that begins late: copies of every test begin anew at each hour of a stage."""

import math
from typing import Any

import pytest

from support.values import accuracy, cell, gate_input, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.restarts import Restarts, place_of, to_come
from whimbrel.gate.verdict import Verdict
from whimbrel.health.tally import Cell
from whimbrel.plan.plan import Rollback

HOUR = 12  # windows
ONSET = 20 * HOUR  # of a canary of a day


def window(w: int, *, crashed: int, n: int = 500) -> list[Cell]:
    """A window of 500 treated devices, and of 9,500 controls of which 1% crash."""
    return [cell("treated", w, n=n, crashed=crashed), cell("control", w, n=19 * n, crashed=95 * n // 500)]


def taken_back(*, onset: int, until: int, crashed: int = 10) -> int | None:
    """The window in which it goes back, where its devices crash twice as often from `onset` on."""
    ledger = Ledger(plan())
    for w in range(until):
        now = gate_input(*window(w, crashed=crashed if w >= onset else 5), soaked_s=60)
        if judge(plan(), now, ledger).move == "roll_back":
            return w
    return None


@pytest.mark.parametrize("onset", [0, 54, 162, ONSET])
def test_crashes_that_double_are_found_within_70_minutes_of_any_onset(onset: int) -> None:
    """From hour 20 of a canary it was found eight hours later, after the version was promoted."""
    found = taken_back(onset=onset, until=onset + 30)
    assert found is not None
    assert onset <= found < onset + 14


def test_a_day_without_harm_goes_back_nowhere() -> None:
    assert taken_back(onset=10**6, until=24 * HOUR) is None


def test_the_sentence_of_a_promotion_speaks_of_the_last_hours() -> None:
    ledger = Ledger(plan())
    ledger.fold([each for w in range(24 * HOUR) for each in window(w, crashed=5)])
    verdict = judge(plan(), gate_input(), ledger)
    assert verdict.move == "advance"
    assert "x the control's in its last 3 h would have been seen with 80% chance" in verdict.because
    assert verdict.evidence["detectable_hours"] == 3
    quiet = Ledger(plan())
    quiet.fold([each for w in range(20 * HOUR) for each in window(w, crashed=5)])
    quiet.fold([each for w in range(20 * HOUR, 24 * HOUR) for each in window(w, crashed=1, n=100)])
    fewer = judge(plan(), gate_input(), quiet).evidence["detectable_crash_ratio"]
    assert fewer["0.8"] > verdict.evidence["detectable_crash_ratio"]["0.8"]


def test_a_stage_of_less_than_three_hours_is_spoken_of_as_a_whole() -> None:
    ledger = Ledger(plan())
    ledger.fold([each for w in range(HOUR) for each in window(w, crashed=5)])
    verdict = judge(plan(), gate_input(), ledger)
    assert "x the control's would have been seen with 80% chance" in verdict.because
    assert "detectable_hours" not in verdict.evidence


def test_an_hour_is_so_many_windows() -> None:
    hourly = plan(rollback=Rollback(health_check_interval_sec=1800))
    ledger = Ledger(hourly)
    ledger.fold([each for w in range(7) for each in window(w, crashed=5)])
    tests = ledger.cohorts[0].tests
    assert tests is not None
    restarts = tests.rates["crash"].restarts
    assert restarts is not None
    assert [each.hour for each in restarts.live] == [1, 2, 3]


def test_windows_at_once_and_one_by_one_agree_over_hours_and_gaps() -> None:
    made = [each for w in (*range(30), *range(70, 130)) for each in window(w, crashed=5 + w % 3)]
    one, many = Ledger(plan()), Ledger(plan())
    one.fold(made)
    for w in sorted({each.window for each in made}):
        many.fold([each for each in made if each.window == w])
    assert judge(plan(), gate_input(), one) == judge(plan(), gate_input(), many)


# --- the figures of what is proven ---


def judged_each_window(cells: list[list[Cell]], **changes: Any) -> Verdict:
    """The first verdict that is not to wait, or the last one."""
    asked = plan(**changes)
    ledger, verdict = Ledger(asked), None
    for each in cells:
        verdict = judge(asked, gate_input(*each, soaked_s=60), ledger)
        if verdict.move != "wait":
            return verdict
    assert verdict is not None
    return verdict


def test_a_rollback_tells_the_rates_of_the_hours_in_which_its_harm_is_proven() -> None:
    """It told the mean since the stage began: a crash rate that doubled was "0.93% against 0.89% in the control"."""
    verdict = judged_each_window([window(w, crashed=10 if w >= ONSET else 5) for w in range(ONSET + 30)])
    assert verdict.move == "roll_back"
    (figures,) = verdict.evidence["last_hours"]
    assert (figures["guardrail"], figures["stage"], figures["slice"], figures["hours"]) == ("crash", "canary", None, 1)
    assert figures["treated"] == pytest.approx(0.02, rel=0.1)
    assert figures["control"] == pytest.approx(0.01)
    assert (
        f"crash rate {100 * figures['treated']:.2f}% against 1.00% in the control in the last hour" in verdict.because
    )
    assert verdict.evidence["estimates"]["treated"]["crash_rate"] < 0.011, "estimates are of the whole stage"


def test_a_rollback_for_a_mean_tells_the_means_of_its_last_hours() -> None:
    """It told "accuracy 89.62% against 90.03%", which is less than what is tolerated."""

    def told(w: int) -> list[Cell]:
        mean = 0.84 if w >= 6 * HOUR else 0.9
        treated = cell("treated", w, n=200, crashed=0, metrics=accuracy(mean, 200))
        return [treated, cell("control", w, n=2000, crashed=0, metrics=accuracy(0.9, 2000))]

    verdict = judged_each_window([told(w) for w in range(12 * HOUR)])
    assert verdict.move == "roll_back"
    (figures,) = verdict.evidence["last_hours"]
    assert (figures["guardrail"], figures["treated"], figures["control"]) == ("accuracy", 0.84, 0.9)
    assert "accuracy 84.00% against 90.00% in the control in the last" in verdict.because


def test_of_a_rate_whose_fall_is_harm_each_arm_keeps_its_figure() -> None:
    def used(w: int) -> list[Cell]:
        treated = cell("treated", w, n=200, crashed=0, unused=180 if w >= 6 * HOUR else 0)
        return [treated, cell("control", w, n=2000, crashed=0)]

    verdict = judged_each_window([used(w) for w in range(12 * HOUR)])
    assert verdict.move == "roll_back"
    assert "device-windows with a session: 10.00% against 100.00% in the control in the last hour" in verdict.because


def test_harm_from_the_first_window_on_is_told_with_the_figures_of_the_stage() -> None:
    verdict = judged_each_window([window(w, crashed=25) for w in range(HOUR)])
    assert verdict.move == "roll_back"
    assert "last_hours" not in verdict.evidence
    assert "crash rate 5.00% against 1.00% in the control)" in verdict.because


def test_a_hold_tells_the_same_figures_as_a_rollback() -> None:
    late = [window(w, crashed=10 if w >= ONSET else 5) for w in range(ONSET + 30)]
    gentle = judged_each_window(late, on_small_harm="hold")
    assert gentle.move == "hold"
    assert "1.00% in the control in the last hour" in gentle.because


def test_a_slice_that_goes_back_alone_tells_the_figures_of_its_last_hours() -> None:
    def told(w: int) -> list[Cell]:
        made = []
        for name in ("jetson", "phone", "pi5", "tablet"):
            crashed = 10 if name == "pi5" and w >= 6 * HOUR else 1
            made.append(cell("treated", w, n=100, crashed=crashed, hardware_class=name))
            made.append(cell("control", w, n=1000, crashed=10, hardware_class=name))
        return made

    verdict = judged_each_window([told(w) for w in range(8 * HOUR)])
    assert (verdict.move, verdict.classes) == ("slice_back", ("pi5",))
    assert "harm is proven in pi5 (crash rate 10.00% against 1.00% in the control in the last hour)" in verdict.because
    (figures,) = verdict.evidence["last_hours"]
    assert (figures["slice"], figures["hours"], figures["treated"]) == ("pi5", 1, 0.1)


# --- the copies ---


def test_the_weights_of_all_copies_add_up_to_one_over_days_and_weeks() -> None:
    restarts = Restarts()
    begun = 0.0
    for hour in range(1, 24 * 40):
        restarts.begin(hour, (0.0,), lambda _: 0.0)
        begun += restarts.live[-1].weight
        assert begun + to_come(hour) == pytest.approx(1.0)
    assert restarts.average(0.0, (0.0,), lambda _: 0.0) == pytest.approx(0.0)
    assert len(restarts.live) <= 2 * 11, "the copies of forty days are kept by their logarithm"


def test_a_copy_lives_four_hours_and_twice_as_long_for_every_two_in_its_hour() -> None:
    for hour, life in ((1, 4), (3, 4), (6, 8), (12, 16), (16, 64), (40, 32)):
        later = [other for other in range(hour + 1, 2000) if place_of(other) == place_of(hour)]
        assert later[0] == hour + life


def test_what_a_closed_copy_was_worth_stays() -> None:
    restarts = Restarts()
    restarts.begin(1, (0.0,), lambda sums: sums[0])
    for hour in range(2, 6):
        restarts.begin(hour, (3.0,), lambda sums: sums[0])
    assert restarts.live[0].hour == 2
    assert restarts.closed == pytest.approx(3.0 + math.log(1 - to_come(1)))


def test_hours_without_a_window_are_one_copy_with_their_weights() -> None:
    restarts = Restarts()
    restarts.begin(5, (0.0,), lambda _: 0.0)
    (copy,) = restarts.live
    assert copy.weight == pytest.approx(1 - to_come(5))


def test_a_bad_class_that_turns_bad_late_goes_back_alone() -> None:
    ledger, asked = Ledger(plan(stage())), plan(stage())
    found = None
    for w in range(10 * HOUR):
        cells = [
            cell(role, w, n=n, hardware_class=name, crashed=n // (20 if bad and name == "c0" else 100))
            for name in ("c0", "c1", "c2", "c3", "c4")
            for role, n, bad in (("treated", 200, w >= 8 * HOUR), ("control", 3800, False))
        ]
        verdict = judge(asked, gate_input(*cells, soaked_s=60), ledger)
        if verdict.move != "wait":
            found = w, verdict.move, verdict.classes
            break
    assert found is not None
    assert found[1:] == ("slice_back", ("c0",))
    assert found[0] < 9 * HOUR
