"""What the status of a model says to people."""

import pytest

from whimbrel.agent.status import state_words, status_sentence, waits_for_words
from whimbrel.device.states import State


def status(state: State, **more: object) -> dict[str, object]:
    given = {
        "state": state.value,
        "serial": 2,
        "version": "2026.03.05.2",
        "candidate": None,
        "refused": {},
        "overridden": {},
    }
    return {**given, "because": "the baseline", "waits_for": None, "problem": None, "download": None, **more}


def test_device_that_runs_a_good_version_is_not_called_quarantined() -> None:
    told = status(
        State.QUARANTINED, refused={"3": "three sessions failed", "1": "its probe failed"}, overridden={"1": 7}
    )
    assert state_words(told) == "committed, and refuses serial 3"
    assert status_sentence(told) == "runs 2026.03.05.2, committed, and refuses serial 3 (the baseline)"
    assert state_words(status(State.QUARANTINED, serial=None)) == "quarantined"


@pytest.mark.parametrize("state", State)
def test_every_state_has_words(state: State) -> None:
    assert state_words(status(state, candidate=3))


def test_download_stands_where_a_model_says_what_it_waits_for() -> None:
    downloading = status(State.DOWNLOADING, candidate=3, download={"sentence": "0 B of 2 MB"})
    assert state_words(downloading) == "fetches serial 3"
    assert waits_for_words(downloading) == "0 B of 2 MB"
    assert waits_for_words({**downloading, "waits_for": "a charger"}) == "a charger"
    assert status_sentence(status(State.COMMITTED, waits_for="tomorrow")).endswith("(the baseline); waits for tomorrow")
