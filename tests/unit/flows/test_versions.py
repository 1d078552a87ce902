"""How a version is named: by people (alias, serial, calendar or semantic version), and in plans."""

import pytest

from support.values import T0, town, version
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.flows.publishing.set_alias import set_alias
from whimbrel.flows.versions import find_named_version, find_planned_version


@pytest.mark.parametrize("name", ["stable", "2", "2.0.0", "2026.01.01.2"])
def test_people_name_a_version_in_four_ways(name: str) -> None:
    with town() as here:
        assert set_alias(here.registry, "wake", alias="stable", name="2", actor="ana", now=T0).serial == 2
        assert find_named_version(here.registry, "wake", name=name).serial == 2


def test_an_alias_goes_before_a_serial_and_moves() -> None:
    with town() as here:
        set_alias(here.registry, "wake", alias="1", name="2.0.0", actor="ana", now=T0)
        assert find_named_version(here.registry, "wake", name="1").serial == 2
        set_alias(here.registry, "wake", alias="1", name="1.0.0", actor="ana", now=T0)
        assert here.registry.aliases("wake") == {"1": 1}
        newest = here.registry.audit_log()[0]
        assert (newest.because, newest.evidence) == (
            f"1 is {version(1).version} (1.0.0)",
            {"alias": "1", "serial": 1, "before": 2},
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [("9", "no version with serial 9"), ("9" * 16, "has no version '9999999999999999'"), ("x", "has no version 'x'")],
)
def test_what_names_no_version_is_not_found(name: str, words: str) -> None:
    with town() as here:
        for find in (
            lambda: find_named_version(here.registry, "wake", name=name),
            lambda: set_alias(here.registry, "wake", alias="stable", name=name, actor="ana", now=T0),
        ):
            with pytest.raises(NotFound, match=words):
                find()
        assert here.registry.aliases("wake") == {}


def test_an_alias_is_a_name_and_a_model_is_there() -> None:
    with town() as here:
        with pytest.raises(UntrustedInput, match="an alias cannot be read"):
            set_alias(here.registry, "wake", alias="UPPER", name="2", actor="ana", now=T0)
        with pytest.raises(NotFound, match="there is no model 'sleep'"):
            find_named_version(here.registry, "sleep", name="2")


def test_a_plan_names_a_version_of_its_model() -> None:
    versions = [version(1), version(2)]
    assert find_planned_version(versions, "wake@2.0.0", model="wake").serial == 2
    for text, error, words in (
        ("sleep@2.0.0", Refused, "is no version of 'wake'; ask about the model"),
        ("2.0.0", Refused, "2.0.0"),
        ("wake@7.0.0", NotFound, "has no version '7.0.0'"),
    ):
        with pytest.raises(error, match=words):
            find_planned_version(versions, text, model="wake")
