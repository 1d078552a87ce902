"""What is wrong with a setting, in a sentence for a person: its name, what was written, and what is expected.

The types of the settings hold the rules; their messages are for programs (`Expected `int` >= 1 - at
`$.objectives[0].least``). Used by `whimbrel model add` and `model set`, before anything is sent.
"""

import re
from typing import Any, TypeVar

import msgspec

from whimbrel.errors import UntrustedInput

T = TypeVar("T")

_AT = re.compile(r"^(?P<message>.*?)(?: - at `(?:key in `)?\$(?P<path>[^`]*)`+)?\Z", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")
_LABEL = "letters, digits, and _ . / - between them, at most 64 characters"
_RULES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Expected `(?:int|float)` >= (\S+)\Z", "a number of at least {}"),
        (r"^Expected `(?:int|float)` <= (\S+)\Z", "a number of at most {}"),
        (r"^Expected `(?:int|float)` > (\S+)\Z", "a number above {}"),
        (r"^Expected `(?:int|float)` < (\S+)\Z", "a number below {}"),
        (r"^Expected `array` of length <= (\d+)\Z", "at most {} of them"),
        (r"^Expected `object` of length <= (\d+)\Z", "at most {} of them"),
        (r"^Expected `str` of length <= (\d+)\Z", "at most {} characters"),
        (r"^Expected `str` matching regex '\^\[A-Za-z0-9\]\(\[A-Za-z0-9_", _LABEL),
        (
            r"^Expected `str` matching regex '\^\[A-Za-z0-9_\+-\]",
            "UTC, local, or a zone such as Europe/Oslo",
        ),
        (r"^Expected `int(?: \| null)?`, got `\w+`\Z", "a whole number"),
        (r"^Expected `float(?: \| null)?`, got `\w+`\Z", "a number"),
        (r"^Expected `bool(?: \| null)?`, got `\w+`\Z", "true or false"),
        (r"^Expected `str(?: \| null)?`, got `\w+`\Z", "text"),
        (r"^Invalid enum value ", "one of the words in: whimbrel model set --help"),
    )
)


def checked(kind: type[T], settings: dict[str, Any]) -> T:
    """The settings as a `kind`. Raises `UntrustedInput` with a sentence for people."""
    try:
        return msgspec.convert(settings, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UntrustedInput(sentence(str(error), settings)) from error


def sentence(error: str, settings: object) -> str:
    """A message of msgspec's about `settings`, as people say it. What has no rule here stays as it is."""
    match = _AT.match(error)
    message, path = (match["message"], match["path"] or "") if match else (error, "")
    expected = next(
        (words.format(*rule.groups()) for pattern, words in _RULES if (rule := pattern.match(message))), None
    )
    name = _name_of(path)
    if expected is None:
        return f"{name}: {message}" if name else message
    return f"{name or 'the value'} is {_value_at(settings, path)}; expected {expected}"


def _name_of(path: str) -> str:
    """`.objectives[0].least` as "least of objective 1"."""
    names: list[str] = []
    for step in _STEP.finditer(path):
        if step[1]:
            names.append(step[1])
        elif names and step[2].isdigit():
            names[-1] = f"{names[-1].removesuffix('s')} {int(step[2]) + 1}"
    return " of ".join(reversed(names))


def _value_at(value: Any, path: str) -> str:
    for step in _STEP.finditer(path):
        try:
            value = value[step[1]] if step[1] else value[int(step[2])]
        except (LookupError, TypeError, ValueError):
            return "not as it should be"
    return f"{len(value)} long" if isinstance(value, list | tuple | dict) else repr(value)
