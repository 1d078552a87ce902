"""Objectives as people write them: understood or refused, with what was expected."""

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.records import ModelSettings, NewSettings
from whimbrel.model.documents import encode, parse
from whimbrel.plan.objectives import Objective, check_objectives, peaks_of, read_objective


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        (
            "accuracy > 84% weekly, take back",
            Objective(measure="accuracy", at_least=0.84, window="week", action="take_back"),
        ),
        ("latency_p99_ms < 10", Objective(measure="latency_p99_ms", at_most=10.0)),
        ("battery<5 daily", Objective(measure="battery", at_most=5.0, window="day")),
        ("battery < 5% a day", Objective(measure="battery", at_most=5 / 24)),
        ("battery < 5%/day, take back", Objective(measure="battery", at_most=5 / 24, action="take_back")),
        ("battery < 5 per day weekly", Objective(measure="battery", at_most=5 / 24, window="week")),
        ("battery < 14% a week", Objective(measure="battery", at_most=14 / 168, window="week")),
        ("battery < 0.25% an hour hourly", Objective(measure="battery", at_most=0.25, window="hour")),
        ("error_rate < 5% a day", Objective(measure="error_rate", at_most=0.05)),
        ("memory_mb < 50 peak hourly", Objective(measure="memory_mb", at_most=50.0, peak=True, window="hour")),
        ("crash_rate <= 0.1% day, least 1000, alert", Objective(measure="crash_rate", at_most=0.001, least=1000)),
        ("usage >= 0.5 week", Objective(measure="usage", at_least=0.5, window="week")),
    ],
)
def test_an_objective_is_read_from_words(text: str, objective: Objective) -> None:
    assert read_objective(text) == objective
    assert parse(Objective, encode(objective), what="it") == objective


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", "is not understood; expected as in: accuracy >="),
        ("accuracy > high", "is not understood"),
        ("accuracy > 1e", "is no number"),
        ("accuracy > 84 weekly", "a share of 0 to 1, or in percent"),
        ("crash_rate < 0", "leave some room"),
        ("latency_p99_ms > 10", "is bounded by at_most"),
        ("latency_p99_ms < 0", "is above 0"),
        ("battery < 5%", "write battery < 5% a day, or battery < 0.208% an hour"),
        ("battery < 5% daily", "does not say what time 5% is for"),
        ("memory_mb < 50%", "memory_mb is in MB, and 50% came; write the number alone"),
        ("latency_p99_ms < 5%", "latency_p99_ms is in ms, and 5% came"),
        ("drift_psi < 25%", "drift_psi is in units of its index"),
        ("memory_mb < 1e999", "is too large"),
        ("error_rate > 5%", "less of error_rate is better, so its objective is written error_rate <"),
        ("accuracy < 84%", "more of accuracy is better, so its objective is written accuracy >"),
        ("usage < 50%", "more of usage is better"),
        ("word_error_rate >= 5%", "less of word_error_rate is better"),
        ("crash_rate < 1% peak", "a peak is the highest value of a metric"),
        ("battery < 5 monthly", "'monthly' in the objective"),
        ("battery < 5 least many", "'least' in the objective"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_objective(text)


def test_a_document_of_before_with_a_bound_on_the_wrong_side_is_still_read() -> None:
    """A server that refused what it stored could not be mended."""
    wrong = b'{"objectives":[{"measure":"error_rate","at_least":0.05}]}'
    assert parse(ModelSettings, wrong, what="stored settings").objectives[0].floor
    with pytest.raises(UntrustedInput, match="less of error_rate is better"):
        parse(NewSettings, wrong, what="the settings")


def test_people_read_a_bound_in_its_unit() -> None:
    assert read_objective("battery < 5% a day").words == "battery <= 0.208% an hour, as a mean over a day"
    assert read_objective("memory_mb < 50 peak hourly").words == "memory_mb <= 50 MB, peak hour"


def test_one_bound_is_needed() -> None:
    for bounds in ({}, {"at_least": 1.0, "at_most": 2.0}):
        with pytest.raises(ValueError, match="one bound"):
            Objective(measure="battery", **bounds)


def test_the_same_twice_is_refused() -> None:
    one = read_objective("battery < 5 daily")
    check_objectives([one, read_objective("battery < 5 weekly")])
    with pytest.raises(ValueError, match="there twice"):
        check_objectives([one, read_objective("battery < 5 daily, take back")])


def test_peaks_are_kept_of_what_asks_for_them() -> None:
    assert peaks_of([read_objective("memory_mb < 50 peak"), read_objective("battery < 5")]) == {"memory_mb"}
