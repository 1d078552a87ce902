"""Retry-After is read in one way on both sides."""

import pytest

from whimbrel.retry_after import seconds_of


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        (" 17 ", 17.0),
        ("9" * 400, 3600.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:01:00 -0000", 10.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("²", None),
        ("-3", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value: str, seconds: float | None) -> None:
    assert seconds_of(value, now=50.0, most_s=3600.0) == seconds


def test_a_date_that_no_calendar_has_says_nothing() -> None:
    """A fuzzer found it: an hour of sixty digits was an error of its own, and ended the agent's pass."""
    assert seconds_of(f"Fri, 31 Dec 2027 23{'7' * 60}:9 GMT", now=0, most_s=60) is None
    assert seconds_of(f"Fri, 31 Dec 2027 23:59:{'9' * 60} GMT", now=0, most_s=60) is None
