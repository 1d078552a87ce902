"""The style sheet, the script and the mark of the console: read once, and named by what is in them.

A name holds the first digits of the SHA-256 of its file, so browsers may keep it for a year, and a new version of the
server has new names.
"""

from importlib import resources

import msgspec

from whimbrel.model.documents import digest_of

PREFIX = "/-/parts/"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class StaticPart(msgspec.Struct, frozen=True):
    """A file that pages name. `url`: its path on the server."""

    url: str
    content: bytes
    media_type: str


def _read() -> dict[str, StaticPart]:
    parts = {}
    for file in resources.files("whimbrel.console").joinpath("assets").iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if dot + ending in _MEDIA_TYPES:
            content = file.read_bytes()
            url = f"{PREFIX}{stem}.{digest_of(content)[:16]}.{ending}"
            parts[file.name] = StaticPart(url, content, _MEDIA_TYPES[dot + ending])
    return parts


PARTS = _read()
BY_URL = {part.url: part for part in PARTS.values()}
