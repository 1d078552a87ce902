"""Group commit: what waits is written together, and a device is answered when its message is stored, not before."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.flows.ports import Taken
from whimbrel.server.intake import Intake

T0 = 1_800_000_000.0


class HeldInbox:
    """An inbox that writes when a test lets it: `writes` has the devices of each write that was asked for."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.stored: list[str] = []
        self.may_write = asyncio.Event()
        self.fails: Exception | None = None

    async def write(self, records: Sequence[DeviceMessage]) -> None:
        names = [record.device_id for record in records]
        self.writes.append(names)
        await self.may_write.wait()
        if self.fails is not None:
            raise self.fails
        self.stored += names

    async def take(self, limit: int) -> Taken:
        raise NotImplementedError

    async def done(self, taken: Taken) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Queue:
    """An intake before a `HeldInbox`, and how often it said that messages were written."""

    def __init__(self) -> None:
        self.inbox = HeldInbox()
        self.told = 0
        self.intake = Intake(self.inbox, written=self._written)
        self._running = asyncio.create_task(self.intake.run())

    def _written(self) -> None:
        self.told += 1

    async def put(self, device: str, *, body: bytes = b"{}") -> asyncio.Task[None]:
        """A request that waits for its message to be stored."""
        message = DeviceMessage(namespace="default", device_id=device, kind="reports", body=body, at=T0)
        task = asyncio.create_task(self.intake.put(message))
        await turns()
        return task

    async def write(self) -> None:
        """Let the inbox write all that waits."""
        self.inbox.may_write.set()
        await turns()

    def stop(self) -> None:
        self._running.cancel()


async def turns() -> None:
    """Let every task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def play(scene: Callable[[Queue], Awaitable[None]]) -> None:
    async def run() -> None:
        queue = Queue()
        await scene(queue)
        queue.stop()

    asyncio.run(run())


def test_a_message_is_acknowledged_when_it_is_stored_and_not_before() -> None:
    async def scene(queue: Queue) -> None:
        asked = await queue.put("dev-1")
        assert queue.inbox.writes == [["dev-1"]]
        assert (asked.done(), queue.told) == (False, 0)
        await queue.write()
        assert asked.done()
        assert asked.exception() is None
        assert (queue.inbox.stored, queue.told) == (["dev-1"], 1)

    play(scene)


def test_messages_that_come_during_a_write_are_the_next_write_together_and_in_order() -> None:
    async def scene(queue: Queue) -> None:
        asked = [await queue.put(f"dev-{number}") for number in range(1, 6)]
        assert queue.inbox.writes == [["dev-1"]]
        await queue.write()
        assert queue.inbox.writes == [["dev-1"], ["dev-2", "dev-3", "dev-4", "dev-5"]]
        assert all(each.done() for each in asked)
        assert queue.told == 2

    play(scene)


def test_one_write_takes_so_many_messages_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_AT_ONCE", 3)

    async def scene(queue: Queue) -> None:
        for number in range(8):
            await queue.put(f"dev-{number}")
        await queue.write()
        assert [len(names) for names in queue.inbox.writes] == [1, 3, 3, 1]
        assert queue.inbox.stored == [f"dev-{number}" for number in range(8)]

    play(scene)


def test_a_write_that_fails_is_told_to_all_in_it_and_to_nobody_else() -> None:
    async def scene(queue: Queue) -> None:
        queue.inbox.fails = Unavailable("the disk does not answer")
        first, second, third = [await queue.put(f"dev-{number}") for number in range(3)]
        queue.inbox.may_write.set()
        await turns()
        assert [str(each.exception()) for each in (first, second, third)] == ["the disk does not answer"] * 3
        assert (queue.inbox.stored, queue.told) == ([], 0)
        queue.inbox.fails = None
        later = await queue.put("dev-9")
        assert later.exception() is None
        assert (queue.inbox.stored, queue.told) == (["dev-9"], 1)

    play(scene)


def test_a_device_that_hung_up_is_stored_all_the_same_and_harms_nobody() -> None:
    async def scene(queue: Queue) -> None:
        first, gone, last = [await queue.put(f"dev-{number}") for number in range(3)]
        gone.cancel()
        await queue.write()
        assert (first.exception(), last.exception()) == (None, None)
        assert queue.inbox.stored == ["dev-0", "dev-1", "dev-2"]
        assert (await queue.put("dev-3")).exception() is None

    play(scene)


def test_a_device_that_hung_up_before_a_write_that_failed_harms_nobody() -> None:
    async def scene(queue: Queue) -> None:
        gone, stays = await queue.put("dev-0"), await queue.put("dev-1")
        queue.inbox.fails = Unavailable("the disk does not answer")
        gone.cancel()
        await queue.write()
        assert isinstance(stays.exception(), Unavailable)
        queue.inbox.fails = None
        assert (await queue.put("dev-2")).exception() is None

    play(scene)


def test_so_many_messages_wait_and_the_next_one_comes_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_MESSAGES", 3)

    async def scene(queue: Queue) -> None:
        await queue.put("dev-0")  # is being written
        waiting = [await queue.put(f"dev-{number}") for number in (1, 2, 3)]
        refused = await queue.put("dev-4")
        assert isinstance(refused.exception(), Unavailable)
        assert str(refused.exception()) == "too many reports at once; come again later"
        await queue.write()
        assert all(each.exception() is None for each in waiting)
        assert queue.inbox.stored == ["dev-0", "dev-1", "dev-2", "dev-3"]
        assert (await queue.put("dev-4")).exception() is None

    play(scene)


def test_so_many_bytes_wait_or_are_written_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES", 1000)

    async def scene(queue: Queue) -> None:
        first = await queue.put("dev-0", body=bytes(600))
        refused = await queue.put("dev-1", body=bytes(401))
        assert str(refused.exception()) == "too many reports at once; come again later"
        second = await queue.put("dev-2", body=bytes(400))
        assert not second.done()
        assert (await queue.put("dev-3", body=b"x")).exception() is not None
        await queue.write()
        assert (first.exception(), second.exception()) == (None, None)
        queue.inbox.may_write.clear()
        whole = await queue.put("dev-4", body=bytes(1000))
        assert not whole.done()
        await queue.write()
        assert whole.exception() is None

    play(scene)


def test_bytes_of_a_write_that_failed_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES", 1000)

    async def scene(queue: Queue) -> None:
        queue.inbox.fails = Unavailable("the disk does not answer")
        queue.inbox.may_write.set()
        for number in range(3):
            await queue.put(f"dev-{number}", body=bytes(1000))
        queue.inbox.fails = None
        assert (await queue.put("dev-4", body=bytes(1000))).exception() is None

    play(scene)


def test_a_message_that_found_no_place_holds_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES", 1000)
    monkeypatch.setattr(limits, "INTAKE_MESSAGES", 1)

    async def scene(queue: Queue) -> None:
        await queue.put("dev-0", body=bytes(100))
        await queue.put("dev-1", body=bytes(100))
        for _ in range(10):
            assert (await queue.put("dev-2", body=bytes(100))).exception() is not None
        await queue.write()
        assert (await queue.put("dev-3", body=bytes(1000))).exception() is None

    play(scene)
