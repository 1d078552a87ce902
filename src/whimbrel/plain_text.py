"""Text from elsewhere, made safe to show: tickets, reasons, labels, names, the words of devices and servers.

Such text may hold characters that nobody sees and that change what is seen: escape sequences of terminals, line breaks
that begin a line of their own, marks that turn the direction of writing, joints without a width. It may also hold the
markup of the place where it is shown. It is kept as it came, and made plain where it leaves: by the one function below
that belongs to the kind of output.

    output                                     function
    terminals, text logs, subjects of e-mails  one_line
    a whole document or view, before any form  plain_texts
    JSON, already encoded                      in_json
    HTML                                       in_html
    Markdown                                   in_markdown
    Slack                                      in_slack, in blocks of the type plain_text

What is hidden is not dropped, but written as an escape (`\\u202e`), so that people see that somebody tried.
"""

import html
import re
from collections.abc import Mapping
from typing import Any

# Unicode's categories Cc, Cf, Cs, Zl and Zp (version 14, as in Python 3.11), noncharacters, and fillers of no width.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufdd0-\ufdef\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def one_line(text: str) -> str:
    """The text in one line of visible characters."""
    return _HIDDEN.sub(_escape, text)


def plain_texts(value: Any) -> Any:
    """The same of every text in a value of plain JSON types, the keys of its objects included."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {plain_texts(key): plain_texts(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_texts(each) for each in value]
    return value


def in_json(encoded: str) -> str:
    """Encoded JSON whose hidden characters are JSON's own escapes: whoever decodes it gets what came."""
    return _HIDDEN.sub(_json_escape, encoded)


def in_html(text: str) -> str:
    """The text between tags, or in an attribute within quotes."""
    return html.escape(one_line(text))


def in_markdown(text: str) -> str:
    """The text in a sentence or a cell of Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text).replace("&", "&amp;"))


def in_slack(text: str) -> str:
    """The text in a message of Slack that is said to hold no markup: `<!channel>` would still call everybody."""
    return one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}")


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
