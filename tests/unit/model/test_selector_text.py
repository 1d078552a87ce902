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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("region=NZ,", "'' is no term"),
        ("=NZ", "'=NZ' is no term"),
        ("os in linux", "is no term"),
        ("a=1,a=2", "no device is both"),
        ("ram_mb>many", "needs exactly one whole number"),
        ("os in ()", "needs at least one value"),
        ("os version (new)", "is not a version bound"),
        ("a=" + "x" * 200, "the selector cannot be read"),
        ('{"match": 1}', "it has no field 'match'"),
    ],
)
def test_what_is_no_selector_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UntrustedInput, match="selector") as caught:
        read_selector(text)
    assert words in str(caught.value)
