"""Do so many devices refuse a version by themselves that it is stopped at once?"""

import msgspec
import numpy as np
import pytest

from support.values import gate_input, plan
from whimbrel.gate.gate import judge
from whimbrel.gate.kill_switch import (
    kill_switch,
    least_that_stop,
    natural_rate,
    shadow_kill_switch,
    stops,
    unsettled,
)
from whimbrel.gate.verdict import Counts, GateInput

LINES = [least_that_stop(tried) or 10**6 for tried in range(1, 401)]  # devices that must go back, by those that tried


def first_stop(went_back: float, *, runs: int) -> np.ndarray:
    """After how many devices each run is stopped; 10**6: never."""
    gone = np.cumsum(np.random.default_rng(20261130).random((runs, len(LINES))) < went_back, axis=1)
    over = gone >= np.array(LINES)
    return np.where(over.any(axis=1), over.argmax(axis=1) + 1, 10**6)


def test_one_device_in_fifty_that_goes_back_anyway_stops_less_than_three_rollouts_in_a_thousand() -> None:
    """It was 8.1% of them: two of the first twenty."""
    assert np.mean(first_stop(0.02, runs=20_000) < 10**6) < 0.003


def test_a_version_that_half_of_its_devices_leave_is_stopped_after_at_most_eight() -> None:
    found = first_stop(0.5, runs=2000)
    assert np.median(found) <= 8
    assert np.mean(found) <= 8


@pytest.mark.parametrize("tried", [2, 3, 6, 20])
def test_a_version_that_every_device_leaves_is_stopped_after_two(tried: int) -> None:
    assert stops(min(tried, tried), tried)
    assert not stops(1, tried)


def test_a_baseline_that_devices_hardly_left_makes_it_faster_and_one_that_many_left_slower() -> None:
    steady, shaky = natural_rate(5, 10_000), natural_rate(900, 10_000)
    needed = [least_that_stop(1000, natural=rate) for rate in (steady, natural_rate(0, 0), shaky)]
    assert needed == sorted(needed)
    assert len(set(needed)) == 3
    assert natural_rate(0, 0) == pytest.approx(0.02)


def test_the_baselines_rate_reaches_the_verdict() -> None:
    counts = {0: Counts(assigned_t=200, assigned_c=900, activated_t=100, reported_t=100, went_back_t=10)}

    def stopped(rate: float | None) -> bool:
        now = GateInput(stage=0, soaked_s=0, counts=counts, natural_go_back=rate)
        return "kill switch" in judge(plan(alpha=1e-9), now).because

    assert stopped(None)
    assert not stopped(0.1)


def test_controls_that_leave_their_version_too_excuse_the_new_one_and_controls_that_stay_accuse_it_no_more() -> None:
    """A driver that ends every app's process is no fault of the version, though its devices go back by themselves."""

    def stopped(went_back_c: int, *, went_back_t: int = 10) -> bool:
        heard = Counts(assigned_t=100, assigned_c=900, activated_t=100, placebo_c=900)
        counts = {0: msgspec.structs.replace(heard, went_back_t=went_back_t, went_back_c=went_back_c)}
        return "kill switch" in judge(plan(alpha=1e-9), GateInput(stage=0, soaked_s=0, counts=counts)).because

    assert stopped(0)
    assert stopped(9), "one in a hundred does no harm to the comparison"
    assert not stopped(90)
    assert stopped(90, went_back_t=60)
    assert not stopped(0, went_back_t=5), "900 controls that stayed are no measure of how many leave a new version"


def test_the_first_of_ten_boards_stops_it_and_the_first_of_many_does_not() -> None:
    lone = judge(plan(), gate_input(counts={0: Counts(assigned_t=1, activated_t=1, went_back_t=1)}))
    assert lone.because == "the kill switch: the only activated device went back by itself"
    boards = Counts(assigned_t=1, assigned_c=9, activated_t=1, went_back_t=1)
    assert judge(plan(), gate_input(counts={0: boards})).move == "roll_back"
    first = Counts(assigned_t=1, assigned_c=10, activated_t=1, went_back_t=1)
    assert judge(plan(), gate_input(counts={0: first}, soaked_s=60)).move == "wait"


def test_nothing_goes_on_that_half_of_its_devices_left() -> None:
    counts = {0: Counts(assigned_t=2, assigned_c=30, activated_t=2, reported_t=2, reported_c=30, went_back_t=1)}
    verdict = judge(plan(), gate_input(counts=counts))
    assert verdict.move == "hold"
    assert "1 of 2 activated devices went back by themselves" in verdict.because


