"""What is wrong with a document, in a sentence for a person: the field, what was found, and what is expected.

The types hold the rules, and msgspec checks them. Its messages are for programs (`Expected `int` >= 1 - at
`$.objectives[0].least``). Here, and nowhere else, they become sentences: "least of objective 1 is 0; expected a number
of at least 1". Whoever reads a document calls this: model/documents.py for JSON, flows/files/yaml_file.py for YAML
(which adds the line), server/admin/app.py for bodies and queries of the admin API, cli/connect.py for answers.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from whimbrel.model.patterns import words_of

NOT_GIVEN = object()  # a value that is not there to be shown
STEP = re.compile(r"\.([^.\[]+)|(\[[^\]]*\])")  # of a path such as $.rollout.stages[0].name
UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*)`\Z", re.DOTALL)
MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`\Z")

_AT = re.compile(r"^(?P<message>.*?)(?: - at (?P<key>`key` in )?`(?P<path>\$[^`]*)`)?\Z", re.DOTALL)
_CHOICE = re.compile(r"^Invalid (?:enum )?value (?P<found>.*)\Z", re.DOTALL)
_KIND = re.compile(r"^Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`\Z")
_PATTERN = re.compile(r"^Expected `str(?: \| null)?` matching regex (?P<quoted>.*)\Z", re.DOTALL)
_NO_JSON = re.compile(r"^(?:JSON|MessagePack data) is malformed: .*?(?: \(byte (?P<byte>\d+)\))?\Z")
_LENGTH = re.compile(r"length (?:<=|>=|\d)")
_BOUNDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Expected `(?:int|float)(?: \| null)?` >= (\S+)\Z", "a number of at least {}"),
        (r"^Expected `(?:int|float)(?: \| null)?` <= (\S+)\Z", "a number of at most {}"),
        (r"^Expected `(?:int|float)(?: \| null)?` > (\S+)\Z", "a number above {}"),
        (r"^Expected `(?:int|float)(?: \| null)?` < (\S+)\Z", "a number below {}"),
        (r"^Expected `str(?: \| null)?` of length <= (\d+)\Z", "at most {} characters"),
        (r"^Expected `str(?: \| null)?` of length >= 1\Z", "a text that is not empty"),
        (r"^Expected `str(?: \| null)?` of length >= (\d+)\Z", "at least {} characters"),
        (r"^Expected `(?:array|object|bytes)(?: \| null)?` of length <= (\d+)\Z", "at most {} of them"),
        (r"^Expected `(?:array|object|bytes)(?: \| null)?` of length >= (\d+)\Z", "at least {} of them"),
        (r"^Expected `array` of length (\d+)(?:, got \d+)?\Z", "a list of {}"),
        (r"^Expected `array` of at least length (\d+), got \d+\Z", "a list of at least {}"),
        (r"^Expected `array` of length (\d+) to (\d+), got \d+\Z", "a list of {} to {}"),
        (r"^(?:Integer value|Number) out of range\Z", "a number that fits into 64 bits"),
        (r"^Invalid base64 encoded string\Z", "base64 text"),
        (r"^Invalid RFC3339 encoded \w+\Z", "a time such as 2026-03-04T23:00:00Z"),
    )
)
_SECRET = re.compile("secret|passw|passphrase|token|credential", re.IGNORECASE)  # fields whose values nobody is shown
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "fields with values",
    "bytes": "base64 text",
    "null": "nothing",
}


def sentence(error: str, value: object = NOT_GIVEN, *, kind: Any = None, whole: str = "it") -> str:
    """A message of msgspec's as people say it. What is no message of msgspec's (a check of our own) stays as it is.

    `value`: the document, decoded, to show what was found. `kind`: its type, to name the fields that it knows.
    `whole`: what the document is called.
    """
    message, path = split_path(error)
    name = name_of(path)
    if match := UNKNOWN.match(message):
        return f"{name or whole} has no field {match['field'][:64]!r}{hint(match['field'], kind, path)}"
    if match := MISSING.match(message):
        return f"the field {match['field']!r}{f' of {name}' if name else ''} is missing"
    if (ill := no_json(message)) is not None:
        return ill
    wanted = expectation(message, kind=kind, path=path)
    if wanted is None:
        return f"{name}: {message}" if name else message
    if " - at `key` in `$" in error:
        return f"a name in {name or whole} is not as it should be; expected {wanted}"
    return f"{name or whole} is {_found(message, value, path)}; expected {wanted}"


def split_path(error: str) -> tuple[str, str]:
    """The message, and the path of the value that it is about: "$" for the whole document."""
    match = _AT.match(error)
    return (match["message"], match["path"] or "$") if match else (error, "$")


def expectation(message: str, *, kind: Any = None, path: str = "$") -> str | None:
    """What a message of msgspec's says that it expected, in words; None where the message is none of msgspec's."""
    for pattern, words in _BOUNDS:
        if rule := pattern.match(message):
            return words.format(*(bound.removesuffix(".0") for bound in rule.groups()))
    if match := _PATTERN.match(message):
        return words_of(match["quoted"])
    if match := _KIND.match(message):
        known = known_fields(kind, path) if match["expected"] == "object" else []
        return _kinds(match["expected"]) + (f": {_listed(known)}" if known else "")
    if _CHOICE.match(message):
        choices = [repr(each) for each in _choices_at(kind, path)]
        return f"one of {', '.join(choices)}" if choices else "another word"
    return None


def no_json(message: str) -> str | None:
    """That a text is no JSON, in words; None for another message of msgspec's."""
    if message == "Input data was truncated":
        return "it is no JSON: it ends too early, or is empty"
    if match := _NO_JSON.match(message):
        where = f": see its byte {int(match['byte']) + 1}" if match["byte"] else ""
        return f"it is no JSON{where}"
    return None


