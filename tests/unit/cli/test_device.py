"""What people type after `whimbrel device`: spans of time and labels."""

import pytest

from whimbrel.cli.device import _changes, span_s
from whimbrel.errors import UntrustedInput


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30min", 1800), ("30m", 1800), ("12h", 43200), ("2d", 172800), ("1.5 h", 5400)]
)
def test_a_span_of_time_is_read(text: str, seconds: float) -> None:
    assert span_s(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "d", "-2d", "2 days", "2d3h", "inf h"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInput, match="expected one like 90s, 30min, 12h or 2d"):
        span_s(text)


def test_labels_are_set_and_taken_away() -> None:
    assert _changes(["a=1", "b=", "c=x=y", "old-", "two-words-"]) == (
        {"a": "1", "b": "", "c": "x=y"},
        ["old", "two-words"],
    )
    for word in ("a", "-", ""):
        with pytest.raises(UntrustedInput, match="expected key=value"):
            _changes([word])
