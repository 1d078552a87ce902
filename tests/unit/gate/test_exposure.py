"""What was not heard of lately, not used or not labelled as the control's is no proof: the stage holds."""

import math

import pytest

from support.values import accuracy, cell, gate_input, healthy, plan
from whimbrel.gate.gate import judge
from whimbrel.gate.verdict import Counts, Verdict
from whimbrel.health.tally import Cell, Moments

HEARD = {"assigned_t": 1000, "activated_t": 1000, "reported_t": 1000, "placebo_c": 9000, "reported_c": 9000}


def after(*cells: Cell, promote: str = "advance", **counts: int) -> Verdict:
    asked = plan(promote=promote) if promote != "advance" else plan()
    return judge(asked, gate_input(*(cells or healthy(200)), counts={0: Counts(**HEARD | counts)}))


# --- heard of lately ---


@pytest.mark.parametrize("promote", ["advance", "when_proven"])
@pytest.mark.parametrize("silent", [900, 300])
def test_a_stage_whose_devices_fell_silent_holds(silent: int, promote: str) -> None:
    verdict = after(silent_t=silent, silent_c=90, promote=promote)
    assert verdict.move == "hold"
    assert f"only {1000 - silent} of the 1,000 devices that reported are still heard" in verdict.because
    assert "99.00% of the control's are" in verdict.because
    assert (verdict.evidence["counts"]["silent_t"], verdict.evidence["counts"]["silent_c"]) == (silent, 90)


def test_as_many_silent_devices_as_in_the_control_hold_nothing() -> None:
    assert after(silent_t=300, silent_c=2700).move == "advance"
    assert after(silent_t=15, silent_c=90).move == "advance"


def test_of_few_devices_one_silent_one_is_chance_and_most_of_them_are_not() -> None:
    few = {"assigned_t": 5, "activated_t": 5, "reported_t": 5}
    assert after(**few, silent_t=1, silent_c=90).move == "advance"
    assert after(**few, silent_t=3, silent_c=90).move == "hold"


def test_nothing_is_promoted_while_most_of_both_arms_is_silent() -> None:
    verdict = after(silent_t=600, silent_c=5400)
    assert verdict.move == "hold"
    assert "half must be" in verdict.because


# --- used ---


def used(*, treated: int, control: int, windows: int = 4) -> list[Cell]:
    def of(role: str, w: int, n: int, count: int) -> Cell:
        return cell(role, w, n=n, unused=n - count, sessions=count, error_units=count)

    return [each for w in range(windows) for each in (of("treated", w, 3, treated), of("control", w, 30, control))]


@pytest.mark.parametrize("promote", ["advance", "when_proven"])
def test_a_version_that_nobody_used_holds_with_that_sentence(promote: str) -> None:
    verdict = after(*used(treated=0, control=3), promote=promote)
    assert verdict.move == "hold"
    assert "nobody has used the version: none of the 12 device-windows of stage canary has a session" in verdict.because
    assert "and 12 of the control's 120 have one, so nothing is proven" in verdict.because


@pytest.mark.parametrize("promote", ["advance", "when_proven"])
def test_a_model_that_nobody_uses_in_either_arm_holds_and_is_never_called_proven(promote: str) -> None:
    verdict = after(*used(treated=0, control=0), promote=promote)
    assert verdict.move == "hold"
    assert "none of the control's 120 either: nobody uses the model, so nothing is proven" in verdict.because


def test_a_fleet_that_is_used_by_night_goes_on_when_the_night_came() -> None:
    day = used(treated=0, control=0)
    night = [each for each in used(treated=2, control=20, windows=8) if each.window >= 4]
    assert after(*day).move == "hold"
    assert after(*day, *night).move == "advance"


def test_a_report_without_a_session_is_no_report_that_a_plan_asks_for() -> None:
    verdict = judge(plan(min_reports=50), gate_input(*healthy(), counts={0: Counts(**HEARD | {"unused_t": 990})}))
    assert verdict.move == "hold"
    assert "10 of the 1,000 devices that reported have used the version, and 50 must" in verdict.because


# --- labelled ---


def labelled(*, treated: int, control: int, windows: int = 40) -> list[Cell]:
    return [
        each
        for w in range(windows)
        for each in (
            cell("treated", w, n=1000, metrics=accuracy(0.84, treated) if treated else {}),
            cell("control", w, n=9000, metrics=accuracy(0.84, control) if control else {}),
        )
    ]


def test_labels_that_stop_hold_where_the_control_still_has_them() -> None:
    verdict = after(*labelled(treated=0, control=450))
    assert verdict.move == "hold"
    assert "accuracy is known of 0.00% of the device-windows in use, and of 5.00% of the control's" in verdict.because


def test_labels_that_come_from_the_well_alone_hold() -> None:
    """Where wrong answers are labelled half as often, labels become fewer."""
    verdict = after(*labelled(treated=200, control=3600))
    assert verdict.move == "hold"
    assert "what is not told may be what is wrong" in verdict.because


def test_a_tolerance_is_given_once() -> None:
    """Labels at some half of the control's among 200 devices passed: a tenth was tolerated of what is told and again
    of what is not."""
    some = {"assigned_t": 200, "activated_t": 200, "reported_t": 200}
    assert after(*labelled(treated=200, control=3240), **some).move == "hold"


def test_as_many_labels_as_in_the_control_hold_nothing_and_none_in_either_arm_neither() -> None:
    assert after(*labelled(treated=390, control=3600)).move == "advance"
    assert after(*labelled(treated=0, control=0)).move == "advance"
    assert after(*labelled(treated=500, control=3600)).move == "advance"


