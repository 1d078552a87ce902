"""What `--hour-s` does to times."""

import pytest

from whimbrel.plan.rehearsal import rehearsed_s


@pytest.mark.parametrize(
    ("seconds", "hour_s", "rehearsed"),
    [
        (300, 3600, 300),
        (300, 360, 30),
        (300, 60, 5),
        (300, 0.5, 5),  # agents need some seconds to report
        (1, 60, 1),  # what is short already stays
        (2, 3600, 2),
    ],
)
def test_windows_and_periods_scale_down_to_some_seconds(seconds: float, hour_s: float, rehearsed: float) -> None:
    assert rehearsed_s(seconds, hour_s=hour_s) == rehearsed
