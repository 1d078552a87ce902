"""Every JSON document and message becomes a value here, and a value becomes bytes. There is no other way in.

1. Reading is strict: an unknown field, a wrong type or a value out of its bounds refuses the whole document. A device
   that gets a policy which it does not understand keeps what it has; it never guesses.
2. Encoding is deterministic (sorted keys, UTF-8, no spaces), so equal values have equal bytes and one digest.
"""

import hashlib
from typing import Any, TypeVar

import msgspec

from whimbrel import limits
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.model.document_errors import NOT_GIVEN, no_json, sentence

T = TypeVar("T")

_encoder = msgspec.json.Encoder(order="sorted")


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A value that travels. It is frozen and strict about fields, and is written without its defaults."""


def parse(kind: type[T], content: bytes, *, what: str) -> T:
    """Read `content` (JSON) as a `kind`. `what` names the document in the error.

    Raises `UntrustedInput` with the path of the first wrong field.
    """
    if len(content) > limits.DOCUMENT_BYTES:
        raise UntrustedInput(f"{what} has {len(content)} bytes; at most {limits.DOCUMENT_BYTES} are read")
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise UntrustedInput(f"{what} cannot be read: {sentence(str(error), _value(content), kind=kind)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UntrustedInput(f"{what} cannot be read: {_no_document(error)}") from error


def convert(kind: type[T], value: object, *, what: str) -> T:
    """Read a value that was decoded already (YAML, a database column) as a `kind`. Raises `UntrustedInput`."""
    try:
        return msgspec.convert(value, type=kind, strict=True)
    except msgspec.ValidationError as error:
        raise UntrustedInput(f"{what} cannot be read: {sentence(str(error), value, kind=kind)}") from error
    except RecursionError as error:
        raise UntrustedInput(f"{what} cannot be read: {_no_document(error)}") from error


def _value(content: bytes) -> object:
    """The value that was refused, to show what was found; none of a large document, whose values would take memory."""
    try:
        return msgspec.json.decode(content) if len(content) <= limits.EXPLAINED_BYTES else NOT_GIVEN
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it is also broken further on
        return NOT_GIVEN


def _no_document(error: Exception) -> str:
    return no_json(str(error)) or reason_of(error)


def encode(value: object) -> bytes:
    """The one JSON form of `value`, as bytes."""
    return _encoder.encode(msgspec.to_builtins(value, str_keys=True))  # a latency sketch has numbers for keys


def plain(value: msgspec.Struct) -> dict[str, Any]:
    """The fields of `value` as plain JSON types, for an answer that gets further fields."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return fields


def digest_of(content: bytes) -> str:
    """SHA-256 of `content`, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
