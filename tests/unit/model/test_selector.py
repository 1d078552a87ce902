"""Which devices are meant?"""

import pytest

from whimbrel.model.selector import EVERYONE, Expression, Selector


def term(operator: str, *values: str, key: str = "chip") -> Expression:
    return Expression(key=key, operator=operator, values=values)  # type: ignore[arg-type]


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
    ],
)
def test_version_ranges(bounds: tuple[str, ...], value: str, matches: bool) -> None:
    assert term("Version", *bounds).matches({"chip": value}) is matches


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        ("In", ()),
        ("NotIn", ()),
        ("Version", ()),
        ("Exists", ("a",)),
        ("Gt", ("1", "2")),
        ("Lt", ("x",)),
        ("Gt", ()),
        ("Version", ("1.8",)),
        ("Version", (">=a",)),
        ("Version", (">=",)),
    ],
)
def test_a_term_that_means_nothing_is_refused(operator: str, values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs|takes no|bound|dotted"):
        term(operator, *values)


def test_all_must_hold() -> None:
    both = Selector(match_labels={"os": "linux"}, match_expressions=(term("In", "a"),))
    assert both.matches({"os": "linux", "chip": "a"})
    assert not both.matches({"os": "linux"})
    assert not both.matches({"chip": "a"})


def test_an_empty_selector_means_everyone() -> None:
    assert EVERYONE.matches({})
    assert EVERYONE.everyone
    assert not Selector(match_labels={"a": "b"}).everyone
