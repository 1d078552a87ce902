"""How a version is named: by people (alias, serial, calendar or semantic version), and in plans."""

import pytest

from support.values import T0, town, version
from whimbrel.errors import NotFound, Refused, UntrustedInput
from whimbrel.flows.publishing.set_alias import set_alias
from whimbrel.flows.versions import find_named_version, find_planned_version, find_version
from whimbrel.plan.plan import VersionName


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


def test_a_prefix_that_may_be_several_versions_is_refused_with_the_candidates() -> None:
    known = [version(1, semantic_version="3.2.0"), version(2, semantic_version="3.2.1")]
    with pytest.raises(Refused) as refused:
        find_version(known, VersionName("wake", "3.2", prefix=True))
    assert str(refused.value) == (
        "'3.2' of wake may be any of 2026.01.01.1 (3.2.0), 2026.01.01.2 (3.2.1); name one of them"
    )
    assert find_version(known, VersionName("wake", "3.2.1", prefix=True)).serial == 2


def test_a_whole_number_is_meant_where_longer_ones_begin_like_it() -> None:
    known = [version(1, semantic_version="3.2.0-rc.1"), version(2, semantic_version="3.2.0")]
    assert find_version(known, VersionName("wake", "3.2.0", prefix=True)).serial == 2


def test_what_there_is_is_told_where_nothing_matches_the_newest_ten_of_it() -> None:
    many = [version(serial) for serial in range(1, 13)]
    with pytest.raises(NotFound) as absent:
        find_version(many, VersionName("wake", "9.9.9", prefix=False))
    names = ", ".join(f"2026.01.01.{serial} ({serial}.0.0)" for serial in range(3, 13))
    assert str(absent.value) == f"wake has no version '9.9.9'; it has: {names}"
    with pytest.raises(NotFound) as absent:
        find_version([], VersionName("wake", "9.9.9", prefix=False))
    assert str(absent.value) == "wake has no version '9.9.9'; it has: none yet"


def test_a_number_of_fifteen_digits_may_be_a_serial_and_a_longer_one_is_none() -> None:
    with town() as here:
        for digits, words in ((15, "serial 999999999999999"), (16, "no version '9999999999999999'")):
            with pytest.raises(NotFound, match=words):
                find_named_version(here.registry, "wake", name="9" * digits)