def test_devices_that_could_not_fetch_it_are_none_that_went_back() -> None:
    """They are assigned and have activated nothing."""
    counts = {0: Counts(assigned_t=500, assigned_c=900, activated_t=100, reported_t=100, went_back_t=2)}
    assert "kill switch" not in judge(plan(), gate_input(counts=counts)).because


# --- the bets, and the sentences whole ---


def test_the_line_is_a_mixture_of_four_bets_against_what_goes_back_anyway() -> None:
    """ln of the average ratio of likelihoods, against 160; shares that are natural already are bets on worse."""

    def proven(gone: int, tried: int, natural: float) -> bool:
        bets = {0.1: 0.15, 0.25: 0.15, 0.5: 0.5, 0.9: 0.2}
        worth = 0.0
        for share, weight in bets.items():
            p = (1 + natural) / 2 if share <= natural else share
            worth += weight * (p / natural) ** gone * ((1 - p) / (1 - natural)) ** (tried - gone)
        return worth >= 160

    for natural in (0.005, 0.02, 0.1, 0.25, 0.3):
        for tried in (1, 2, 3, 5, 10, 40, 150):
            first = next((gone for gone in range(1, tried + 1) if proven(gone, tried, natural)), None)
            assert least_that_stop(tried, natural=natural) == first


def test_no_device_that_went_back_stops_nothing_and_more_than_tried_count_as_all() -> None:
    assert not stops(0, 1, few=True)
    assert not stops(1, 0, few=True)
    assert stops(1, 1, few=True)
    assert not stops(1, 2, few=True)
    assert stops(9, 2) == stops(2, 2) is True
    assert least_that_stop(1) is None


def test_a_baselines_rate_is_its_own_and_a_guess_of_a_hundred_devices_and_never_beyond_three_in_ten() -> None:
    assert natural_rate(40, 900) == pytest.approx((40 + 2) / 1000)
    assert natural_rate(900, 1000) == 0.3


def test_what_stops_a_version_is_told_whole() -> None:
    counts = Counts(assigned_t=30, assigned_c=70, activated_t=20, placebo_c=70, went_back_t=9)
    verdict = judge(plan(), gate_input(counts={0: counts, 1: Counts(activated_t=1, went_back_t=1)}))
    assert (verdict.move, verdict.because) == (
        "roll_back",
        "the kill switch: 10 of 21 activated devices went back by themselves",
    )
    shadowed = shadow_kill_switch(Counts(shadowed_t=3, gave_up_t=3))
    assert shadowed == "the kill switch: 3 of 3 devices that tried it refused it themselves; it has answered nobody"
    assert shadow_kill_switch(Counts(shadowed_t=3, gave_up_t=0)) is None


@pytest.mark.parametrize(("went_back", "activated", "settled"), [(1, 2, False), (1, 3, True), (0, 0, True)])
def test_half_of_the_devices_unsettle_a_version(went_back: int, activated: int, settled: bool) -> None:
    told = unsettled(Counts(went_back_t=went_back, activated_t=activated))
    assert (told is None) == settled
    if told is not None:
        assert told == (
            "1 of 2 activated devices went back by themselves: too few to tell that from what devices do anyway, and "
            "too many to go on"
        )


def test_controls_that_leave_raise_the_rate_and_never_lower_it() -> None:
    """Whatever the baseline told: the larger of both is natural."""

    def stopped(natural: float, went_back_c: int) -> bool:
        counts = Counts(
            assigned_t=50, assigned_c=900, activated_t=50, placebo_c=900, went_back_t=12, went_back_c=went_back_c
        )
        return kill_switch(counts, natural=natural) is not None

    assert least_that_stop(50, natural=natural_rate(150, 900)) > 12
    assert not stopped(0.01, 150)
    assert stopped(0.01, 20)
    assert not stopped(0.3, 20)


@pytest.mark.parametrize(("assigned_c", "stopped"), [(9, True), (10, False)])
def test_ten_devices_of_both_arms_are_few(assigned_c: int, stopped: bool) -> None:
    counts = Counts(assigned_t=1, assigned_c=assigned_c, activated_t=1, went_back_t=1)
    assert (kill_switch(counts, natural=None) is not None) == stopped
