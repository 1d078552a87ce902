"""Tests that need a server run where it answers, and always under CI=true; elsewhere they are left out, and said so."""

import asyncio
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from whimbrel.stores.database import Database

POSTGRESQL = os.environ.get("WHIMBREL_TEST_POSTGRESQL", "postgresql:///test?host=/var/run/postgresql")
NATS = os.environ.get("WHIMBREL_TEST_NATS", "nats://127.0.0.1:4222")

_SERVERS = {"postgresql": "PostgreSQL", "nats": "NATS"}  # marker -> the server that its tests talk to

os.environ["WHIMBREL_CONFIG"] = os.devnull + "/config.json"  # no test reads the contexts of whoever runs it


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say before the first test what is left out, and how to have it."""
    return _left_out(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for sentence in _left_out(config):
        terminalreporter.write_line(sentence)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = [marker for marker in _SERVERS if not _answers(marker)]
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in absent)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skip is a failure: what nobody runs protects nobody."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if _in_ci() and reporter is not None and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


def _left_out(config: pytest.Config) -> list[str]:
    """One sentence for every kind of tests that this run leaves out. (Two workers collect; neither may speak.)"""
    sentences = [
        f"left out: the tests of {name}, which does not answer; `make services` starts it"
        for marker, name in _SERVERS.items()
        if not _answers(marker)
    ]
    if config.getoption("markexpr") == "not long":
        sentences.append("left out: the long tests; `make test-all` runs them")
    return sentences


@functools.cache
def _answers(marker: str) -> bool:
    """Whether the server that tests with this marker need answers; in CI nothing is left out, so it must."""
    return _in_ci() or {"postgresql": _postgresql_answers, "nats": _nats_answers}[marker]()


def _postgresql_answers() -> bool:
    import psycopg

    try:
        psycopg.connect(POSTGRESQL, connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


def _nats_answers() -> bool:
    import nats

    async def ask() -> None:
        connection = await asyncio.wait_for(nats.connect(NATS, connect_timeout=2, error_cb=_quiet), 3)
        try:
            await connection.jetstream().account_info()
        finally:
            await connection.close()

    try:
        asyncio.run(ask())
    except (OSError, TimeoutError, nats.errors.Error):
        return False
    return True


async def _quiet(_: Exception) -> None:
    """Nothing listens: that is an answer, not a log line."""


@contextmanager
def opened_database(engine: str, folder: Path) -> Iterator[Database]:
    """A migrated database of its own: a file, or a schema that is dropped afterwards."""
    if engine == "sqlite":
        path = folder / "registry.db"
        path.write_bytes(_migrated_file())
        opened = Database(f"sqlite:///{path}")
        yield opened
        opened.close()
        return
    with new_schema() as url:
        opened = Database(url)
        try:
            opened.migrate()
            yield opened
        finally:
            opened.close()


@functools.cache
def _migrated_file() -> bytes:
    """An SQLite database after all migrations: a copy, since to migrate costs more than most tests that use it."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-tests-") as folder:
        path = Path(folder) / "registry.db"
        opened = Database(f"sqlite:///{path}")
        opened.migrate()
        opened.close()
        return path.read_bytes()


@contextmanager
def new_schema() -> Iterator[str]:
    """The URL of a PostgreSQL schema of its own, with nothing in it. It is dropped afterwards."""
    import psycopg

    schema = f"whimbrel_{os.urandom(6).hex()}"
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    try:
        yield f"{POSTGRESQL}{'&' if '?' in POSTGRESQL else '?'}options=-csearch_path%3D{schema}"
    finally:
        with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def fresh_schema() -> Iterator[str]:
    """A PostgreSQL schema of its own, by URL."""
    with new_schema() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database on every engine."""
    with opened_database(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for a test."""
    with asyncio.Runner() as opened:
        yield opened


@pytest.fixture
def buckets_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this process draw a device's id as its cohort key, so that a test knows the bucket of a name."""
    monkeypatch.setattr("whimbrel.server.device_api.random_cohort_key", lambda device_id: device_id)
