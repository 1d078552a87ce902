"""Which words say what a text must look like? A pattern of a field stands here together with them.

A regular expression is for programs. Where a text does not fit, people read the words (model/document_errors.py).
"""

from msgspec import Meta

_WORDS: dict[str, str] = {}  # by the pattern as an error of msgspec quotes it; filled where fields are declared


def matching(pattern: str, words: str, *, max_length: int | None = None, description: str | None = None) -> Meta:
    """The bounds of a text field that matches `pattern`; `words` say it: "12 lower-case hexadecimal digits"."""
    _WORDS[repr(pattern)] = words
    return Meta(pattern=pattern, max_length=max_length, description=description)


def words_of(quoted: str) -> str:
    """The words of a pattern, which msgspec's error quotes as Python does."""
    return _WORDS.get(quoted, "text of another form")
