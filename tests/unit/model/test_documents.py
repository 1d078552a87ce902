"""Reading and writing of documents: strict, bounded, and one form of bytes."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import msgspec
import pytest

import whimbrel.model
import whimbrel.plan
import whimbrel.policy
from support.values import line, policy
from whimbrel import limits
from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import Document, convert, digest_of, encode, parse, plain
from whimbrel.model.release import Line
from whimbrel.policy.policy import Policy


def values() -> Iterator[type]:
    """Every struct and dataclass that these nouns declare."""
    for package in (whimbrel.model, whimbrel.plan, whimbrel.policy):
        for name in (each.name for each in pkgutil.iter_modules(package.__path__)):
            module = importlib.import_module(f"{package.__name__}.{name}")
            for each in vars(module).values():
                if isinstance(each, type) and each.__module__ == module.__name__:
                    yield each


STRUCTS = [each for each in values() if issubclass(each, msgspec.Struct)]


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_a_value_of_a_noun_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize(
    "kind", [kind for kind in STRUCTS if issubclass(kind, Document)], ids=lambda kind: kind.__name__
)
def test_a_document_is_strict_about_its_fields_and_written_without_its_defaults(kind: type[Document]) -> None:
    config = kind.__struct_config__
    assert (config.forbid_unknown_fields, config.omit_defaults) == (True, True)


def test_a_row_of_a_table_is_frozen() -> None:
    rows: list[Any] = [each for each in values() if is_dataclass(each)]
    assert [each.__name__ for each in rows] == ["Without", "ModelFormat"]
    assert [each.__dataclass_params__.frozen for each in rows] == [True, True]
    assert all("__slots__" in vars(each) for each in rows)


def padded(size_bytes: int) -> bytes:
    """A line of so many bytes: JSON takes spaces at its end."""
    return encode(line()).ljust(size_bytes)


def test_a_document_is_read_up_to_its_limit() -> None:
    assert parse(Line, padded(limits.DOCUMENT_BYTES), what="the line") == line()
    said = f"^the line has {limits.DOCUMENT_BYTES + 1} bytes; at most {limits.DOCUMENT_BYTES} are read$"
    with pytest.raises(UntrustedInput, match=said):
        parse(Line, padded(limits.DOCUMENT_BYTES + 1), what="the line")


def test_what_was_found_is_told_of_documents_up_to_a_size() -> None:
    """To tell it the document is read again, and a large one takes memory."""
    wrong = encode(line()).replace(b'"sequence":1', b'"sequence":0')
    assert b"0" in wrong
    for size, found in ((limits.EXPLAINED_BYTES, "0"), (limits.EXPLAINED_BYTES + 1, "not as it should be")):
        with pytest.raises(UntrustedInput, match=f"^it cannot be read: sequence is {found}; expected a number of at"):
            parse(Line, wrong.ljust(size), what="it")


def test_a_value_that_was_decoded_already_is_read_as_strictly() -> None:
    fields = {"format": "whimbrel-line-1", "model": "wake", "sequence": 1}
    assert convert(Line, fields, what="it") == line()
    for wrong, said in (
        ({"sequence": "1"}, "sequence is '1'; expected a whole number"),
        ({"revoke": [1]}, "it has no field 'revoke'; did you mean 'revoked'?"),
    ):
        with pytest.raises(UntrustedInput, match=r"^it cannot be read: ") as refused:
            convert(Line, fields | wrong, what="it")
        assert said in str(refused.value)


def test_equal_values_have_equal_bytes_with_sorted_keys_and_no_spaces() -> None:
    assert encode({"b": 1, "a": {"d": "é", "c": 2}}) == '{"a":{"c":2,"d":"é"},"b":1}'.encode()
    assert encode({254: 1, -3: 2}) == b'{"-3":2,"254":1}'
    assert encode(policy()) == encode(parse(Policy, encode(policy()), what="it"))


def test_the_fields_of_a_value_become_plain_types() -> None:
    fields = plain(line(revoked=(3,)))
    fields["revoked"] = list(fields["revoked"])
    assert fields == {"format": "whimbrel-line-1", "model": "wake", "sequence": 1, "revoked": [3]}


def test_a_digest_is_the_sha_256_in_lower_case() -> None:
    assert digest_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
