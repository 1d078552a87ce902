"""Identity, budgets and the difference."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from support.values import file, release, version
from whimbrel.errors import Conflict, Refused, UntrustedInput
from whimbrel.flows.publishing.publish import (
    Identity,
    build_hash,
    check_budgets,
    check_unpublished,
    difference,
    identify,
    is_same,
    write_release,
)
from whimbrel.flows.records import ModelSettings, VersionRecord
from whimbrel.model.release import Training, Variant

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
ANY = (Variant(name="any", files=(file(),)),)


def next_of(*versions: VersionRecord, **changes: object) -> Identity:
    values = {"variants": ANY, "version": None, "semantic_version": None, "now": NOW} | changes
    return identify(versions, **values)


def test_the_first_version() -> None:
    first = next_of()
    assert (first.serial, first.version, first.semantic_version) == (1, "2026.10.01.1", "1.0.0")


def test_the_eleventh_of_a_day_follows_the_tenth() -> None:
    today = [version(n, version=f"2026.10.01.{n}") for n in range(1, 11)]
    assert next_of(*today).version == "2026.10.01.11"


def test_yesterdays_iterations_do_not_count() -> None:
    assert next_of(version(1, version="2026.09.30.7")).version == "2026.10.01.1"


def test_the_day_is_utc() -> None:
    late = datetime(2026, 9, 30, 20, tzinfo=timezone(timedelta(hours=-8)))
    assert next_of(now=late).version == "2026.10.01.1"


def test_the_patch_of_the_highest_version_is_raised_not_of_the_newest_or_the_last_in_the_alphabet() -> None:
    known = [version(1, semantic_version="2.10.0"), version(2, semantic_version="2.9.4")]
    assert next_of(*known).semantic_version == "2.10.1"


def test_the_serial_is_counted_on() -> None:
    assert next_of(version(1), version(2)).serial == 3


@pytest.mark.parametrize(
    "wrong", [{"version": "2026.02.30.1"}, {"version": "1.0"}, {"semantic_version": "1.0"}, {"semantic_version": ""}]
)
def test_a_version_that_is_none_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(UntrustedInput):
        next_of(**wrong)


def test_a_build_hash_knows_names_and_bytes_and_no_order() -> None:
    one, other = Variant(name="a", files=(file(),)), Variant(name="b", files=(file("b" * 64),))
    assert build_hash([one, other]) == build_hash([other, one])
    assert build_hash([one]) != build_hash([Variant(name="a", files=(file("c" * 64),))])
    assert build_hash([one]) != build_hash([Variant(name="c", files=(file(),))])


def test_a_release_that_cannot_be_is_refused() -> None:
    twice = (ANY[0], ANY[0])
    with pytest.raises(UntrustedInput, match="two variants share a name"):
        write_release("wake", next_of(), variants=twice, training=Training(), metrics={}, changelog=(), now=NOW)


# --- budgets ---


def test_the_largest_variant_is_held_against_the_budget() -> None:
    two = (Variant(name="small", files=(file(),)), Variant(name="large", files=(file("b" * 64, size_bytes=501),)))
    check_budgets(release(variants=two), ModelSettings(size_bytes_max=501))
    with pytest.raises(Refused, match="variant large has 501 bytes; the budget of wake is 500"):
        check_budgets(release(variants=two), ModelSettings(size_bytes_max=500))


def test_all_files_of_a_variant_count() -> None:
    both = (Variant(name="any", files=(file(), file("b" * 64, name="tokens.onnx"))),)
    with pytest.raises(Refused, match="has 200 bytes"):
        check_budgets(release(variants=both), ModelSettings(size_bytes_max=150))


def test_a_metric_must_reach_its_floor_and_be_named() -> None:
    floors = ModelSettings(metrics_min={"accuracy": 0.84})
    check_budgets(release(metrics={"accuracy": 0.84}), floors)
    with pytest.raises(Refused, match=r"accuracy is 0.8399; the budget of wake asks for at least 0.84"):
        check_budgets(release(metrics={"accuracy": 0.8399}), floors)
    with pytest.raises(Refused, match="names none"):
        check_budgets(release(), floors)


def test_a_metric_that_is_no_number_reaches_no_floor() -> None:
    with pytest.raises(Refused):
        check_budgets(release(metrics={"accuracy": float("nan")}), ModelSettings(metrics_min={"accuracy": 0.84}))


# --- a version is immutable ---


@pytest.mark.parametrize("same", [{"version": "2026.01.01.1"}, {"semantic_version": "1.0.0"}])
def test_a_number_is_published_once(same: dict[str, str]) -> None:
    with pytest.raises(Conflict, match="is published and never changes"):
        check_unpublished(release(2, **same), [(version(1), release(1))])


def test_a_new_number_may_have_the_same_files() -> None:
    check_unpublished(release(2), [(version(1), release(1))])


def test_the_difference_names_the_files_and_fields_that_differ() -> None:
    changed = (Variant(name="any", files=(file("b" * 64),)),)
    after = release(1, variants=changed, metrics={"accuracy": 0.9}, changelog=("better",))
    said = difference(release(1), after)
    assert "changed: any/model.onnx" in said
    assert "metrics differs; changelog differs" in said


def test_the_difference_of_equal_files_says_so() -> None:
    assert difference(release(1), release(1)) == "Difference: the files are the same."


def test_the_same_files_and_words_are_the_same_publication_whatever_its_numbers() -> None:
    before = release(1, metrics={"accuracy": 0.9})
    assert is_same(before, release(2, metrics={"accuracy": 0.9}, created="2027-01-01T00:00:00Z"))
    assert is_same(before, release(2, metrics={"accuracy": 0.9}, unchecked=("it is slow",)))
    assert not is_same(before, release(1, metrics={"accuracy": 0.8}))
    assert not is_same(before, release(1, metrics={"accuracy": 0.9}, changelog=("better",)))
    other = (Variant(name="any", files=(file("b" * 64),)),)
    assert not is_same(before, release(1, metrics={"accuracy": 0.9}, variants=other))
