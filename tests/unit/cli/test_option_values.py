"""What a person writes as an option's value: lengths of time, and stretches of the day."""

from typing import Any

import pytest

from whimbrel.cli.option_values import duration_s, window_of
from whimbrel.errors import UntrustedInput


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("6h", 21600), ("2d", 172800), ("0s", 0)])
def test_a_length_of_time_has_a_unit(text: str, seconds: float) -> None:
    assert duration_s(text, what="--timeout") == seconds


@pytest.mark.parametrize("text", ["", "90", "s", "-1s", "1h30m", "1 h", "nan", "٣s", "1s\n"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInput, match=r"--timeout .* is no length of time; expected such as 90s"):
        duration_s(text, what="--timeout")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("22:00-06:00", {"start_s": 79200, "end_s": 21600}),
        ("mon-fri 01:30-05:00 local", {"start_s": 5400, "end_s": 18000, "days": ("mon", "tue", "wed", "thu", "fri")}),
        ("sat,sun 00:00-24:00", {"start_s": 0, "end_s": 86400, "days": ("sat", "sun")}),
        ("sat-mon 00:00-01:00", {"start_s": 0, "end_s": 3600, "days": ("mon", "sat", "sun")}),
        ("02:00-03:00 Europe/Oslo", {"start_s": 7200, "end_s": 10800, "zone": "Europe/Oslo"}),
    ],
)
def test_a_window_is_days_hours_and_a_zone(text: str, fields: dict[str, Any]) -> None:
    assert window_of(text) == ({"zone": "local"} if "local" in text else {}) | fields


@pytest.mark.parametrize(
    "text",
    ["", "22-6", "22:00", "25:00-06:00", "01:00-24:30", "noon 01:00-02:00", "01:00-02:00 a b", "mon tue 1:00-2:00"],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInput, match=r"--window .* is not understood; expected FROM-TO"):
        window_of(text)
