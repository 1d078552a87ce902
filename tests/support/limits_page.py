"""docs/reference/security-limits.md, from limits.py and the routes of the admin API.

Make it anew: PYTHONPATH=tests python -m support.limits_page > docs/reference/security-limits.md
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import msgspec

from whimbrel import limits

SOURCE = Path(limits.__file__)
UNITS = {
    "BYTES_S": "bytes a second",
    "BYTES": "bytes",
    "CHARS": "characters",
    "HOURS": "hours",
    "WEEKS": "weeks",
    "DAYS": "days",
    "S": "seconds",
}
BINARY = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))
HEAD = """\
# Limits

Every bound of the program with its reason, from `src/whimbrel/limits.py`; a test keeps this page equal to the code.
What passes a limit is refused with one sentence that names the number. Limits are constants of the program. Where a
reason says so, a model's settings or a signed document may ask for another value.
"""


class Limit(msgspec.Struct, frozen=True):
    """One row."""

    section: str
    name: str
    reason: str


def limits_of(source: str) -> Iterator[Limit]:
    """The constants of a module in order, each with the comment on its lines, below the section that it stands in."""
    section, name, comments = "", "", []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if heading := re.fullmatch(r"# --- (.+) ---", token.string):
                section = heading[1]
            else:
                comments.append(token.string.removeprefix("#").strip())
        elif token.type == tokenize.NAME and not name and re.fullmatch("[A-Z][A-Z0-9_]+", token.string):
            name, comments = token.string, []
        elif token.type == tokenize.NEWLINE:
            if name and section:
                yield Limit(section, name, " ".join(comments))
            name = ""


def amount(name: str) -> str:
    """The value with its unit, as a person reads it."""
    value = getattr(limits, name)
    unit = next((unit for suffix, unit in UNITS.items() if name.endswith(f"_{suffix}")), "")
    if unit.startswith("bytes"):
        size, word = next(((size, word) for size, word in BINARY if value >= size and value % size == 0), (1, "bytes"))
        return f"{value // size:,} {word}{unit.removeprefix('bytes')}"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.15g}"
    return f"{text} {unit.removesuffix('s') if value == 1 else unit}".strip()


def page() -> str:
    """The page's text."""
    lines, section = [HEAD], ""
    for limit in limits_of(SOURCE.read_text()):
        if limit.section != section:
            section = limit.section
            lines += [f"## {section[0].upper()}{section[1:]}", "| limit | value | reason |", "|---|---|---|"]
            lines[-3] = ("\n" if len(lines) > 4 else "") + lines[-3]
        lines.append(f"| `{limit.name}` | {amount(limit.name)} | {limit.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
