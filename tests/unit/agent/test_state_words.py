"""How a model's state is said to people."""

import pytest

from whimbrel.agent.status import state_words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"state": "committed", "serial": 1, "refused": {}, "overridden": {}}, "committed"),
        (
            {"state": "quarantined", "serial": 1, "refused": {"2": "x"}, "overridden": {}},
            "committed, and refuses serial 2",
        ),
        (
            {"state": "quarantined", "serial": 1, "refused": {"2": "x", "3": "y"}, "overridden": {"2": 7}},
            "committed, and refuses serial 3",
        ),
        ({"state": "quarantined", "serial": None, "refused": {"1": "x"}, "overridden": {}}, "quarantined"),
    ],
)
def test_a_device_that_runs_the_baseline_well_is_not_called_quarantined(status: dict[str, object], words: str) -> None:
    assert state_words(status) == words
