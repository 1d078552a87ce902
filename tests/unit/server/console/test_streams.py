"""Pages that are kept up to date: what a stream sends, when it ends, and how many there are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from whimbrel import limits
from whimbrel.errors import Unavailable
from whimbrel.server.console import streams as streams_file
from whimbrel.server.console.streams import Streams


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONSOLE_LOOK_S", 0.001)


def marks(*given: str) -> streams_file.Callable[[], streams_file.Awaitable[str]]:
    """Looks that give these marks, and then the last one for ever."""
    left = list(given)

    async def look() -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    return look


async def always() -> bool:
    return True


async def taken(stream: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await anext(stream) for _ in range(count)]


def test_a_mark_is_sent_when_it_differs_and_a_silent_line_now_and_then() -> None:
    async def run() -> list[bytes]:
        stream = Streams().follow(marks("a", "a", "b", "b", "a"), alive=always)
        return await asyncio.wait_for(taken(stream, 4), 5)

    first, *others = asyncio.run(run())
    assert first == b"event: subject\ndata: a\n\n"
    assert others == [b"event: subject\ndata: b\n\n", b"event: subject\ndata: a\n\n", b": still here\n\n"]


def test_a_stream_ends_with_its_session_and_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONSOLE_LIVE", 1)
    left = [True, False]

    async def alive() -> bool:
        return left.pop(0)

    async def run() -> None:
        streams = Streams()
        stream = streams.follow(marks("a"), alive=alive)
        await anext(stream)
        with pytest.raises(Unavailable, match="too many pages are kept up to date at once"):
            streams.follow(marks("a"), alive=always)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        again = streams.follow(marks("c"), alive=always)
        assert await anext(again) == b"event: subject\ndata: c\n\n"
        await again.aclose()

    asyncio.run(run())


def test_all_streams_end_when_the_server_stops_and_none_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONSOLE_LOOK_S", 60.0)

    async def run() -> list[bytes]:
        streams = Streams()
        stream = streams.follow(marks("a"), alive=always)
        sent = [await anext(stream)]
        asyncio.get_running_loop().call_later(0.01, streams.close)
        sent += [each async for each in stream]
        with pytest.raises(Unavailable):
            streams.follow(marks("a"), alive=always)
        return sent

    assert asyncio.run(asyncio.wait_for(run(), 5)) == [b"event: subject\ndata: a\n\n"]


def test_a_stream_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONSOLE_LIVE_S", 0.02)

    async def run() -> int:
        return len([each async for each in Streams().follow(marks("a"), alive=always)])

    assert asyncio.run(asyncio.wait_for(run(), 5)) >= 1
