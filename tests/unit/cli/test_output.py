"""Numbers for people: one thing has no plural, and a share has no digits that say nothing."""

import pytest

from whimbrel.cli.output import counted, percent


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 devices"), (1, "1 device"), (2, "2 devices"), (1204, "1,204 devices")]
)
def test_a_number_has_its_noun(number: int, words: str) -> None:
    assert counted(number, "device") == words


@pytest.mark.parametrize(
    ("share", "digits", "words"),
    [
        (0.25, 1, "25%"),
        (0.125, 1, "12.5%"),
        (1.0, 1, "100%"),
        (0.0, 2, "0%"),
        (0.9996, 1, "100%"),
        (0.01234, 2, "1.23%"),
    ],
)
def test_a_share_has_the_digits_that_it_needs(share: float, digits: int, words: str) -> None:
    assert percent(share, digits=digits) == words
