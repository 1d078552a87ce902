"""Harm that begins late: copies of every test begin anew at each hour of a stage."""

import math

import pytest

from support.values import cell, gate_input, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.ledger import Ledger
from whimbrel.gate.restarts import Restarts, place_of, to_come
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
