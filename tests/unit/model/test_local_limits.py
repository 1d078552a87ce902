"""Limits by which a device decides alone: the policy's word goes before the release's, limit by limit."""

import pytest

from whimbrel import limits
from whimbrel.model.local_limits import SHARE_LIMITS, LocalLimits

RELEASE = LocalLimits(crash_loop=5, error_rate_max=0.1, on_failed_probe="go_back")


def test_what_the_policy_says_of_a_limit_goes_before_what_the_release_says() -> None:
    policy = LocalLimits(crash_loop=0, accuracy_min=0.5, on_failed_probe="report")
    assert policy.over(RELEASE) == LocalLimits(
        crash_loop=0, error_rate_max=0.1, accuracy_min=0.5, on_failed_probe="report"
    )
    assert LocalLimits().over(RELEASE) == RELEASE
    assert policy.over(None) == policy


@pytest.mark.parametrize(("crash_loop", "crashes"), [(None, limits.CRASH_LOOP), (0, 0), (7, 7)])
def test_a_device_leaves_a_version_after_so_many_crashes_in_a_row(crash_loop: int | None, crashes: int) -> None:
    assert LocalLimits(crash_loop=crash_loop).crashes == crashes


@pytest.mark.parametrize(
    ("some", "looks"),
    [
        ({"error_rate_max": 0.5}, True),
        ({"latency_ms_p95_max": 5.0}, True),
        ({"accuracy_min": 0.5}, True),
        ({"crash_loop": 3, "sessions": 20, "probe_every_s": 3600.0, "on_failed_probe": "report"}, False),
    ],
)
def test_only_three_limits_look_at_the_sessions(some: dict[str, float], looks: bool) -> None:
    assert LocalLimits(**some).looks_at_sessions is looks


def test_limits_that_are_shares_may_be_written_in_percent() -> None:
    assert sorted(SHARE_LIMITS) == ["accuracy_min", "error_rate_max"]
