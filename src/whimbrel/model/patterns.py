"""Which words say what a text must look like? A pattern of a field stands here together with them.

A regular expression is for programs. Where a text does not fit, people read the words (model/document_errors.py).
"""

from msgspec import Meta

from whimbrel.errors import InvariantBroken

_WORDS: dict[str, str] = {}  # by the pattern as an error of msgspec quotes it; filled where fields are declared


def matching(pattern: str, words: str, *, max_length: int | None = None, description: str | None = None) -> Meta:
    """The bounds of a text field that matches `pattern`; `words` say it: "12 lower-case hexadecimal digits".

    Raises `InvariantBroken` where the pattern has other words elsewhere: an error names the pattern alone.
    """
    if _WORDS.setdefault(repr(pattern), words) != words:
        raise InvariantBroken(f"the pattern {pattern!r} has two descriptions: {_WORDS[repr(pattern)]!r} and {words!r}")
    return Meta(pattern=pattern, max_length=max_length, description=description)


def words_of(quoted: str) -> str:
    """The words of a pattern, which msgspec's error quotes as Python does."""
    return _WORDS.get(quoted, "text of another form")
