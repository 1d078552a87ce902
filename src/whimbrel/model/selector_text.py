"""A selector as one line of text, as people type it: `region=NZ,os in (linux,android),ram_mb>512,!beta`.

The terms, all of which must hold:

    key=value   key==value      match_labels          key              Exists
    key!=value                  NotIn                 !key             DoesNotExist
    key in (a,b)                In                    key>5   key<5    Gt, Lt
    key notin (a,b)             NotIn                 key version (>=1.8,<3)      Version
                                                      key notversion (<2)         NotVersion

The first six are kubectl's. What begins with `{` is read as the JSON of a selector, as in plans. Used by people's
filters; documents hold selectors as JSON.
"""

import re

from whimbrel.errors import UntrustedInput
from whimbrel.model.documents import convert, parse
from whimbrel.model.selector import EVERYONE, Selector

_KEY = r"(?P<key>[A-Za-z0-9](?:[A-Za-z0-9_./-]*[A-Za-z0-9])?)"
_LISTED = re.compile(rf"^{_KEY}\s+(?P<word>in|notin|version|notversion)\s*\((?P<values>[^()]*)\)\Z")
_COMPARED = re.compile(rf"^{_KEY}\s*(?P<sign>==|!=|=|>|<)\s*(?P<value>.*)\Z")
_NAMED = re.compile(rf"^(?P<no>!?)\s*{_KEY}\Z")
_OPERATORS = {"in": "In", "notin": "NotIn", "version": "Version", "notversion": "NotVersion", ">": "Gt", "<": "Lt"}


def read_selector(text: str) -> Selector:
    """The selector that `text` writes; "" is everyone. Raises `UntrustedInput` with the term that is not understood."""
    text = text.strip()
    if not text:
        return EVERYONE
    if text.startswith("{"):
        return parse(Selector, text.encode(errors="surrogateescape"), what="the selector")
    labels: dict[str, str] = {}
    terms: list[dict[str, object]] = []
    for term in _terms(text):
        if match := _LISTED.match(term):
            values = [each.strip() for each in match["values"].split(",") if each.strip()]
            terms.append({"key": match["key"], "operator": _OPERATORS[match["word"]], "values": values})
        elif match := _NAMED.match(term):
            terms.append({"key": match["key"], "operator": "DoesNotExist" if match["no"] else "Exists"})
        elif match := _COMPARED.match(term):
            key, sign, value = match["key"], match["sign"], match["value"].strip()
            if sign in {">", "<"}:
                terms.append({"key": key, "operator": _OPERATORS[sign], "values": [value]})
            elif sign == "!=":
                terms.append({"key": key, "operator": "NotIn", "values": [value]})
            elif labels.setdefault(key, value) != value:
                raise UntrustedInput(f"the selector asks for {key}={labels[key]} and {key}={value}: no device is both")
        else:
            raise UntrustedInput(
                f"{term!r} is no term of a selector; expected one like region=NZ, os in (linux,android), ram_mb>512, "
                "os_version version (>=15) or !beta"
            )
    return convert(Selector, {"match_labels": labels, "match_expressions": terms}, what="the selector")


def _terms(text: str) -> list[str]:
    """The text between commas that stand in no parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
