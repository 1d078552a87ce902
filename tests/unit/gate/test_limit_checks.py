"""Limits as a person reads them: each in its own unit, with the figure beside it."""

import pytest

from support.values import accuracy, cell, gate_input, plan, stage
from whimbrel.gate.gate import judge
from whimbrel.gate.limit_checks import LimitCheck, broken_limits
from whimbrel.gate.verdict import Counts, Past
from whimbrel.health.sketch import key_of
from whimbrel.health.tally import Moments
from whimbrel.plan.criteria import SuccessCriteria
from whimbrel.plan.measures import LIMITS

FAST, SLOW = key_of(20.0), key_of(80.0)


def held(*cells: object, **limits: float) -> str:
    verdict = judge(plan(stage(**limits), on_small_harm="hold"), gate_input(*cells))
    assert verdict.move == "hold", verdict
    return verdict.because.removeprefix("stage canary has soaked, but ")


def test_a_limit_of_time_is_said_in_milliseconds_and_sessions() -> None:
    """It said "latency_p99_max_ms is at 0.01296, over 0.01"."""
    slow, clean = {FAST: 987, SLOW: 13}, {FAST: 1000}
    said = held(cell("treated", 0, n=1, latency=slow), cell("control", 0, n=1, latency=clean), latency_p99_max_ms=50)
    assert said == "1.3% of sessions are slower than 50 ms; at most 1% may be (latency_p99_max_ms)"


@pytest.mark.parametrize(
    ("treated", "control", "limits", "sentence"),
    [
        (
            {"errors": 0.15},
            {"errors": 0.0},
            {"error_rate_max": 0.001},
            "the error rate is 0.15%; at most 0.1% may be (error_rate_max)",
        ),
        (
            {"metrics": accuracy(0.92, 100)},
            {"metrics": accuracy(0.95, 100)},
            {"accuracy_drop_max": 0.02},
            "accuracy is 92%, 3 points below the control's 95%; at most 2 points may be (accuracy_drop_max)",
        ),
        (
            {"crashed": 3},
            {"crashed": 1},
            {"crash_ratio_max": 2},
            "the crash rate is 3%, 3 times the control's 1%; at most 2 times may be (crash_ratio_max)",
        ),
        (
            {"crashed": 1},
            {"crashed": 0},
            {"crash_ratio_max": 2},
            "the crash rate is 1%, and the control's 0%; at most 2 times as much may be (crash_ratio_max)",
        ),
        (
            {"latency": {key_of(45.0): 100}},
            {"latency": {key_of(25.0): 100}},
            {"latency_increase_max": 0.5},
            "the p99 latency is 46 ms, 82% over the control's 25 ms; at most 50% may be (latency_increase_max)",
        ),
        (
            {"metrics": {"battery": Moments(n=100, sum=150.0, sumsq=230.0)}},
            {"metrics": {"battery": Moments(n=100, sum=100.0, sumsq=110.0)}},
            {"battery_increase_max": 0.2},
            "battery use is 1.5, 50% over the control's 1; at most 20% may be (battery_increase_max)",
        ),
        (
            {"metrics": {"memory_mb": Moments(n=100, sum=81200.0, sumsq=66e6)}},
            {},
            {"memory_mb_max": 700},
            "the mean of memory_mb is 812; at most 700 may be (memory_mb_max)",
        ),
    ],
)
def test_every_limit_has_its_unit_its_other_figure_and_its_name(
    treated: dict[str, object], control: dict[str, object], limits: dict[str, float], sentence: str
) -> None:
    said = held(cell("treated", 0, n=100, **treated), cell("control", 0, n=100, **control), **limits)
    assert said == sentence


def check(treated: float | None, limit: float, **changes: object) -> LimitCheck:
    values = {"name": "x", "words": "it", "form": "percent", "compared": "value", "limit": limit, "treated": treated}
    return LimitCheck(**values | changes)


def test_a_figure_has_as_many_digits_as_tell_it_from_its_limit() -> None:
    assert check(0.01004, 0.01).sentence() == "it is 1.004%; at most 1% may be (x)"
    assert check(0.0129, 0.01).sentence() == "it is 1.3%; at most 1% may be (x)"
    assert check(1234.6, 1234.0, form="as_reported").sentence() == "it is 1235; at most 1234 may be (x)"


