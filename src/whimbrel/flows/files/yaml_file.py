"""YAML that a person wrote becomes a value of ours, or a sentence that names the line.

1. A small YAML: mappings, lists and scalars. No anchors, aliases, tags, merge keys or second documents, no key said
   twice; bounded in bytes, nodes and depth. So there are no bombs and no code.
2. A plain word is what it looks like to everybody: `true` and `false` are the only truth values (`no` is a word:
   Norway), numbers are decimal, and dates, `1:30` and `010` stay text. So no value is read as another than was meant.
3. A key without a value is refused: nobody can tell whether it means "none" or was forgotten.
4. Conversion is as strict as for our own documents: an unknown key is refused, with the nearest known one.
5. Where a form was published in camelCase too, its keys are taken in both spellings (`camel_case`).

Called for rollout plans, experiments, settings and model cards. The caller reads the file.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import yaml

from whimbrel import limits
from whimbrel.errors import UntrustedInput, reason_of
from whimbrel.model.document_errors import (
    MISSING,
    STEP,
    UNKNOWN,
    expectation,
    hint,
    known_fields,
    split_path,
    type_below,
    types_of,
)

T = TypeVar("T")

_INT = re.compile(r"^[-+]?(0|[1-9][0-9]{0,17})\Z")
_FLOAT = re.compile(r"^[-+]?((0|[1-9][0-9]{0,30})(\.[0-9]{0,100})?|\.[0-9]{1,100})([eE][-+]?[0-9]{1,3})?\Z")
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def load_yaml(
    text: str, *, what: str, bytes_max: int = limits.PLAN_BYTES
) -> tuple[object, Callable[[str], int | None]]:
    """The value, and a function from a path such as `$.rollout.stages[0].name` to its line, counted from 1.

    A path that is not in the file gives the line of the nearest thing above it. Raises `UntrustedInput`.
    """
    value, root = _read(text, what=what, bytes_max=bytes_max)
    return value, lambda path: root.at(path).line


def parse_yaml(
    kind: type[T],
    text: str,
    *,
    what: str,
    bytes_max: int = limits.PLAN_BYTES,
    camel_case: bool = False,
    complete: Callable[[object], None] | None = None,
) -> T:
    """Read `text` as a `kind`. Raises `UntrustedInput`: `plan.yaml:7: rollout.stages[0]: ...`.

    `camel_case`: a key such as `durationDays` is taken for the field `duration_days`. `complete` fills in, before the
    conversion, what the file leaves open; it raises `ValueError` with a path: `rollout.stages[0]: ...`.
    """
    value, root = _read(text, what=what, bytes_max=bytes_max)
    if camel_case:
        _rename_keys(msgspec.inspect.type_info(kind), value, root, what=what)
    try:
        if complete is not None:
            complete(value)
        return msgspec.convert(value, type=kind, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        message, path = split_path(str(error))
        raise UntrustedInput(_explain(kind, message, path, root, what=what)) from error


# --- from text to a value, with the place of everything in it ---


class _Place:
    """Where a value stands. Places make a tree like the values': a path would cost its length for each value."""

    __slots__ = ("below", "line", "written")

    def __init__(self, line: int) -> None:
        self.line = line
        self.written: str | None = None  # a plain scalar, as it was written
        self.below: dict[str, _Place] = {}  # by key, or by "[0]"

    def at(self, path: str) -> "_Place":
        """The place at `path` ($.stages[0].name), or the nearest above it."""
        place = self
        for step in STEP.finditer(path):
            below = place.below.get(step[1] or step[2])
            if below is None:
                return place
            place = below
        return place


