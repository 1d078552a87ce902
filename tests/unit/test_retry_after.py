"""Who is told to wait waits, in seconds or until a date, and never longer than a bound of its own."""

import pytest

from whimbrel.retry_after import retry_after_s


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        ("999999999", 3600.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("-3", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}, now=50.0, most_s=3600.0) == seconds


def test_where_nothing_is_said_nobody_waits() -> None:
    assert retry_after_s({}, now=50.0, most_s=3600.0) is None