def test_the_figures_that_stand_in_for_a_control_are_said_to_be_what_they_are() -> None:
    past = Past(version="1.0.0")
    drop = {"compared": "drop", "beside": 0.95}
    said = [
        check(0.9, 0.02, source=source, **drop).sentence(past) for source in ("past", "released", "target_released")
    ]
    assert "the 95% that the same devices told while they ran 1.0.0" in said[0]
    assert "the 95% that 1.0.0 was published with" in said[1]
    assert "the 95% that its own release says" in said[2]


def test_an_absolute_limit_needs_no_past() -> None:
    cells = [cell("treated", 0, n=10, errors=0.0)]
    counts = {0: Counts(assigned_t=1, activated_t=1, reported_t=1)}
    verdict = judge(plan(stage(error_rate_max=0.01)), gate_input(*cells, counts=counts, past=Past()))
    assert verdict.move == "finish"
    assert (
        "no device can be its control, so only its absolute limits, its probe and its trial could speak"
        in verdict.because
    )


def test_every_limit_has_words_that_begin_a_sentence() -> None:
    assert all(limit.words and not limit.words.endswith(".") for limit in LIMITS)


def test_without_a_control_a_stage_needs_a_window_of_its_own_and_nobody_who_went_back() -> None:
    """Three boards that had told nothing yet, one of them gone back, were "no harm in 3 devices"."""
    counts = {0: Counts(assigned_t=3, activated_t=3, reported_t=3)}
    verdict = judge(plan(), gate_input(counts=counts, past=Past()))
    assert (verdict.move, verdict.because) == (
        "hold",
        "stage canary has soaked, but no window of its reports is closed yet",
    )
    cells = [cell("treated", 0, n=3)]
    assert judge(plan(), gate_input(*cells, counts=counts, past=Past())).move == "advance"
    counts = {0: Counts(assigned_t=30, activated_t=30, reported_t=30, went_back_t=1)}
    verdict = judge(plan(), gate_input(*cells, counts=counts, past=Past()))
    assert verdict.move == "hold"
    assert "1 of 30 activated devices went back by itself, and there is no control to compare" in verdict.because


# --- the very limits ---


@pytest.mark.parametrize(
    ("changes", "kept", "broken"),
    [
        ({}, 0.02, 0.0200001),
        ({"floor": True}, 0.02, 0.0199999),
        ({"compared": "drop", "beside": 0.5}, 0.48, 0.4799),
        ({"compared": "ratio", "beside": 10.0, "limit": 2.0}, 20.0, 20.01),
        ({"compared": "increase", "beside": 10.0, "limit": 0.5}, 15.0, 15.01),
        ({"compared": "ratio", "beside": 0.0, "limit": 2.0}, 0.0, 1e-9),
        ({"compared": "drop", "beside": 0.95}, 0.93, 0.9299999),
        ({"compared": "increase", "beside": 1.0, "limit": 0.1}, 1.1, 1.1000001),
        ({"compared": "increase", "beside": -1.0, "limit": 2.0}, -5.0, 1e-9),
    ],
)
def test_a_limit_is_kept_up_to_itself(changes: dict[str, object], kept: float, broken: float) -> None:
    limit = changes.pop("limit", 0.02)
    assert not check(kept, limit, **changes).broken
    assert check(broken, limit, **changes).broken


def test_what_was_not_told_is_past_no_limit_and_keeps_none() -> None:
    for changes in ({}, {"compared": "drop", "beside": 0.5}):
        assert (check(None, 0.02, **changes).value, check(None, 0.02, **changes).broken) == (None, False)
    assert (check(0.4, 0.02, compared="drop").value, check(0.4, 0.02, compared="drop").broken) == (None, False)


def test_a_control_breaks_absolute_limits_alone() -> None:
    assert check(0.5, 0.02, beside=0.03).sentence() == "it is 50%; at most 2% may be (x; the control breaks it too)"
    assert check(0.5, 0.02, beside=0.02).sentence() == "it is 50%; at most 2% may be (x)"
    assert check(0.01, 0.02, beside=0.01, floor=True).sentence() == (
        "it is 1%; at least 2% must be (x; the control breaks it too)"
    )
    assert not check(0.01, 0.02, beside=0.9, compared="drop").control_breaks
    assert check(0.01, 0.02).control_breaks is False


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compared": "drop", "beside": 0.95, "limit": 0.01, "treated": 0.9}, "5 points below the control's 95%"),
        ({"compared": "drop", "beside": 0.95, "limit": 0.01, "treated": 0.9}, "at most 1 point may be"),
        ({"compared": "ratio", "beside": 0.02, "limit": 2, "treated": 0.06}, "it is 6%, 3 times the control's 2%; at"),
        ({"compared": "increase", "beside": 0.0, "limit": 2, "treated": 0.06}, "and the control's 0%; at most 2 times"),
    ],
)
def test_a_comparison_has_its_own_words(changes: dict[str, object], sentence: str) -> None:
    assert sentence in check(changes.pop("treated"), changes.pop("limit"), **changes).sentence()


