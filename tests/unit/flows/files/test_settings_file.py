"""A file of a model's settings: understood, or refused with the line."""

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.settings_file import read_settings
from whimbrel.flows.records import ModelSettings, NewSettings
from whimbrel.model.documents import convert
from whimbrel.plan.objectives import Objective, read_objective

FILE = """
refresh_s: 60
objectives:
  - accuracy >= 84% weekly, take back
  - {measure: memory_mb, at_most: 50, peak: true, window: hour}
anomalies: take_back
conditions: {charging: true}
"""


def test_a_file_holds_objectives_in_words_or_in_keys() -> None:
    settings = read_settings(FILE, what="wake.yaml")
    changes = convert(NewSettings, settings, what="it")
    assert changes.objectives == (
        read_objective("accuracy >= 84% weekly, take back"),
        Objective(measure="memory_mb", at_most=50, peak=True, window="hour"),
    )
    assert (settings["refresh_s"], settings["anomalies"], settings["conditions"]) == (
        60,
        "take_back",
        {"charging": True},
    )
    assert convert(ModelSettings, settings, what="it").conditions.charging


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives: [accuracy]\n", r"wake.yaml:1: the objective 'accuracy' is not understood"),
        ("refresh_s: 60\nobjectives:\n  - battery < 5 monthly\n", r"wake.yaml:3: 'monthly'"),
        ("objectives: [battery < 5, battery < 5 daily]\n", "there twice"),
        ("anomalies: loud\n", "wake.yaml"),
        ("refresh: 60\n", "wake.yaml"),
        ("- 1\n", "has no settings"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(UntrustedInput, match=message):
        read_settings(text, what="wake.yaml")
