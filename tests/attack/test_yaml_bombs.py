"""A YAML file that is made to harm costs a sentence."""

import pytest

from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.flows.files.yaml_file import load_yaml


def _refusal(text: str, *, bytes_max: int = limits.PLAN_BYTES) -> str:
    with pytest.raises(UntrustedInput) as caught:
        load_yaml(text, what="plan.yaml", bytes_max=bytes_max)
    return str(caught.value)


def test_billion_laughs_are_refused_at_the_first_anchor() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert _refusal("\n".join(rows)).startswith("plan.yaml:1: anchors and aliases")


def test_recursive_alias_is_refused() -> None:
    assert "anchors and aliases" in _refusal("&a [*a]")


def test_merge_key_is_refused() -> None:
    assert "merge keys" in _refusal("<<: {a: 1}")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!!binary aGk=", "! x", "!!str 5"])
def test_tags_are_refused(tag: str) -> None:
    assert "tag" in _refusal(f"a: {tag}")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    refusal = _refusal(opening * (200_000 // len(opening)))
    assert "deep" in refusal or "not YAML" in refusal


def test_too_many_values_are_refused() -> None:
    assert f"more than {limits.YAML_NODES} values" in _refusal("[" + "1," * 120_000 + "]")


def test_too_many_bytes_are_refused() -> None:
    assert f"at most {limits.PLAN_BYTES}" in _refusal("#" * (limits.PLAN_BYTES + 1))


def test_a_number_of_a_hundred_thousand_digits_is_not_computed() -> None:
    value, _ = load_yaml("a: " + "9" * 100_000, what="x")
    assert value == {"a": "9" * 100_000}


def test_a_second_document_is_refused() -> None:
    assert _refusal("a: 1\n---\nb: 2\n") == "plan.yaml:2: a second document starts here; one file holds one"


def test_keys_are_plain_words() -> None:
    for text in ("? [a]\n: 1", "? {a: 1}\n: 1", "&x a: 1", "!!str a: 1"):
        assert "a key is a plain word" in _refusal(text)


def test_a_long_key_over_many_values_costs_its_length_once() -> None:
    """A place that remembered its whole path would take a gibibyte for this quarter of a megabyte."""
    text = "".join("  " * n + "k" * 500 + ":\n" for n in range(30)) + "  " * 30 + "[" + "1," * 90_000 + "]"
    _, line_of = load_yaml(text, what="x")
    path = "$" + ("." + "k" * 500) * 30
    assert line_of(path) == 30
    assert line_of(f"{path}[89999]") == 31