@pytest.mark.parametrize(
    ("treated", "beside", "source", "words"),
    [
        (0.9, 0.95, "control", "it is 90%, and the control's is 95%"),
        (0.9, 0.95, "past", "it is 90%, and the same devices told 95% while they ran 1.0.0"),
        (0.9, 0.95, "released", "it is 90%, and 1.0.0 was published with 95%"),
        (0.9, 0.95, "target_released", "it is 90%, and its own release says 95%"),
        (0.9, None, "past", "it is 90%, and no earlier figure is known"),
        (None, 0.95, "past", "it is unknown, and no earlier figure is known"),
    ],
)
def test_what_stood_in_for_a_control_is_named(
    treated: float | None, beside: float | None, source: str, words: str
) -> None:
    each = check(treated, 0.1, beside=beside, source=source, compared="drop")
    assert each.comparison(Past(version="1.0.0")) == words


def test_a_version_before_without_a_name_is_called_that() -> None:
    each = check(0.9, 0.02, compared="drop", beside=0.95, source="past")
    assert "told while they ran the version before; at most" in each.sentence(Past())
    assert each.comparison(Past()).endswith("while they ran the version before")
    assert "while they ran the version before" in each.sentence()


def alone(past: Past, **limits: float) -> object:
    cells = [cell("treated", 0, n=10, metrics=accuracy(0.9, 10))]
    counts = {0: Counts(assigned_t=1, activated_t=1, reported_t=1)}
    return judge(plan(stage(**limits)), gate_input(*cells, counts=counts, past=past))


def test_without_a_control_a_limit_compares_with_the_past_then_the_release_then_its_own_release() -> None:
    known = {
        "estimates": {"accuracy": 0.95},
        "released": {"accuracy": 0.96},
        "target_released": {"accuracy": 0.97},
    }
    for name, figure, source in (
        ("estimates", "95%", "past"),
        ("released", "96%", "released"),
        ("target_released", "97%", "target_released"),
    ):
        verdict = alone(Past(version="1.0.0", device_windows=7, **known), accuracy_drop_max=0.01)
        assert (verdict.move, f"the {figure} that" in verdict.because) == ("hold", True), verdict.because
        verdict = alone(Past(version="1.0.0", device_windows=7, **known), accuracy_drop_max=0.2)
        assert verdict.evidence["past"] == {
            "version": "1.0.0",
            "device_windows": 7,
            "compared": {"accuracy_drop_max": source},
        }
        assert verdict.because.startswith(
            "no harm in 1 device of stage canary; no device can be its control, so it was compared with the past: "
            "accuracy is 90%, and "
        )
        assert verdict.because.endswith("; that proves nothing")
        del known[name]
    verdict = alone(Past(version="1.0.0"), accuracy_drop_max=0.01)
    assert (verdict.move, verdict.evidence["past"]["compared"]) == ("finish", {})
    assert "accuracy is 90%, and no earlier figure is known; that proves nothing" in verdict.because


def test_a_control_that_told_nothing_of_a_limit_is_named() -> None:
    cells = [cell("treated", 0, n=100, metrics=accuracy(0.9, 100)), cell("control", 0, n=1900)]
    assert held(*cells, accuracy_drop_max=0.1) == (
        "accuracy_drop_max compares accuracy with the control's, and the control reported nothing about it"
    )
    assert held(cell("treated", 0, n=100), cell("control", 0, n=1900), accuracy_drop_max=0.1) == (
        "accuracy_drop_max asks for accuracy, and nothing about it was reported in stage canary"
    )


def test_two_bounds_of_means_are_checked_each_on_its_side() -> None:
    def check_of(value: float) -> list[str]:
        criteria = SuccessCriteria(metrics_min={"fps": 10.0, "hue": 10.0}, metrics_max={"fps": 20.0})
        estimates = {role: {"means": {"fps": value, "hue": 10.0}} for role in ("treated", "control")}
        return broken_limits(criteria, estimates)

    assert [check_of(value) for value in (9.9, 10.0, 20.0, 20.1)] == [
        ["metrics_min.fps"],
        [],
        [],
        ["metrics_max.fps"],
    ]
