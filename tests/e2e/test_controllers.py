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
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Taken
from whimbrel.server.app import Repository, open_repository
from whimbrel.server.config import Folder
from whimbrel.server.controllers import Controllers
from whimbrel.stores.inbox_table import InboxTable
from whimbrel.stores.transaction import transaction
from whimbrel.stores.tuf_repository import copy_files


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture
def opened(template: Path, tmp_path: Path) -> Iterator[Repository]:
    """A repository with a rollout, opened."""
    folder = shutil.copytree(template, tmp_path / "repo")
    done("rollout", "start", plan_file(tmp_path), "-R", folder)
    with open_repository(Folder.open(folder)) as made:
        yield made


def another(opened: Repository) -> Controllers:
    """The controllers of a process that starts after this one was killed: its lease is over."""
    asyncio.run(opened.controllers.resign())
    return Controllers(opened.database, opened.blobs, opened.inbox, opened.signers, clock=opened.clock)


def change_policy(opened: Repository) -> None:
    with transaction(opened.database, "default") as stores:
        registry = stores.registry
        registry.change_model("wake", settings=registry.model("wake").settings.__class__(refresh_s=7))


def published(opened: Repository) -> tuple[int, int, float]:
    """Timestamp versions: in the database, in the files; and what the newest policy says."""
    timestamp = json.loads((opened.folder.path / "files" / "default" / "metadata" / "timestamp.json").read_bytes())
    with transaction(opened.database, "default") as stores:
        policy = json.loads(stores.roles.current_target("policy-wake", "policy/wake.json") or b"{}")
        return stores.roles.newest()["timestamp"], timestamp["signed"]["version"], policy.get("refresh_s", 300)


def is_whole(opened: Repository) -> bool:
    newest, copied, refresh_s = published(opened)
    with transaction(opened.database, "default") as stores:
        marked = stores.roles.published_timestamp()
    return newest == copied == marked and refresh_s == 7


def test_killed_before_the_policy_is_signed(opened: Repository) -> None:
    change_policy(opened)
    asyncio.run(another(opened).round())
    assert is_whole(opened)


def test_killed_before_the_files_are_copied(opened: Repository) -> None:
    change_policy(opened)
    opened.controllers.publishing.sign("default")
    assert not is_whole(opened)
    asyncio.run(another(opened).round())
    assert is_whole(opened)


@pytest.mark.parametrize("copied", [1, 2, 3, 99])
def test_killed_while_the_files_are_copied(opened: Repository, copied: int) -> None:
    change_policy(opened)
    opened.controllers.publishing.sign("default")
    with transaction(opened.database, "default") as stores:
        files = stores.roles.files_since(stores.roles.published_timestamp())
    assert files[-1][0] == "metadata/timestamp.json"
    asyncio.run(copy_files(opened.blobs, "default", files[:copied]))
    asyncio.run(another(opened).round())
    assert is_whole(opened)


def test_a_round_with_nothing_to_do_signs_nothing(opened: Repository) -> None:
    controllers = another(opened)
    asyncio.run(controllers.round())
    before = published(opened)
    asyncio.run(controllers.round())
    assert published(opened) == before


def at_risk(opened: Repository) -> int:
    with transaction(opened.database, "default") as stores:
        (rollout,) = stores.registry.rollouts()
        return sum(cell.at_risk for cell in stores.fleet.cells(rollout.id, before_window=10**9))


def report(opened: Repository) -> DeviceMessage:
    with transaction(opened.database, "default") as stores:
        (rollout,) = stores.registry.rollouts()
    (device,) = devices_in(0, 50_000, 1)
    return reports(device, window(1, cohorts=(cohort(rollout=rollout.id),)), at=rollout.created_at + 1)


def test_killed_between_the_tally_and_the_inbox_counts_once(opened: Repository) -> None:
    asyncio.run(opened.inbox.write([report(opened)]))
    opened.controllers.tallying.count(asyncio.run(opened.inbox.take(10)))
    asyncio.run(another(opened).round())
    assert at_risk(opened) == 1
    assert asyncio.run(opened.inbox.take(10)).records == ()


def test_a_leader_that_was_too_slow_tallies_nothing(opened: Repository) -> None:
    """Its lease was over and another led: on PostgreSQL both tallied the same reports."""
    asyncio.run(opened.inbox.write([report(opened)]))
    assert opened.controllers.leader.take()
    taken = asyncio.run(opened.inbox.take(10))
    new = another(opened)
    assert new.leader.take()
    with pytest.raises(Unavailable, match="another server leads"):
        opened.controllers.tallying.count(taken)
    asyncio.run(new.round())
    assert at_risk(opened) == 1


def test_a_bug_in_one_round_does_not_end_the_controllers(opened: Repository, caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen error ended their task, and devices went on being served by a server that judged nothing."""

    class Faulty(InboxTable):
        rounds = 0

        async def take(self, limit: int) -> Taken:
            Faulty.rounds += 1
            if Faulty.rounds == 1:
                raise ZeroDivisionError
            return await super().take(limit)

    asyncio.run(opened.controllers.resign())
    controllers = Controllers(
        opened.database, opened.blobs, Faulty(opened.database), opened.signers, clock=opened.clock
    )

    async def run() -> None:
        task = asyncio.create_task(controllers.run())
        while Faulty.rounds < 2 and not task.done():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert "ZeroDivisionError" in caplog.text
