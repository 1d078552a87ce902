"""Which devices are meant?"""

import re

import pytest

from whimbrel.model.selector import EVERYONE, Expression, Selector
from whimbrel.plan.selector_words import selector_words


def term(operator: str, *values: str, key: str = "chip") -> Expression:
    return Expression(key=key, operator=operator, values=values)


@pytest.mark.parametrize("operator", ["In", "Gt", "Lt", "Version", "Exists"])
def test_an_absent_label_fails(operator: str) -> None:
    values = {"In": ("a",), "Gt": ("1",), "Lt": ("1",), "Version": (">=1",), "Exists": ()}[operator]
    assert not term(operator, *values).matches({})


@pytest.mark.parametrize("operator", ["NotIn", "NotVersion", "DoesNotExist"])
def test_an_absent_label_satisfies(operator: str) -> None:
    values = {"NotIn": ("a",), "NotVersion": ("<1",), "DoesNotExist": ()}[operator]
    assert term(operator, *values).matches({})


@pytest.mark.parametrize(
    ("bounds", "value", "matches"),
    [
        (("<1.18",), "1.17.3", False),
        (("<1.18",), "1.18", True),
        (("<1.18",), "1.9", False),
        (("<=1.31.1",), "1.31.1", False),
        (("<=1.31.1",), "1.32", True),
        ((">=2", "<2.3"), "2.1", False),
        ((">=2", "<2.3"), "1.9", True),
        (("<1",), "unknown", False),
    ],
)
def test_versions_that_are_left_out(bounds: tuple[str, ...], value: str, matches: bool) -> None:
    """A value that is no version fails, as everywhere: nobody knows that it is not left out."""
    assert term("NotVersion", *bounds).matches({"chip": value}) is matches


def test_a_selector_names_the_labels_that_it_asks_about() -> None:
    assert Selector(match_labels={"a": "1"}, match_expressions=(term("Exists", key="b"),)).labels == {"a", "b"}


@pytest.mark.parametrize(
    ("operator", "values", "value", "matches"),
    [
        ("In", ("a", "b"), "b", True),
        ("In", ("a", "b"), "c", False),
        ("NotIn", ("a",), "a", False),
        ("NotIn", ("a",), "b", True),
        ("Exists", (), "", True),
        ("DoesNotExist", (), "", False),
        ("Gt", ("9",), "10", True),
        ("Gt", ("10",), "10", False),
        ("Lt", ("10",), "9", True),
        ("Gt", ("9",), "ten", False),
        ("Lt", ("9",), "", False),
        ("Gt", ("9",), "9" * 40, False),
    ],
)
def test_operators(operator: str, values: tuple[str, ...], value: str, matches: bool) -> None:
    assert term(operator, *values).matches({"chip": value}) is matches


@pytest.mark.parametrize(
    ("bounds", "value", "matches"),
    [
        ((">=1.8",), "1.10", True),
        ((">=1.8",), "1.7.9", False),
        ((">=1.8", "<3"), "2.9.9", True),
        ((">=1.8", "<3"), "3.0", False),
        ((">=1.8", "<3"), "3", False),
        (("==15",), "15.0", True),
        (("!=2.0",), "2", False),
        (("> 2",), "2.0.1", True),
        (("<=2.10",), "2.9", True),
        ((">=1",), "beta", False),
        ((">=1",), "1.0-rc1", False),
        (("=1.2",), "1.2.0", True),
        (("=1.2",), "1.2.1", False),
        (("==1.2",), "1.3", False),
        (("!=2.0",), "2.1", True),
        ((">2",), "2.0", False),
        (("<2",), "2.0", False),
        (("<=2",), "2.0", True),
        (("<=2",), "2.0.1", False),
        ((">=2",), "2.0", True),
    ],
)
def test_version_ranges(bounds: tuple[str, ...], value: str, matches: bool) -> None:
    assert term("Version", *bounds).matches({"chip": value}) is matches


