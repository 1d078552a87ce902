"""A record is one line, whatever is logged, in the form that was asked for; secrets are not in it."""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest

from whimbrel.server.logs import LogFormat, fields, start_logging

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What `start_logging` changes in this process, as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def logged(monkeypatch: pytest.MonkeyPatch, form: LogFormat, *, verbose: bool = False) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    start_logging(form, verbose=verbose)
    return stream


def test_a_record_has_its_time_in_utc_its_level_its_logger_and_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = logged(monkeypatch, "text")
    logging.getLogger("whimbrel.x").info("started %s", "here", extra=fields(database="SQLite", folder="/a b"))
    expected = rf'{TIME} INFO whimbrel\.x: started here database=SQLite folder="/a b"\n'
    assert re.fullmatch(expected, stream.getvalue())


def test_json_has_the_same_as_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = logged(monkeypatch, "json")
    logging.getLogger("whimbrel.x").warning("pressure", extra=fields(ran_s=1.5, role="leader", level="mine"))
    line = json.loads(stream.getvalue())
    assert re.fullmatch(TIME, line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "whimbrel.x",
        "message": "pressure",
        "ran_s": 1.5,
        "role": "leader",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_device_or_a_person_sends_begins_no_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, form: LogFormat
) -> None:
    stream = logged(monkeypatch, form)
    logging.getLogger("whimbrel.x").info("%s", "a\n2026-11-29T00:00:00.000Z ERROR forged\r\x1b[31m\u2028\x85b")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
    assert "forged" in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_is_part_of_its_line(monkeypatch: pytest.MonkeyPatch, form: LogFormat) -> None:
    stream = logged(monkeypatch, form)
    try:
        raise ValueError("over\ntwo lines")
    except ValueError:
        logging.getLogger("whimbrel.x").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "Traceback (most recent call last)" in line
    if form == "json":
        assert json.loads(line)["traceback"].endswith("two lines")


@pytest.mark.parametrize("form", ["text", "json"])
def test_libraries_and_warnings_come_in_the_same_form(monkeypatch: pytest.MonkeyPatch, form: LogFormat) -> None:
    stream = logged(monkeypatch, form)
    for name in ("uvicorn.error", "alembic.runtime.migration", "asyncio"):
        logging.getLogger(name).info("hidden")
        logging.getLogger(name).warning("told")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert not any("hidden" in line for line in lines)
    for line in lines:
        assert json.loads(line)["level"] == "warning" if form == "json" else re.match(rf"{TIME} WARNING ", line)


def test_verbose_hears_libraries_but_none_that_logs_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx logs every address at INFO, and a webhook's address is its secret."""
    stream = logged(monkeypatch, "text", verbose=True)
    logging.getLogger("uvicorn.error").info("told")
    logging.getLogger("httpx").info("HTTP Request: POST https://hooks.example.com/s3cret")
    logging.getLogger("httpcore.http11").debug("authorization: s3cret")
    assert "told" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
def test_passwords_in_urls_and_bearer_tokens_are_replaced(monkeypatch: pytest.MonkeyPatch, form: LogFormat) -> None:
    stream = logged(monkeypatch, form)
    log = logging.getLogger("whimbrel.x")
    log.error("no answer from postgresql+psycopg://ota:hunter2@db/ota", extra=fields(inbox="nats://a:hunter2@n:4222"))
    log.error("sent Authorization: Bearer hunter2hunter2.x")
    try:
        raise ValueError("nats://u:hunter2@host")
    except ValueError:
        log.exception("it failed")
    assert "hunter2" not in stream.getvalue()
    assert "postgresql+psycopg://ota:***@db/ota" in stream.getvalue()
    assert "http://[::1]:8470" in _text(log, stream, "http://[::1]:8470 is no secret")


def _text(log: logging.Logger, stream: io.StringIO, message: str) -> str:
    log.info(message)
    return stream.getvalue()
