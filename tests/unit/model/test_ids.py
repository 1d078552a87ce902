"""Names and orders."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import convert
from whimbrel.model.ids import CalendarVersion, DeviceId, Digest, Label, Name, check_name, dotted_key, semantic_key


def test_two_ten_comes_after_two_nine() -> None:
    assert semantic_key("2.10.0") > semantic_key("2.9.0")
    assert "2.10.0" < "2.9.0"  # the trap


def test_semantic_versions_sort_by_precedence() -> None:
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.1",
        "1.2.0",
        "1.10.0",
        "2.0.0",
    ]
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=semantic_key) == ordered


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("1.2.3", (1, 2, 3, ((2, 0, ""),))),
        ("1.2.3-rc.10.x", (1, 2, 3, ((1, 0, "rc"), (0, 10, ""), (1, 0, "x")))),
        ("999999999.0.0+build.1", (999_999_999, 0, 0, ((2, 0, ""),))),
    ],
)
def test_the_key_of_a_semantic_version_is_its_parts(text: str, key: tuple[object, ...]) -> None:
    assert semantic_key(text) == key


@pytest.mark.parametrize(
    "text", ["", "v", "1.", ".1", "1..2", "vv1", "1" * 10, "1.2.3.4.5.6.7.8.9", "1.0\n", "1.x", "\u0661"]
)
def test_what_is_no_dotted_number_is_refused(text: str) -> None:
    said = f"{text!r} is not a dotted version number such as 15.0 or 1.8.2"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        dotted_key(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("0", (0,)),
        ("0.0", (0,)),
        ("v1.0.2.0", (1, 0, 2)),
        ("1.2.3.4.5.6.7.8", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("9" * 9, (999_999_999,)),
    ],
)
def test_a_dotted_number_is_the_list_of_its_parts(text: str, key: tuple[int, ...]) -> None:
    assert dotted_key(text) == key


def test_build_metadata_has_no_precedence() -> None:
    assert semantic_key("1.0.0+a") == semantic_key("1.0.0+b")


@pytest.mark.parametrize("text", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3\n", "1.2.x"])
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    said = f"{text!r} is not a semantic version; expected the form 2.4.1 or 2.4.1-rc.1"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        semantic_key(text)


def test_the_tenth_publication_of_a_day_comes_after_the_ninth() -> None:
    assert CalendarVersion.parse("2026.10.01.10") > CalendarVersion.parse("2026.10.01.9")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *[
            (text, "; expected the form 2026.03.05.1")
            for text in (
                "2026.1.1.1",
                "2026.01.01.0",
                "2026.01.01",
                "2026.01.01.1\n",
                "x2026.01.01.1",
                "2026.01.01.1234567",
            )
        ],
        ("2026.02.30.1", ": day is out of range for month"),
        ("2026.13.01.1", ": month must be in 1..12"),
    ],
)
def test_what_is_no_calendar_version_is_refused(text: str, why: str) -> None:
    """`day is out of range for month` came alone, as what was wrong with a release."""
    with pytest.raises(ValueError, match=f"^{re.escape(f'{text!r} is not a calendar version{why}')}$"):
        CalendarVersion.parse(text)


def test_a_calendar_version_is_its_day_and_its_number() -> None:
    assert CalendarVersion.parse("0987.06.05.999999") == CalendarVersion(987, 6, 5, 999_999)
    assert str(CalendarVersion(987, 6, 5, 4)) == "0987.06.05.4"


def test_the_day_is_taken_in_utc() -> None:
    evening = datetime(2026, 3, 4, 20, 0, tzinfo=timezone(timedelta(hours=-8)))
    assert str(CalendarVersion.of(evening, iteration=1)) == "2026.03.05.1"
    assert str(CalendarVersion.of(datetime(2026, 3, 5, tzinfo=UTC), iteration=12)) == "2026.03.05.12"


@pytest.mark.parametrize(("low", "high"), [("1.9", "1.10"), ("15.0", "15.0.1"), ("9", "26")])
def test_dotted_numbers_sort_as_numbers(low: str, high: str) -> None:
    assert dotted_key(low) < dotted_key(high)


def test_trailing_zeros_and_a_v_do_not_count() -> None:
    assert dotted_key("v1.8.0") == dotted_key("1.8") == dotted_key("1.8.0.0")


@pytest.mark.parametrize("text", ["", "wake\n", "-wake", "wake-", "Wake", "w" * 65, "a/b", "..", "a b", "é"])
def test_what_is_no_name_is_refused(text: str) -> None:
    said = f"{text!r} is not a model name: lower-case letters, digits, '-' and '_', at most 64"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        check_name(text, kind="model")
    with pytest.raises(UntrustedInput):
        convert(Name, text, what="a name")


@pytest.mark.parametrize(("kind", "text"), [(Digest, "a" * 64), (DeviceId, "dev-1"), (Label, "region"), (Name, "wake")])
def test_a_last_newline_is_part_of_no_name(kind: type, text: str) -> None:
    """Python's `$` also matches before a newline at the end: `wake` and `wake\\n` were two models, one folder apart."""
    assert convert(kind, text, what="it") == text
    with pytest.raises(UntrustedInput):
        convert(kind, f"{text}\n", what="it")
