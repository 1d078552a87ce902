"""A server that is killed between any two steps leaves what the next round finishes, and never counts twice."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import done, plan_file, repository
from support.values import cohort, devices_in, reports, window
from whimbrel.errors import Unavailable
from whimbrel.flows.ports import Taken
from whimbrel.flows.records import Record
from whimbrel.server.app import Parts, open_parts
from whimbrel.server.config import Folder
from whimbrel.server.controllers import Controllers
from whimbrel.stores.fleet import Fleet
from whimbrel.stores.inbox_table import InboxTable
from whimbrel.stores.registry import Registry
from whimbrel.stores.tuf_repository import RoleBook, copy_files


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def parts(template: Path, tmp_path: Path) -> Iterator[Parts]:
    """A repository with a rollout, opened."""
    folder = shutil.copytree(template, tmp_path / "repo")
    done("rollout", "start", plan_file(tmp_path), "-R", folder)
    with open_parts(Folder.open(folder)) as opened:
        yield opened


def another(parts: Parts) -> Controllers:
    """The controllers of a process that starts after this one was killed: its lease is over."""
    asyncio.run(parts.controllers.resign())
    return Controllers(parts.database, parts.blobs, parts.inbox, parts.signers)


def change_policy(parts: Parts) -> None:
    with parts.database.transaction() as connection:
        registry = Registry(connection, "default")
        registry.change_model("wake", settings=registry.model("wake").settings.__class__(refresh_s=77))


def published(parts: Parts) -> tuple[int, int, float]:
    """Timestamp versions: in the database, in the files; and what the newest policy says."""
    timestamp = json.loads((parts.folder.path / "files" / "default" / "metadata" / "timestamp.json").read_bytes())
    with parts.database.transaction() as connection:
        book = RoleBook(connection, "default")
        policy = json.loads(book.current_target("policy-wake", "policy/wake.json") or b"{}")
        return book.newest()["timestamp"], timestamp["signed"]["version"], policy.get("refresh_s", 300)


def is_whole(parts: Parts) -> bool:
    newest, copied, refresh_s = published(parts)
    with parts.database.transaction() as connection:
        marked = RoleBook(connection, "default").published_timestamp()
    return newest == copied == marked and refresh_s == 77


def test_killed_before_the_policy_is_signed(parts: Parts) -> None:
    change_policy(parts)
    asyncio.run(another(parts).round())
    assert is_whole(parts)


def test_killed_before_the_files_are_copied(parts: Parts) -> None:
    change_policy(parts)
    parts.controllers._write_policies("default")
    assert not is_whole(parts)
    asyncio.run(another(parts).round())
    assert is_whole(parts)


@pytest.mark.parametrize("copied", [1, 2, 3, 99])
def test_killed_while_the_files_are_copied(parts: Parts, copied: int) -> None:
    change_policy(parts)
    parts.controllers._write_policies("default")
    with parts.database.transaction() as connection:
        book = RoleBook(connection, "default")
        files = book.files_since(book.published_timestamp())
    assert files[-1][0] == "metadata/timestamp.json"
    asyncio.run(copy_files(parts.blobs, "default", files[:copied]))
    asyncio.run(another(parts).round())
    assert is_whole(parts)


def test_a_round_with_nothing_to_do_signs_nothing(parts: Parts) -> None:
    controllers = another(parts)
    asyncio.run(controllers.round())
    before = published(parts)
    asyncio.run(controllers.round())
    assert published(parts) == before


def at_risk(parts: Parts) -> int:
    with parts.database.transaction() as connection:
        (rollout,) = Registry(connection, "default").rollouts()
        return sum(cell.at_risk for cell in Fleet(connection, "default").cells(rollout.id, before_window=10**9))


def report(parts: Parts) -> Record:
    with parts.database.transaction() as connection:
        (rollout,) = Registry(connection, "default").rollouts()
    (device,) = devices_in(0, 50_000, 1)
    return reports(device, window(1, cohorts=(cohort(rollout=rollout.id),)), at=rollout.created_at + 1)


def test_killed_between_the_tally_and_the_inbox_counts_once(parts: Parts) -> None:
    asyncio.run(parts.inbox.write([report(parts)]))
    parts.controllers._ingest(asyncio.run(parts.inbox.take(10)))
    asyncio.run(another(parts).round())
    assert at_risk(parts) == 1
    assert asyncio.run(parts.inbox.take(10)).records == ()


def test_a_leader_that_was_too_slow_tallies_nothing(parts: Parts) -> None:
    """Its lease was over and another led: on PostgreSQL both tallied the same reports."""
    asyncio.run(parts.inbox.write([report(parts)]))
    assert parts.controllers._lead()
    taken = asyncio.run(parts.inbox.take(10))
    new = another(parts)
    assert new._lead()
    with pytest.raises(Unavailable, match="another server leads"):
        parts.controllers._ingest(taken)
    asyncio.run(new.round())
    assert at_risk(parts) == 1


def test_a_bug_in_one_round_does_not_end_the_controllers(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen error ended their task, and devices went on being served by a server that judged nothing."""

    class Faulty(InboxTable):
        rounds = 0

        async def take(self, limit: int) -> Taken:
            Faulty.rounds += 1
            if Faulty.rounds == 1:
                raise ZeroDivisionError
            return await super().take(limit)

    asyncio.run(parts.controllers.resign())
    controllers = Controllers(parts.database, parts.blobs, Faulty(parts.database), parts.signers)

    async def run() -> None:
        task = asyncio.create_task(controllers.run())
        while Faulty.rounds < 2 and not task.done():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert "ZeroDivisionError" in caplog.text
