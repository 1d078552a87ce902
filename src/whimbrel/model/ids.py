"""Names and their order: names, digests, calendar versions, semantic versions.

Version strings are never compared as text: 2.10.0 comes after 2.9.0. The serial orders the versions of one model.
"""

import re
from datetime import UTC, date, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from whimbrel import limits
from whimbrel.model.patterns import matching

END = r"$(?!\n)"  # Python's `$` also matches before a last newline; JSON Schema reads this form alike
NAME_WORDS = "lower-case letters, digits, - and _; 1 to 64"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?" + END
Name = Annotated[str, matching(NAME_PATTERN, NAME_WORDS, description=NAME_WORDS)]
Digest = Annotated[
    str,
    matching(
        "^[0-9a-f]{64}" + END,
        "a SHA-256 of 64 lower-case hexadecimal digits",
        description="SHA-256, lower-case hexadecimal",
    ),
]
ONE_LINE_PATTERN, ONE_LINE_WORDS = r"^[^\x00-\x1f\x7f]*" + END, "a line of text without control characters"
Serial = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Label = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9]([A-Za-z0-9_./-]{0,62}[A-Za-z0-9])?" + END,
        "letters, digits, and _ . / - between them, at most 64 characters",
    ),
]
LabelValue = Annotated[
    str, matching(ONE_LINE_PATTERN, ONE_LINE_WORDS, max_length=limits.LABEL_VALUE_CHARS)
]  # no control characters: the value goes into a column, and PostgreSQL takes no NUL in text
Text = Annotated[str, Meta(max_length=limits.TEXT_CHARS)]
DeviceId = Annotated[
    str,
    matching(
        r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}" + END,
        "letters, digits and _ . : @ -, at most 128, a letter or digit first",
        max_length=limits.DEVICE_ID_BYTES,
    ),
]  # fits a URL, a file name on every system and a log line

_NAME = re.compile(NAME_PATTERN)
_CALENDAR = re.compile(r"^(\d{4})\.(\d{2})\.(\d{2})\.([1-9]\d{0,5})\Z", re.ASCII)
# https://semver.org, section "Is there a suggested regular expression"; at most 9 digits a part.
_SEMANTIC = re.compile(
    r"^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})"
    r"(?:-((?:0|[1-9]\d{0,8}|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d{0,8}|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?\Z",
    re.ASCII,
)
_DOTTED = re.compile(r"^v?\d{1,9}(\.\d{1,9}){0,7}\Z", re.ASCII)


def check_name(text: str, *, kind: str) -> str:
    """Return `text` if it is a name. Raises `ValueError`."""
    if not _NAME.match(text):
        raise ValueError(f"{text!r} is not a {kind} name: lower-case letters, digits, '-' and '_', at most 64")
    return text


class CalendarVersion(msgspec.Struct, frozen=True, order=True):
    """`2026.03.05.1`: a day in UTC, and the number of the publication on that day, from 1."""

    year: int
    month: int
    day: int
    iteration: int

    @classmethod
    def parse(cls, text: str) -> "CalendarVersion":
        """Read YYYY.MM.DD.N. Raises `ValueError` for anything else, and for a day that does not exist."""
        match = _CALENDAR.match(text)
        if not match:
            raise ValueError(f"{text!r} is not a calendar version; expected the form 2026.03.05.1")
        year, month, day, iteration = (int(part) for part in match.groups())
        try:
            date(year, month, day)
        except ValueError as error:
            raise ValueError(f"{text!r} is not a calendar version: {error}") from None
        return cls(year, month, day, iteration)

    @classmethod
    def of(cls, published: datetime, *, iteration: int) -> "CalendarVersion":
        """The version of a publication at this time (in any zone; the day is that in UTC)."""
        day = published.astimezone(UTC)
        return cls(day.year, day.month, day.day, iteration)

    def __str__(self) -> str:
        return f"{self.year:04d}.{self.month:02d}.{self.day:02d}.{self.iteration}"


def semantic_key(text: str) -> tuple[int, int, int, tuple[tuple[int, int, str], ...]]:
    """A key that sorts semantic versions by precedence (semver 2.0.0, section 11). Raises `ValueError`."""
    match = _SEMANTIC.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a semantic version; expected the form 2.4.1 or 2.4.1-rc.1")
    major, minor, patch, pre = match.groups()
    if pre is None:
        order: tuple[tuple[int, int, str], ...] = ((2, 0, ""),)  # a release comes after its pre-releases
    else:
        order = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split("."))
    return int(major), int(minor), int(patch), order


def dotted_key(text: str) -> tuple[int, ...]:
    """A key that sorts dotted numbers ("15.0", "26", "1.8.0"); trailing zeros do not count. Raises `ValueError`."""
    if not _DOTTED.match(text):
        raise ValueError(f"{text!r} is not a dotted version number such as 15.0 or 1.8.2")
    parts = [int(part) for part in text.removeprefix("v").split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
