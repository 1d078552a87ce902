"""Objectives as people write them: understood or refused, with what was expected."""

import pytest

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
        ("crash_rate < 1% peak", "a peak is the highest value of a metric"),
        ("battery < 5 monthly", "'monthly' in the objective"),
        ("battery < 5 least many", "'least' in the objective"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_objective(text)


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
