"""Objectives as people write them: understood or refused, with what was expected."""

import re

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.records import ModelSettings, NewSettings
from whimbrel.model.documents import encode, parse
from whimbrel.plan.objectives import (
    DRIFT_OBJECTIVE,
    PEAK_SHARE,
    QUANTILES,
    Objective,
    check_objectives,
    peaks_of,
    read_objective,
)


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
        ("  battery  <=  5e-1 ", Objective(measure="battery", at_most=0.5)),
        ("battery < 48 each day, as a mean", Objective(measure="battery", at_most=2.0)),
        ("battery < 48 every day", Objective(measure="battery", at_most=2.0)),
        ("battery < 2 per hour", Objective(measure="battery", at_most=2.0)),
        ("battery < 2% /hour weekly", Objective(measure="battery", at_most=2.0, window="week")),
        ("accuracy >= 84% as a mean", Objective(measure="accuracy", at_least=0.84)),
        ("accuracy >= 84%, take-back", Objective(measure="accuracy", at_least=0.84, action="take_back")),
        ("accuracy >= 84%, take_back, alert", Objective(measure="accuracy", at_least=0.84)),
        ("fps >= 84", Objective(measure="fps", at_least=84)),
        ("fps >= 84%", Objective(measure="fps", at_least=0.84)),
        ("fps >= -1e15", Objective(measure="fps", at_least=-1e15)),
        ("drift_psi < 0.1 least 5", Objective(measure="drift_psi", at_most=0.1, least=5)),
        ("latency_p50_ms < 3 least 1 weekly", Objective(measure="latency_p50_ms", at_most=3, least=1, window="week")),
    ],
)
def test_an_objective_is_read_from_words(text: str, objective: Objective) -> None:
    assert read_objective(text) == objective
    assert parse(Objective, encode(objective), what="it") == objective


EXAMPLE = "expected as in: accuracy >= 84% weekly, take back"
NO_WORD = (
    " is not understood; expected hourly, daily or weekly, peak, least N, alert or take back, as in: "
    "accuracy >= 84% weekly, take back"
)
BATTERY = (
    "battery is in percent of a full charge an hour, and {text!r} does not say what time {number}% is for; "
    "write battery {sign} {number}% a day, or battery {sign} {hour}% an hour. Then it may say how long a mean is "
    "taken: hourly, daily or weekly"
)


