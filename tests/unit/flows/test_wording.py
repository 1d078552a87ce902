"""Times, numbers and conditions in words, as commands and checks of plans say them."""

import math

import pytest

from whimbrel.flows.wording import (
    condition_words,
    devices_words,
    duration_words,
    evidence_words,
    move_words,
    people_words,
    percent_words,
    selector_words,
    signer_words,
    time_words,
)
from whimbrel.model.provenance import ModelSigner
from whimbrel.model.selector import Expression, Selector
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


def test_a_time_is_in_utc_to_the_minute_and_may_never_come() -> None:
    assert time_words(1_767_225_659.9) == "2026-01-01 00:00 UTC"
    assert time_words(1_767_225_660.0) == "2026-01-01 00:01 UTC"
    assert time_words(math.inf) == "for ever"


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (0.0, "1 min"),
        (0.024, "1 min"),
        (0.026, "2 min"),
        (0.99, "59 min"),
        (1.0, "1 h"),
        (71.9, "72 h"),
        (72.0, "3 days"),
        (100.0, "4 days"),
    ],
)
def test_a_span_has_the_unit_that_a_person_would_say(hours: float, words: str) -> None:
    assert duration_words(hours) == words


def test_counts_and_shares_are_words() -> None:
    assert [devices_words(count) for count in (0, 1, 2, 12_345)] == [
        "no device",
        "1 device",
        "2 devices",
        "12,345 devices",
    ]
    assert [percent_words(share) for share in (0.1, 5.0, 33.3333, 100.0)] == ["0.1%", "5%", "33.3%", "100%"]
    assert [people_words(count) for count in (1, 2)] == ["one person has", "2 people have"]


def test_a_move_is_named_as_the_command_that_does_it() -> None:
    assert [move_words(move) for move in ("roll_back", "slice_back", "hold", "advance")] == [
        "rollback",
        "rollback of a slice",
        "hold",
        "advance",
    ]


def test_what_ln_e_means_is_said_with_what_is_needed() -> None:
    assert evidence_words(4.605) == ("ln E is the evidence of harm: 0 or less is none, and harm is proven at 4.61")


def test_a_selector_is_its_labels_and_terms() -> None:
    assert selector_words(Selector()) == "every device"
    terms = (
        Expression(key="app", operator="Version", values=(">=2", "<3")),
        Expression(key="rooted", operator="Exists"),
    )
    both = Selector(match_labels={"region": "NZ", "ring": "a"}, match_expressions=terms)
    assert selector_words(both) == "region=NZ; ring=a; app Version >=2,<3; rooted Exists"


def test_a_signer_is_known_by_its_key_or_by_its_certificate() -> None:
    digest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # SHA-256 of "foo"
    pem = "-----BEGIN PUBLIC KEY-----\nZm\n  9v\n-----END PUBLIC KEY-----\n"
    assert signer_words(ModelSigner(method="key", anchor=pem)) == f"key sha256:{digest}"
    assert signer_words(ModelSigner(method="key", anchor="no base64!")) == "one given key"
    by_certificate = ModelSigner(method="certificate", anchor="x", identity="ci@example.com")
    assert signer_words(by_certificate) == "ci@example.com, by a certificate"