def hint(field: str, kind: Any, path: str) -> str:
    """The known field that a wrong one is nearest to, or all of them; "" where the type is not known."""
    known = known_fields(kind, path)
    close = difflib.get_close_matches(field[:64], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {_listed(known)}" if known else ""


def name_of(path: str) -> str:
    """The path `$.objectives[0].least` in words: "least of objective 1"; "" for the whole document."""
    names: list[str] = []
    for step in STEP.finditer(path):
        if step[1]:
            names.append(step[1])
        elif step[2] == "[...]":  # of some key, which msgspec does not tell
            names.append("a value")
        elif step[2][1:-1].isdigit():
            number = int(step[2][1:-1]) + 1
            names[-1:] = [f"{names[-1].removesuffix('s')} {number}" if names else f"entry {number}"]
    return " of ".join(reversed(names))


def known_fields(kind: Any, path: str) -> list[str]:
    """The fields that a type knows at `path`; nothing where it takes any, or is not given."""
    return [field.encode_name for each in _at(kind, path) for field in getattr(each, "fields", ())]


def type_below(kind: Any, field: str | None) -> Any:
    """The type (`msgspec.inspect`) of a field, or with None of the items, of another; None where there is none."""
    for each in types_of(kind):
        if field is not None:
            for candidate in getattr(each, "fields", ()):
                if candidate.encode_name == field:
                    return candidate.type
        if hasattr(each, "value_type"):
            return each.value_type
        if field is None and hasattr(each, "item_type"):
            return each.item_type
    return None


def types_of(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of another type itself alone."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return types_of(kind.type)
    return tuple(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _at(kind: Any, path: str) -> tuple[Any, ...]:
    if kind is None:
        return ()
    try:
        place: Any = msgspec.inspect.type_info(kind)
    except (TypeError, NameError):  # a type that msgspec does not describe
        return ()
    for step in STEP.finditer(path):
        place = type_below(place, step[1])
    return types_of(place)


def _choices_at(kind: Any, path: str) -> Iterator[object]:
    for each in _at(kind, path):
        if isinstance(each, msgspec.inspect.LiteralType):
            yield from each.values
        elif isinstance(each, msgspec.inspect.EnumType):
            yield from (member.value for member in each.cls)
        elif (tag := getattr(each, "tag", None)) is not None:
            yield tag


def _kinds(quoted: str) -> str:
    names = [name for name in quoted.split(" | ") if name != "null"] or ["null"]
    if "float" in names and "int" in names:
        names.remove("int")
    return " or ".join(_WORDS.get(name, name) for name in names)


def _found(message: str, value: object, path: str) -> str:
    """What stands at `path`, short; its kind where it cannot be shown, or may be a secret."""
    if value is not NOT_GIVEN:
        for step in STEP.finditer(path):
            try:
                value = value[step[1]] if step[1] else value[int(step[2][1:-1])]  # type: ignore[index]
            except (LookupError, TypeError, ValueError):
                value = NOT_GIVEN
                break
    if value is NOT_GIVEN or _SECRET.search(path):
        match = _KIND.match(message)
        return _kinds(match["got"]) if match else "not as it should be"
    if isinstance(value, str) and _LENGTH.search(message):
        return f"{len(value)} characters long"
    if isinstance(value, list | tuple | dict):
        kind = "object" if isinstance(value, dict) else "array"
        return f"{len(value)} long" if _LENGTH.search(message) else _WORDS[kind]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:12])
    return shown if len(names) <= 12 else f"{shown}, and {len(names) - 12} more"
