"""Signed limits of one device: a bound and no mean, a session a value, and few false alarms."""

import functools
import math
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
    assert words == (
        "50.0% of the last 60 sessions were slower than 50 ms, at least 21.8% beyond chance; at most 5.0% may be"
    )


@pytest.mark.parametrize("count", [10, 20, 100])
@pytest.mark.parametrize("window", [10, 100])
@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9, 1.0])
def test_what_is_proven_is_where_chance_has_its_share_of_the_false_alarms(mean: float, count: int, window: int) -> None:
    """Hoeffding's bound: exp(-n kl(mean, proven)) is 1 in 1,000 divided by the looks. Of a mean of 1 it is proven^n."""
    proven = least_mean(mean, count=count, window=window)
    alarm = 1e-3 / window
    if mean == 1.0:
        assert proven == pytest.approx(alarm ** (1 / count), rel=1e-9)
        return
    entropy = mean * math.log(mean / proven) + (1 - mean) * math.log((1 - mean) / (1 - proven))
    assert 0 < proven < mean
    assert math.exp(-count * entropy) == pytest.approx(alarm, rel=1e-4)


def test_nothing_is_proven_of_sessions_without_a_fault() -> None:
    assert least_mean(0.0, count=1000, window=1000) == 0


def test_a_limit_is_broken_beyond_what_is_proven_and_not_at_it() -> None:
    proven = least_mean(1.0, count=10, window=limits.LIMIT_SESSIONS)
    at, below = LocalLimits(error_rate_max=proven), LocalLimits(error_rate_max=math.nextafter(proven, 0))
    assert broken_limit(at, with_errors(*[1.0] * 10)) == ""
    assert broken_limit(below, with_errors(*[1.0] * 10)) == (
        f"100.0% errors in the last 10 sessions, at least {proven:.1%} beyond chance; at most {proven:.1%} may be"
    )


def test_of_two_limits_each_is_asked_of_the_sessions_that_tell_of_it_and_the_first_broken_one_is_said() -> None:
    both = LocalLimits(error_rate_max=0.05, latency_ms_p95_max=50, accuracy_min=0.84)
    slow = [SessionFigures(errors=0.0, latency_key=key_of(80)), SessionFigures(errors=0.0)] * 20
    assert broken_limit(both, slow).startswith("100.0% of the last 20 sessions were slower than 50 ms, at least 5")
    wrong = [SessionFigures(errors=0.0, latency_key=key_of(20), accuracy=0.1)] * 20
    assert broken_limit(both, wrong).startswith("accuracy 10.0% in the last 20 sessions, at most ")
    failing = [SessionFigures(errors=1.0, latency_key=key_of(80), accuracy=0.1)] * 20
    assert broken_limit(both, failing).startswith("100.0% errors in the last 20 sessions, at least ")
    assert broken_limit(LocalLimits(), failing) == ""


def test_no_more_sessions_count_than_the_documents_say_or_a_hundred() -> None:
    """What is older than the window would hide what a version does now, or be held against it for ever."""
    for local, count in ((ERRORS, limits.LIMIT_SESSIONS), (LocalLimits(error_rate_max=0.05, sessions=40), 40)):
        found = broken_limit(local, with_errors(*[0.0] * 500, *[1.0] * count))
        proven = (1e-3 / count) ** (1 / count)
        assert found == (
            f"100.0% errors in the last {count} sessions, at least {proven:.1%} beyond chance; at most 5.0% may be"
        )


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

    @functools.cache  # of sessions that are 0 or 1 their numbers say all
    def broken(good: int, bad: int) -> bool:
        return broken_limit(ERRORS, with_errors(*[0.0] * good, *[1.0] * bad)) != ""

    def left(rate: float) -> int:
        devices = 0
        for _ in range(2000):
            sessions = [chance.random() < rate for _ in range(200)]
            windows = [sessions[max(0, count + 1 - limits.LIMIT_SESSIONS) : count + 1] for count in range(3, 200, 14)]
            devices += any(broken(window.count(False), window.count(True)) for window in windows)
        return devices

    assert left(0.05) <= 2000 * 2 * limits.LIMIT_FALSE_ALARM * 2
    assert left(0.02) == 0


def test_limits_of_a_policy_go_before_those_of_a_release_one_by_one() -> None:
    own = LocalLimits(crash_loop=5, error_rate_max=0.2)
    assert LocalLimits(crash_loop=2).over(own) == LocalLimits(crash_loop=2, error_rate_max=0.2)
    assert LocalLimits().over(own) == own
    assert LocalLimits(crash_loop=0).over(own).crashes == 0
    assert LocalLimits().crashes == limits.CRASH_LOOP
