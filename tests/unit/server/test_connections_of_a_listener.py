"""Trouble of the system below a listener: it pauses, and neither spins nor ends."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from whimbrel import limits
from whimbrel.server.addresses import Networks, bind
from whimbrel.server.connection import Bounds
from whimbrel.server.http import respond
from whimbrel.server.listener import Listener


class Failing(socket.socket):
    """A socket whose `accept` fails as often as it is told."""

    errors: list[int]
    asked = 0

    def accept(self) -> Any:
        type(self).asked += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, errno.errorcode[number])
        return super().accept()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await respond(send, 200, scope["client"][0].encode(), content_type=b"text/plain")


async def asked(port: int, *headers: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join(["GET / HTTP/1.1", "host: x", "connection: close", *headers, "", ""]).encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer.partition("\r\n\r\n")[2]


async def listening(opened: socket.socket, work: Callable[[int], Awaitable[None]], *, proxies: tuple[str, ...]) -> None:
    listener = Listener(app, opened, name="test", bounds=Bounds(), proxies=Networks(proxies))
    running = asyncio.create_task(listener.run())
    while not listener.started:
        await asyncio.sleep(0.01)
    await work(opened.getsockname()[1])
    listener.stop()
    await running


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EPROTO, errno.EPERM])
def test_whatever_accept_says_the_listener_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(limits, "ACCEPT_PAUSE_S", 0.1)

    async def work(port: int) -> None:
        assert await asked(port) == "127.0.0.1"

    with bind("127.0.0.1:0") as plain:
        opened = Failing(fileno=plain.detach())
    Failing.errors, Failing.asked = [number] * 3, 0
    asyncio.run(listening(opened, work, proxies=()))
    assert Failing.errors == []
    assert Failing.asked < 10


@pytest.mark.parametrize(
    ("proxies", "client"),
    [((), "127.0.0.1"), (("10.0.0.1",), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.7")],
)
def test_who_is_no_trusted_proxy_says_nothing_of_its_address(
    monkeypatch: pytest.MonkeyPatch, proxies: tuple[str, ...], client: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own setting is not ours

    async def work(port: int) -> None:
        assert await asked(port, "x-forwarded-for: 198.51.100.1, 203.0.113.7") == client

    asyncio.run(listening(bind("127.0.0.1:0"), work, proxies=proxies))