def by_getting_worse(way: str, measure: str, *, sign: str, side: str, came: str) -> str:
    return (
        f"{way} of {measure} is better, so its objective is written {measure} {sign} ... ({side}); {came} came, "
        "which a version keeps by getting worse"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", f"the objective 'accuracy' is not understood; {EXAMPLE}"),
        ("accuracy > high", f"the objective 'accuracy > high' is not understood; {EXAMPLE}"),
        ("accuracy == 1", f"the objective 'accuracy == 1' is not understood; {EXAMPLE}"),
        ("accuracy > 1e", f"'1e' in the objective 'accuracy > 1e' is no number; {EXAMPLE}"),
        ("accuracy > 84 weekly", "accuracy is a share of 0 to 1, or in percent (84%); 84 came"),
        ("accuracy > 100.1%", "accuracy is a share of 0 to 1, or in percent (84%); 1.001 came"),
        ("accuracy > -1%", "accuracy is a share of 0 to 1, or in percent (84%); -0.01 came"),
        ("crash_rate < 0", "a share that must be 0 is broken by one device; leave some room"),
        ("usage > 100%", "a share that must be 1 is broken by one device; leave some room"),
        ("latency_p99_ms > 10", "latency_p99_ms is bounded by at_most"),
        ("drift_psi > 10", "drift_psi is bounded by at_most"),
        ("latency_p99_ms < 0", "latency_p99_ms is above 0; 0 came"),
        ("drift_psi < -1", "drift_psi is above 0; -1 came"),
        ("battery < 5%", BATTERY.format(text="battery < 5%", number=5, sign="<", hour="0.208")),
        ("battery <= 24% daily", BATTERY.format(text="battery <= 24% daily", number=24, sign="<=", hour="1")),
        ("battery < 5% a", BATTERY.format(text="battery < 5% a", number=5, sign="<", hour="0.208")),
        ("memory_mb < 50%", "memory_mb is in MB, and 50% came; write the number alone"),
        ("temperature_c < 50%", "temperature_c is in °C, and 50% came; write the number alone"),
        ("latency_p99_ms < 5%", "latency_p99_ms is in ms, and 5% came; write the number alone"),
        ("drift_psi < 25%", "drift_psi is in units of its index, and 25% came; write the number alone"),
        *[
            (f"fps < {number}", f"{number} in the objective 'fps < {number}' is too large; a bound is at most 1e+15")
            for number in ("1e999", "1000000000000001", "-1000000000000001")
        ],
        (
            "error_rate > 5%",
            by_getting_worse("less", "error_rate", sign="<", side="at_most", came="> 0.05"),
        ),
        (
            "accuracy < 84%",
            by_getting_worse("more", "accuracy", sign=">", side="at_least", came="< 0.84"),
        ),
        ("usage < 50%", by_getting_worse("more", "usage", sign=">", side="at_least", came="< 0.5")),
        (
            "word_error_rate >= 5%",
            by_getting_worse("less", "word_error_rate", sign="<", side="at_most", came="> 0.05"),
        ),
        *[
            (f"{text} peak", f"a peak is the highest value of a metric that devices report, at most; {name} came")
            for text, name in (
                *(("crash_rate < 1%", "crash_rate"), ("latency_p99_ms < 9", "latency_p99_ms")),
                *(("drift_psi < 9", "drift_psi"), ("fps > 9", "fps")),
            )
        ],
        ("battery < 5 monthly", f"'monthly' in the objective 'battery < 5 monthly'{NO_WORD}"),
        ("battery < 5 monthly 5", f"'monthly' in the objective 'battery < 5 monthly 5'{NO_WORD}"),
        ("battery < 5 a fifth", f"'fifth' in the objective 'battery < 5 a fifth'{NO_WORD}"),
        ("battery < 5 least many", f"'least' in the objective 'battery < 5 least many'{NO_WORD}"),
        ("battery < 5 least", f"'least' in the objective 'battery < 5 least'{NO_WORD}"),
        ("battery < 5 7", f"'7' in the objective 'battery < 5 7'{NO_WORD}"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=refusal(message)):
        read_objective(text)


def refusal(said: str) -> str:
    """A pattern of the whole sentence."""
    return f"^{re.escape(said)}$"


@pytest.mark.parametrize(
    ("bound", "name", "words"),
    [
        ({"at_most": 0.123456}, "battery <= 0.123456 day", "battery <= 0.123% an hour, as a mean over a day"),
        (
            {"at_least": 2.0, "window": "hour"},
            "battery >= 2 hour",
            "battery >= 2% an hour, as a mean over an hour",
        ),
        (
            {"at_most": 50.0, "peak": True, "window": "week", "measure": "memory_mb"},
            "memory_mb <= 50 peak week",
            "memory_mb <= 50 MB, peak week",
        ),
        (
            {"at_least": 0.84, "window": "week", "measure": "accuracy"},
            "accuracy >= 0.84 week",
            "accuracy >= 0.84, as a mean over a week",
        ),
        ({"at_most": -0.0, "measure": "skew"}, "skew <= 0 day", "skew <= 0, as a mean over a day"),
    ],
)
def test_an_objective_is_named_by_its_bound_and_told_in_its_unit(
    bound: dict[str, object], name: str, words: str
) -> None:
    objective = Objective(**{"measure": "battery"} | bound)
    assert (objective.name, objective.words) == (name, words)


@pytest.mark.parametrize(("window", "hours"), [("hour", 1), ("day", 24), ("week", 168)])
def test_a_window_has_its_hours(window: str, hours: int) -> None:
    assert Objective(measure="battery", at_most=5, window=window).hours == hours


def test_drift_is_watched_by_a_day_of_a_hundred_device_hours_where_nobody_says_otherwise() -> None:
    assert read_objective("drift_psi < 0.25 daily, least 100") == DRIFT_OBJECTIVE
    assert PEAK_SHARE == 0.01
    assert QUANTILES == {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_metric_that_is_a_share_may_be_all_or_nothing(share: float) -> None:
    """Each device reports its own: one that is off its bound breaks no mean by itself."""
    assert Objective(measure="accuracy", at_least=share).bound == share


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
        with pytest.raises(ValueError, match=refusal("the objective of battery needs one bound: at_least or at_most")):
            Objective(measure="battery", **bounds)


def test_the_same_twice_is_refused() -> None:
    one = read_objective("battery < 5 daily")
    check_objectives([one, read_objective("battery < 5 weekly")])
    said = "the objective 'battery <= 5 day' is there twice; keep one of them"
    with pytest.raises(ValueError, match=refusal(said)):
        check_objectives([read_objective("fps > 5"), one, read_objective("battery < 5 daily, take back")])


def test_peaks_are_kept_of_what_asks_for_them() -> None:
    assert peaks_of([read_objective("memory_mb < 50 peak"), read_objective("battery < 5")]) == {"memory_mb"}