# --- the very limits, and the sentences whole ---


def doubt(**counts: int) -> str:
    verdict = after(**counts)
    assert verdict.move == "hold"
    return verdict.because.removeprefix("stage canary has soaked, but ")


def test_who_is_still_heard_is_told_whole_with_and_without_a_control() -> None:
    assert doubt(silent_t=900, silent_c=90) == (
        "only 100 of the 1,000 devices that reported are still heard (10.00%, and 99.00% of the control's are): what "
        "is not heard proves nothing, and half must be"
    )
    assert doubt(silent_t=300, silent_c=90) == (
        "only 700 of the 1,000 devices that reported are still heard (70.00%, and 99.00% of the control's are): a "
        "device that fell silent proves nothing, and may have died of the version"
    )
    assert doubt(silent_t=501, reported_c=0) == (
        "only 499 of the 1,000 devices that reported are still heard (49.90%): what is not heard proves nothing, and "
        "half must be"
    )
    assert after(silent_t=500, reported_c=0).move == "advance"


def beyond(silent: int, *, of: int, silent_c: int, of_c: int) -> float:
    """By how many standard errors it is past 1.1 times the control's share and one point more (Agresti and Coull)."""
    p_t, p_c = (silent + 1) / (of + 2), (silent_c + 1) / (of_c + 2)
    error = math.sqrt(p_t * (1 - p_t) / of + 1.1**2 * p_c * (1 - p_c) / of_c)
    return (silent / of - 1.1 * silent_c / of_c - 0.01) / error


@pytest.mark.parametrize(("of", "silent_c", "of_c"), [(1000, 90, 9000), (40, 100, 1000), (1000, 30, 50)])
def test_devices_fell_silent_where_more_did_than_three_standard_errors_past_the_tolerance(
    of: int, silent_c: int, of_c: int
) -> None:
    first = next(n for n in range(1, of) if beyond(n, of=of, silent_c=silent_c, of_c=of_c) > 3)
    told = {"assigned_t": of, "activated_t": of, "reported_t": of, "reported_c": of_c, "silent_c": silent_c}
    if first * 2 <= of:
        assert after(**told, silent_t=first).move == "hold"
    assert after(**told, silent_t=min(first - 1, of // 2)).move == "advance"


def test_a_version_that_nobody_used_is_told_whole() -> None:
    start = "nobody has used the version: none of the 12 device-windows of stage canary has a session"
    assert (
        after(*used(treated=0, control=3)).because
        == f"stage canary has soaked, but {start}, and 12 of the control's 120 have one, so nothing is proven"
    )
    neither = after(*used(treated=0, control=0)).because
    assert neither.endswith(
        f"{start}, and none of the control's 120 either: nobody uses the model, so nothing is proven"
    )
    alone = after(*[each for each in used(treated=0, control=0) if each.role == "treated"]).because
    assert alone.endswith(f"{start}, so nothing is proven")


@pytest.mark.parametrize(("min_reports", "min_devices", "least"), [(50, 1, 50), (1, 60, 60), (50, 60, 60)])
def test_as_many_devices_must_have_used_it_as_the_plan_asks_to_report(
    min_reports: int, min_devices: int, least: int
) -> None:
    asked = plan(min_reports=min_reports, min_devices=min_devices)

    def move(used_it: int) -> str:
        counts = Counts(**HEARD | {"unused_t": 1000 - used_it})
        return judge(asked, gate_input(*healthy(200), counts={0: counts})).move

    assert (move(least - 1), move(least)) == ("hold", "advance")


def fewer(labelled_t: int, labelled_c: int, *, devices: int, devices_c: int) -> float:
    """By how many standard errors labels are fewer than the control's, less a tenth, with devices as the units."""
    share, share_c = labelled_t / 1000, labelled_c / 9000 / 1.1
    p_t, p_c = ((1 - share) * devices + 1) / (devices + 2), ((1 - share_c) * devices_c + 1) / (devices_c + 2)
    return (share_c - share) / math.sqrt(p_t * (1 - p_t) / devices + p_c * (1 - p_c) / devices_c)


@pytest.mark.parametrize("devices", [1000, 200])
def test_labels_are_fewer_where_devices_tell_it_by_three_standard_errors(devices: int) -> None:
    some = {"assigned_t": devices, "activated_t": devices, "reported_t": devices}
    most = next(n for n in range(363, 0, -1) if fewer(n, 3600, devices=devices, devices_c=9000) > 3)
    assert after(*labelled(treated=most, control=3600), **some).because.endswith(
        f"accuracy is known of {most / 10:.2f}% of the device-windows in use, and of 40.00% of the control's: what is "
        "not told may be what is wrong"
    )
    assert after(*labelled(treated=most + 1, control=3600), **some).move == "advance"


@pytest.mark.parametrize(("control", "move"), [(180, "hold"), (179, "advance")])
def test_that_no_answer_is_labelled_is_a_doubt_from_twenty_expected_ones_on(control: int, move: str) -> None:
    few = {"assigned_t": 4, "activated_t": 4, "reported_t": 4}
    assert after(*labelled(treated=0, control=control, windows=1), **few).move == move


def test_feedback_counts_as_a_label_too() -> None:
    cells = [
        cell("treated", 0, n=1000),
        cell("control", 0, n=9000, metrics={"feedback": Moments(n=900, sum=700.0, sumsq=700.0)}),
    ]
    assert "feedback is known of 0.00% of the device-windows in use, and of 10.00%" in after(*cells).because