@pytest.mark.parametrize(
    ("operator", "values", "said"),
    [
        *[
            (name, (), f"{name} on 'chip' needs at least one value")
            for name in ("In", "NotIn", "Version", "NotVersion")
        ],
        *[(name, ("a",), f"{name} on 'chip' takes no values") for name in ("Exists", "DoesNotExist")],
        *[
            (name, values, f"{name} on 'chip' needs exactly one whole number")
            for name in ("Gt", "Lt")
            for values in ((), ("1", "2"), ("x",), ("1.5",), ("1" * 19,))
        ],
        *[
            (name, (">=1", bound), f"{bound!r} is not a version bound; expected one like >=1.8 or <3")
            for name in ("Version", "NotVersion")
            for bound in ("1.8", "~1", "")
        ],
        ("Version", (">=a",), "'a' is not a dotted version number such as 15.0 or 1.8.2"),
        ("Version", (">=",), "'' is not a dotted version number such as 15.0 or 1.8.2"),
    ],
)
def test_a_term_that_means_nothing_is_refused(operator: str, values: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        term(operator, *values)


@pytest.mark.parametrize(("number", "over", "under"), [(511, False, True), (512, False, False), (513, True, False)])
def test_a_whole_number_of_18_digits_is_compared_as_one(number: int, over: bool, under: bool) -> None:
    at = 10**17
    value, limit = str(at + number), str(at + 512)
    assert len(value) == len(limit) == 18
    assert term("Gt", limit).matches({"chip": value}) is over
    assert term("Lt", limit).matches({"chip": value}) is under
    assert term("Lt", "9" * 18).matches({"chip": "9" * 17 + "8"})
    assert not term("Lt", "9" * 18).matches({"chip": "1" * 19})
    assert term("Gt", "-5").matches({"chip": "-4"})


def test_all_terms_and_all_labels_must_hold() -> None:
    both = Selector(
        match_labels={"os": "linux", "ring": "beta"}, match_expressions=(term("In", "a", "b"), term("NotIn", "b"))
    )
    whole = {"os": "linux", "ring": "beta", "chip": "a"}
    assert both.matches(whole)
    for change in ({"os": "ios"}, {"ring": ""}, {"chip": "b"}, {"chip": "c"}):
        assert not both.matches(whole | change)
    assert not Selector(match_expressions=(term("Exists"),)).everyone


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        (EVERYONE, ""),
        (Selector(match_labels={"region": "NZ"}), "region is NZ"),
        (
            Selector(match_labels={"region": "NZ", "os": "linux"}, match_expressions=(term("In", "a"),)),
            "region is NZ and os is linux and chip is a",
        ),
        (Selector(match_expressions=(term("In", "a", "b"),)), "chip is one of a, b"),
        (Selector(match_expressions=(term("NotIn", "a"),)), "chip is none of a"),
        (Selector(match_expressions=(term("Exists"),)), "chip is there"),
        (Selector(match_expressions=(term("DoesNotExist"),)), "chip is not there"),
        (Selector(match_expressions=(term("Gt", "5"),)), "chip is over 5"),
        (Selector(match_expressions=(term("Lt", "5"),)), "chip is under 5"),
        (Selector(match_expressions=(term("Version", ">=1", "<3"),)), "chip is a version >=1, <3"),
        (Selector(match_expressions=(term("NotVersion", "<2"),)), "chip is no version <2"),
    ],
)
def test_a_selector_is_told_in_words(selector: Selector, words: str) -> None:
    assert selector_words(selector) == words


def test_all_must_hold() -> None:
    both = Selector(match_labels={"os": "linux"}, match_expressions=(term("In", "a"),))
    assert both.matches({"os": "linux", "chip": "a"})
    assert not both.matches({"os": "linux"})
    assert not both.matches({"chip": "a"})


def test_an_empty_selector_means_everyone() -> None:
    assert EVERYONE.matches({})
    assert EVERYONE.everyone
    assert not Selector(match_labels={"a": "b"}).everyone
