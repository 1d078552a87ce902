"""Selectors as people type them mean what the same selectors mean in a plan."""

import pytest

from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import encode
from whimbrel.model.selector import EVERYONE, Expression, Selector
from whimbrel.model.selector_text import read_selector


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EVERYONE),
        ("region=NZ", Selector(match_labels={"region": "NZ"})),
        ("region == NZ , os=linux", Selector(match_labels={"region": "NZ", "os": "linux"})),
        ("a= two words ", Selector(match_labels={"a": "two words"})),
        ("a=", Selector(match_labels={"a": ""})),
        ("cpu=Core(TM) i7", Selector(match_labels={"cpu": "Core(TM) i7"})),
        ("x", Selector(match_expressions=(Expression(key="x", operator="Exists"),))),
        ("!beta", Selector(match_expressions=(Expression(key="beta", operator="DoesNotExist"),))),
        ("os!=ios", Selector(match_expressions=(Expression(key="os", operator="NotIn", values=("ios",)),))),
        ("os in (a, b)", Selector(match_expressions=(Expression(key="os", operator="In", values=("a", "b")),))),
        ("os notin (a)", Selector(match_expressions=(Expression(key="os", operator="NotIn", values=("a",)),))),
        ("ram_mb>512", Selector(match_expressions=(Expression(key="ram_mb", operator="Gt", values=("512",)),))),
        ("ram_mb < 512", Selector(match_expressions=(Expression(key="ram_mb", operator="Lt", values=("512",)),))),
        (
            "runtime.onnx version (>=1.8,<3)",
            Selector(match_expressions=(Expression(key="runtime.onnx", operator="Version", values=(">=1.8", "<3")),)),
        ),
    ],
)
def test_a_selector_is_read(text: str, expected: Selector) -> None:
    assert read_selector(text) == expected
    assert read_selector(encode(expected).decode()) == expected  # as in a plan


TERM = " is no term of a selector; expected one like region=NZ, os in (linux,android), ram_mb>512, os_version version "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *[
            (text, f"{term!r}{TERM}(>=15) or !beta")
            for text, term in (
                *(("region=NZ,", ""), ("=NZ", "=NZ"), ("os in linux", "os in linux"), ("a,,b", "")),
                *(("a in (b,c", "a in (b,c"), ("a/=b", "a/=b"), ("a b", "a b"), ("!!a", "!!a")),
            )
        ],
        ("a=1,a=2", "the selector asks for a=1 and a=2: no device is both"),
        ("ram_mb>many", "expression 1: Gt on 'ram_mb' needs exactly one whole number"),
        ("b,os in ()", "expression 2: In on 'os' needs at least one value"),
        ("os version (new)", "expression 1: 'new' is not a version bound; expected one like >=1.8 or <3"),
        ("a=" + "x" * 200, "a value of match_labels is "),
        ('{"match": 1}', "it has no field 'match'; did you mean 'match_labels'?"),
    ],
)
def test_what_is_no_selector_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UntrustedInput, match="selector") as caught:
        read_selector(text)
    assert words in str(caught.value)


def test_a_label_that_is_asked_for_twice_alike_is_asked_for_once() -> None:
    assert read_selector(" a=1, a == 1 ") == Selector(match_labels={"a": "1"})


def test_commas_in_parentheses_part_values_and_not_terms() -> None:
    read = read_selector("cpu=Core(TM, 2nd) i7,os notversion (<2, >=3),x")
    assert read == Selector(
        match_labels={"cpu": "Core(TM, 2nd) i7"},
        match_expressions=(
            Expression(key="os", operator="NotVersion", values=("<2", ">=3")),
            Expression(key="x", operator="Exists"),
        ),
    )
