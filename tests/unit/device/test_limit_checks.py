"""Signed limits of one device: a bound and no mean, a session a value, and few false alarms."""

import random

import pytest

from whimbrel import limits
from whimbrel.device.limit_checks import SessionFigures, broken_limit, least_mean
from whimbrel.health.sketch import key_of
from whimbrel.model.local_limits import LocalLimits

ERRORS = LocalLimits(error_rate_max=0.05)
SLOW = LocalLimits(latency_ms_p95_max=50)
RIGHT = LocalLimits(accuracy_min=0.84)


def with_errors(*shares: float) -> list[SessionFigures]:
    return [SessionFigures(errors=share) for share in shares]


def with_latency(*values: float) -> list[SessionFigures]:
    return [SessionFigures(latency_key=key_of(value)) for value in values]


def with_accuracy(*values: float) -> list[SessionFigures]:
    return [SessionFigures(accuracy=value) for value in values]


@pytest.mark.parametrize("local", [ERRORS, SLOW, RIGHT])
def test_nothing_is_broken_before_any_session_tells(local: LocalLimits) -> None:
    assert broken_limit(local, []) == ""
    assert broken_limit(local, [SessionFigures()] * 100) == ""


def test_one_bad_session_breaks_no_limit_and_a_version_that_always_fails_breaks_it_within_few() -> None:
    assert broken_limit(ERRORS, with_errors(1.0)) == ""
    assert broken_limit(SLOW, with_latency(9000.0)) == ""
    assert broken_limit(RIGHT, with_accuracy(0.0)) == ""
    first = next(count for count in range(1, 100) if broken_limit(ERRORS, with_errors(*[1.0] * count)))
    assert first == 4


def test_a_mean_beyond_the_limit_is_not_enough_where_chance_explains_it() -> None:
    assert broken_limit(ERRORS, with_errors(*[0.0] * 18, 1.0, 1.0)) == ""  # 10% of 20 sessions
    assert broken_limit(ERRORS, with_errors(*[0.0] * 60, *[1.0] * 20)) != ""  # 25% of 80


def test_a_session_is_one_value_however_many_inferences_it_had() -> None:
    assert least_mean(0.2, count=100, window=100) < 0.2
    assert broken_limit(ERRORS, with_errors(*[0.0] * 95, *[1.0] * 5)) == ""


def test_the_words_say_what_was_found_what_is_proven_and_what_may_be() -> None:
    words = broken_limit(RIGHT, with_accuracy(*[0.5] * 80))
    assert words == "accuracy 50.0% in the last 80 sessions, at most 75.0% beyond chance; at least 84.0% must be"
    words = broken_limit(SLOW, with_latency(*[20.0] * 30, *[80.0] * 30))
    assert words.startswith("50.0% of the last 60 sessions were slower than 50 ms, at least ")
    assert words.endswith("beyond chance; at most 5.0% may be")


def test_only_the_newest_sessions_count() -> None:
    past = with_errors(*[1.0] * 100)
    assert broken_limit(ERRORS, [*past, *with_errors(*[0.0] * 100)]) == ""
    small = LocalLimits(error_rate_max=0.05, sessions=10)
    assert broken_limit(small, [*with_errors(*[0.0] * 100), *with_errors(*[1.0] * 8)]) != ""


def test_a_latency_at_the_limit_is_not_slower_than_it() -> None:
    assert broken_limit(SLOW, with_latency(*[50.0] * 100)) == ""
    assert broken_limit(SLOW, with_latency(*[52.0] * 100)) != ""


def test_a_version_exactly_at_its_limit_is_left_by_few_devices_and_one_well_within_it_by_none() -> None:
    """The rule promises at most 1 in 1,000 within a window; 2,000 devices with 200 sessions each are looked at."""
    chance = random.Random(20260305)

    def left(rate: float) -> int:
        devices = 0
        for _ in range(2000):
            sessions = with_errors(*(float(chance.random() < rate) for _ in range(200)))
            devices += any(broken_limit(ERRORS, sessions[: count + 1]) for count in range(3, 200, 14))
        return devices

    assert left(0.05) <= 2000 * 2 * limits.LIMIT_FALSE_ALARM * 2
    assert left(0.02) == 0


def test_limits_of_a_policy_go_before_those_of_a_release_one_by_one() -> None:
    own = LocalLimits(crash_loop=5, error_rate_max=0.2)
    assert LocalLimits(crash_loop=2).over(own) == LocalLimits(crash_loop=2, error_rate_max=0.2)
    assert LocalLimits().over(own) == own
    assert LocalLimits(crash_loop=0).over(own).crashes == 0
    assert LocalLimits().crashes == limits.CRASH_LOOP
