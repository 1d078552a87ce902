"""Conditions in words, as commands and checks of plans say them."""

import pytest

from whimbrel.flows.wording import condition_words
from whimbrel.policy.policy import Conditions, Window


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (Conditions(), []),
        (
            Conditions(unmetered=True, charging=True, idle=True),
            ["on an unmetered network", "while charging", "while nobody uses the device"],
        ),
        (Conditions(battery_min=0.25), ["with at least 25% of charge, or charging"]),
        (Conditions(window_utc=(79200, 21600)), ["from 22:00 to 06:00 UTC"]),
        (
            Conditions(
                windows=(
                    Window(start_s=5400, end_s=86400, zone="local", days=("sun", "mon")),
                    Window(start_s=0, end_s=60),
                )
            ),
            ["from 01:30 to 24:00 local time on mon, sun or from 00:00 to 00:01 UTC"],
        ),
        (
            Conditions(storage_mib_min=500, metered_mib_a_day=20, start_jitter_s=90),
            ["with 500 MiB of storage to spare", "at most 20 MiB a day on a metered network", "spread over 90 s"],
        ),
    ],
)
def test_conditions_are_phrases(conditions: Conditions, words: list[str]) -> None:
    assert condition_words(conditions) == words
