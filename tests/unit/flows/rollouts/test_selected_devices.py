"""Which devices a person's selector names: counted by labels and by reported classes, refused where it names none."""

import pytest

from support.values import T0, Town, town
from whimbrel.errors import Refused
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.records import ModelSettings
from whimbrel.flows.rollouts.selected_devices import count_selected, refuse_unknown
from whimbrel.model.selector_text import read_selector

SETTINGS = ModelSettings(report_labels=("region",))


def told(here: Town) -> None:
    """Two devices tell their class in reports and no labels; one tells its region."""
    for device, hardware_class in (("dev-1", "a"), ("dev-2", "a"), ("dev-3", "b")):
        here.enrol(device, labels={"region": "NZ"} if device == "dev-3" else {}, models=("wake",))
        running = RunningVersion(device_id=device, model="wake", serial=1, hardware_class=hardware_class, at=T0)
        here.fleet.note_running(running)


def count(here: Town, selector: str) -> int:
    return count_selected(here.fleet, "wake", read_selector(selector), hardware_label="hardware")


def test_devices_are_counted_by_the_class_that_they_report() -> None:
    """A class that `model health` lists was counted as no device, as a typing error is."""
    with town() as here:
        told(here)
        assert [count(here, text) for text in ("hardware=a", "hardware in (a,b)", "hardware=zzz", "region=NZ")] == [
            2,
            3,
            0,
            1,
        ]


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        (
            "hardware=zzz",
            r"no device with hardware=zzz is known of wake: what is known: hardware is a \(2\), b \(1\)\.",
        ),
        ("region=ZN", r"what is known: region is NZ \(1\)\. Mend the selector, or give --although-unknown"),
        ("colour=red", "devices do not tell the server their colour"),
    ],
)
def test_a_selector_of_no_known_device_is_refused_with_what_is_known(selector: str, words: str) -> None:
    with town() as here:
        told(here)
        with pytest.raises(Refused, match=words):
            refuse_unknown(here.fleet, "wake", read_selector(selector), settings=SETTINGS)


def test_a_selector_of_known_devices_and_everyone_are_taken() -> None:
    with town() as here:
        refuse_unknown(here.fleet, "wake", read_selector(""), settings=SETTINGS)
        told(here)
        for selector in ("hardware=a", "region=NZ", "hardware!=a"):
            refuse_unknown(here.fleet, "wake", read_selector(selector), settings=SETTINGS)
