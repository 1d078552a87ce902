"""One suite for the inbox: what was written comes out in order, at least once, and not after it was done."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import NATS
from support.values import T0
from whimbrel.errors import Unavailable
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Inbox
from whimbrel.stores.database import Database
from whimbrel.stores.inbox_nats import InboxNats
from whimbrel.stores.inbox_table import InboxTable


class Opener:
    """Opens the same inbox again, as another process would."""

    def __init__(self, runner: asyncio.Runner, database: Database | None, stream: str) -> None:
        self._runner, self._database, self._stream = runner, database, stream
        self._opened: list[Inbox] = []

    def __call__(self) -> Inbox:
        made: Inbox = InboxTable(self._database) if self._database else InboxNats(NATS, stream=self._stream)
        self._opened.append(made)
        return made

    def close(self) -> None:
        for each in self._opened:
            self._runner.run(each.close())


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.postgresql),
        pytest.param("nats", marks=pytest.mark.nats),
    ]
)
def opener(request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path) -> Iterator[Opener]:
    if request.param == "nats":
        stream = f"whimbrel-test-{os.urandom(6).hex()}"
        made = Opener(runner, None, stream)
        yield made
        made.close()
        runner.run(_forget(stream))
        return
    from conftest import opened_database

    with opened_database(request.param, tmp_path) as database:
        made = Opener(runner, database, "")
        yield made
        made.close()


async def _forget(stream: str) -> None:
    import nats

    connection = await nats.connect(NATS)
    try:
        await connection.jetstream().delete_stream(stream)
    except nats.js.errors.NotFoundError:
        pass
    finally:
        await connection.close()


def record(number: int, *, size: int = 10) -> DeviceMessage:
    body = f"{number:010}".encode().ljust(size, b".")
    return DeviceMessage(namespace="default", device_id=f"dev-{number % 3}", kind="reports", body=body, at=T0 + number)


def records(start: int, end: int, *, size: int = 10) -> list[DeviceMessage]:
    return [record(number, size=size) for number in range(start, end)]


def drain(runner: asyncio.Runner, inbox: Inbox, *, limit: int = 1000) -> list[DeviceMessage]:
    """Everything there is, each batch done."""
    seen: list[DeviceMessage] = []
    while True:
        taken = runner.run(inbox.take(limit))
        seen += taken.records
        runner.run(inbox.done(taken))
        if not taken.records:
            return seen


def test_what_is_written_comes_out_whole_and_in_order(opener: Opener, runner: asyncio.Runner) -> None:
    inbox = opener()
    runner.run(inbox.write(records(0, 3)))
    runner.run(inbox.write(records(3, 5)))
    assert drain(runner, inbox) == records(0, 5)


def test_an_empty_inbox_gives_nothing(opener: Opener, runner: asyncio.Runner) -> None:
    inbox = opener()
    taken = runner.run(inbox.take(10))
    assert taken.records == ()
    runner.run(inbox.done(taken))


def test_writing_nothing_stores_nothing(opener: Opener, runner: asyncio.Runner) -> None:
    inbox = opener()
    runner.run(inbox.write([]))
    assert drain(runner, inbox) == []


def test_what_is_done_does_not_come_again(opener: Opener, runner: asyncio.Runner) -> None:
    inbox = opener()
    runner.run(inbox.write(records(0, 3)))
    drain(runner, inbox)
    assert drain(runner, opener()) == []


def test_what_is_not_done_comes_again_to_another_process(opener: Opener, runner: asyncio.Runner) -> None:
    inbox = opener()
    runner.run(inbox.write(records(0, 3)))
    assert len(runner.run(inbox.take(10)).records) == 3
    runner.run(inbox.close())
    assert drain(runner, opener()) == records(0, 3)


def test_what_is_not_done_comes_again_before_anything_newer(opener: Opener, runner: asyncio.Runner) -> None:
    """A tally that failed once (a locked database) took the newer reports first; the older then counted as replays."""
    inbox = opener()
    runner.run(inbox.write(records(0, 3)))
    runner.run(inbox.take(10))
    runner.run(inbox.write(records(3, 6)))
    assert drain(runner, inbox) == records(0, 6)


def test_a_killed_process_leaves_its_order_to_the_next(opener: Opener, runner: asyncio.Runner) -> None:
    first = opener()
    runner.run(first.write(records(0, 3)))
    runner.run(first.take(10))
    second = opener()
    runner.run(second.write(records(3, 6)))
    assert drain(runner, second) == records(0, 6)


def test_many_large_records_stay_in_order(opener: Opener, runner: asyncio.Runner) -> None:
    """More than one packed message, and more than one batch."""
    inbox = opener()
    written = records(0, 30, size=100_000)
    runner.run(inbox.write(written))
    assert drain(runner, inbox, limit=7) == written


def test_several_writers_lose_nothing(opener: Opener, runner: asyncio.Runner) -> None:
    one, other = opener(), opener()

    async def write_all() -> None:
        await asyncio.gather(*(each.write(records(n, n + 2)) for n, each in enumerate([one, other] * 5)))

    runner.run(write_all())
    assert sorted(r.at for r in drain(runner, one)) == sorted(r.at for n in range(10) for r in records(n, n + 2))


def test_two_readers_and_a_late_acknowledgement_lose_nothing(opener: Opener, runner: asyncio.Runner) -> None:
    """The lease went over while the old leader was at work: the new one reads on, and the old one's done may come."""
    old, new = opener(), opener()
    runner.run(old.write(records(0, 3)))
    taken = runner.run(old.take(10))
    assert runner.run(new.take(10)).records == tuple(records(0, 3))
    runner.run(old.done(taken))
    runner.run(new.write(records(3, 4)))
    assert drain(runner, new)[-1] == record(3)


@pytest.mark.nats
def test_a_nats_server_that_is_away_is_unavailable(runner: asyncio.Runner) -> None:
    inbox = InboxNats("nats://127.0.0.1:1")
    with pytest.raises(Unavailable, match="is it running with JetStream"):
        runner.run(inbox.write(records(0, 1)))
    runner.run(inbox.close())


@pytest.mark.nats
def test_the_password_of_a_nats_server_is_not_in_what_devices_are_answered(runner: asyncio.Runner) -> None:
    """The whole URL stood in the 503 that a device got while NATS was away."""
    inbox = InboxNats("nats://ota:hunter2@127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"NATS at 127\.0\.0\.1:1 does not answer") as caught:
        runner.run(inbox.write(records(0, 1)))
    assert "hunter2" not in str(caught.value)
    runner.run(inbox.close())
