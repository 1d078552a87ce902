"""The server's log: every record is one line on standard error, with its time in UTC, for people or for machines.

1. `text`: time, level, logger, sentence, and the record's fields as key=value. `json`: the same as one object.
2. A line break or another hidden character in what is logged is written as an escape (`plain_text`), so that nothing
   that a device or a person sends can begin a line of its own. A traceback is part of its record's line.
3. Loggers of libraries (uvicorn, alembic, asyncio) come in the same form.
4. Secrets stay out: passwords in URLs and bearer tokens are replaced, and libraries that log whole addresses or headers
   are heard from warnings on, also with --verbose.

Called by `whimbrel serve`.
"""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from whimbrel.plain_text import in_json, one_line

LogFormat = Literal["text", "json"]

_FIELDS = "fields"
_TALKATIVE = ("uvicorn", "alembic", "asyncio")  # heard below warnings only with --verbose
_INDISCREET = ("httpx", "httpcore", "nats", "urllib3", "sqlalchemy")  # addresses, headers and values are secrets
_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]{0,30}://[^/\s:@]{0,256}:)[^/\s@]{1,256}@", re.IGNORECASE)
_BEARER = re.compile(r"(?P<before>\bBearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)


def start_logging(form: LogFormat, *, verbose: bool = False) -> None:
    """Send all loggers of this process to standard error in one form. `verbose`: with what is only for debugging."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET if verbose else logging.WARNING)
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(logging.WARNING)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Fields of a record: `log.info("...", extra=fields(database="SQLite"))`."""
    return {_FIELDS: values}


class TextLines(logging.Formatter):
    """`2026-11-29T19:43:47.123Z INFO whimbrel.server.app: sentence key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        parts = [record.getMessage(), *(f"{name}={_word(value)}" for name, value in _fields_of(record).items())]
        if trace := self._trace(record):
            parts.append(f"| {trace}")
        line = f"{_time(record)} {record.levelname} {record.name}: {' '.join(parts)}"
        return one_line(without_secrets(line))

    def _trace(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonLines(TextLines):
    """`{"time": ..., "level": ..., "logger": ..., "message": ..., fields, "traceback": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        line |= {name: _plain(value) for name, value in _fields_of(record).items() if name not in line}
        if trace := self._trace(record):
            line["traceback"] = without_secrets(trace)
        return in_json(msgspec.json.encode(line).decode())


def without_secrets(text: str) -> str:
    """The text with passwords in URLs and bearer tokens replaced by `***`."""
    return _BEARER.sub(r"\g<before>***", _URL_PASSWORD.sub(r"\g<before>***@", text))


def _time(record: logging.LogRecord) -> str:
    """ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    held = getattr(record, _FIELDS, {})
    return held if isinstance(held, dict) else {}


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else without_secrets(str(value))


def _word(value: object) -> str:
    text = str(value)
    return f'"{text}"' if not text or " " in text else text