def _read(text: str, *, what: str, bytes_max: int) -> tuple[object, _Place]:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > bytes_max:
        raise UntrustedInput(f"{what} has {size} bytes; at most {bytes_max} are read")
    reader = _Reader(what)
    try:
        return reader.document(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))), reader.root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UntrustedInput(f"{what}:{line}: this is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise UntrustedInput(f"{what} is not YAML text: {reason_of(error)[:200]}") from error


class _Reader:
    """Builds values from the parser's events: nothing is built that was not counted first."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.root = _Place(1)
        self.nodes = 0

    def document(self, events: Iterator[Any]) -> object:
        value: object = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refused(event, "a second document starts here; one file holds one")
                first = next(events)
                self.root.line = _line(first)
                value = self._value(first, events, self.root, depth=0)
        if not documents:
            raise UntrustedInput(f"{self.what} is empty")
        return value

    def _value(self, event: Any, events: Iterator[Any], place: _Place, *, depth: int) -> object:
        self.nodes += 1
        if self.nodes > limits.YAML_NODES:
            raise self._refused(event, f"more than {limits.YAML_NODES} values")
        if depth > limits.DOCUMENT_DEPTH:
            raise self._refused(event, f"nested more than {limits.DOCUMENT_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._refused(event, "anchors and aliases (& and *) are not taken; write the value out")
        if event.tag is not None:
            raise self._refused(event, f"the tag {event.tag[:64]!r} is not taken; write a plain value")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, place, depth=depth + 1)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, place, depth=depth + 1)
        if not event.implicit[0]:  # quoted, or a block of text
            return event.value
        place.written = event.value
        return self._plain(event)

    def _sequence(self, events: Iterator[Any], place: _Place, *, depth: int) -> list[object]:
        items: list[object] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            below = place.below[f"[{len(items)}]"] = _Place(_line(event))
            items.append(self._value(event, events, below, depth=depth))
        return items

    def _mapping(self, events: Iterator[Any], place: _Place, *, depth: int) -> dict[str, object]:
        entries: dict[str, object] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
                raise self._refused(event, "a key is a plain word")
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise self._refused(event, "merge keys (<<) are not taken; write the values out")
            if key in entries:
                before = place.below[key].line
                raise self._refused(event, f"the key {key[:64]!r} is said twice, first on line {before}")
            below = place.below[key] = _Place(_line(event))
            entries[key] = self._value(next(events), events, below, depth=depth)
        return entries

    def _plain(self, event: Any) -> object:
        text = event.value
        if text in _NOTHING:
            raise self._refused(event, "there is no value here; write one, or leave the key out")
        if text in _TRUTH:
            return _TRUTH[text]
        if _INT.match(text):
            return int(text)
        return float(text) if _FLOAT.match(text) and abs(float(text)) <= 1e300 else text

    def _refused(self, event: Any, because: str) -> UntrustedInput:
        return UntrustedInput(f"{self.what}:{_line(event)}: {because}")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


# --- keys in camelCase ---

_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def _rename_keys(kind: Any, value: object, place: _Place, *, what: str) -> None:
    """Give keys in camelCase the names of the fields that they mean, here and below. Other keys stay as they are."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            _rename_keys(type_below(kind, None), each, place.below[f"[{index}]"], what=what)
    if not isinstance(value, dict):
        return
    fields = {field.encode_name for each in types_of(kind) for field in getattr(each, "fields", ())}
    for key in list(value):
        field = _CAPITAL.sub(r"_\1", key).lower()
        if key in fields or field not in fields:
            field = key
        elif field in value:
            lines = f"on lines {place.below[field].line} and {place.below[key].line}"
            raise UntrustedInput(f"{what}:{place.below[key].line}: the key {field!r} is said twice, {lines}")
        else:
            value[field] = value.pop(key)
            place.below[field] = place.below.pop(key)
        _rename_keys(type_below(kind, field), value[field], place.below[field], what=what)


# --- from msgspec's error to a sentence ---

_NAMED = re.compile(r"^(?P<below>[a-z_]+(?:\.[^\s:`]+)*): (?P<rest>.*)$", re.DOTALL)
_NOT_TEXT = re.compile(r"^Expected `[^`]*\bstr\b[^`]*`, got `(float|int|bool)`$")


def _explain(kind: Any, message: str, path: str, root: _Place, *, what: str) -> str:
    message = message.replace(" | null`", "`")  # a null is refused before it gets here
    if match := _NAMED.match(message):  # one of our own checks, about a value below
        path, message = f"{path}.{match['below']}", match["rest"]
    place = root.at(path)
    where = path.removeprefix("$").removeprefix(".")
    lead = f"{where}: " if where else ""
    if match := UNKNOWN.match(message):
        field = match["field"]
        line = place.below.get(field, place).line
        return f"{what}:{line}: {lead}unknown key {field[:64]!r}{hint(field, kind, path)}"
    if match := MISSING.match(message):
        return f"{what}:{place.line}: {lead}the key {match['field']!r} is missing"
    if not where and message.startswith("Expected `object`"):
        return f"{what}:{place.line}: it has no keys at its top; expected: {', '.join(known_fields(kind, path)[:4])}"
    plain = place.written[:64] if place.written else ""
    if _NOT_TEXT.match(message) and plain:
        return f'{what}:{place.line}: {lead}{plain} is read as a number or truth value; quote it: "{plain}"'
    wanted = expectation(message, kind=kind, path=path)
    words = f"expected {wanted}" if wanted else f"{message[:1].lower()}{message[1:]}"
    written = f" (found {plain!r})" if plain and plain not in message else ""
    return f"{what}:{place.line}: {lead}{words}{written}"
