"""A kept connection's answers leave at once: a listening socket says that it is TCP's, and uvloop runs the server."""

import asyncio
import contextlib
import socket

import pytest
import uvloop

from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.server.addresses import bind
from whimbrel.server.event_loop import new_event_loop


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_a_connection_that_is_accepted_sends_without_delay(make_loop: object, address: str) -> None:
    """An answer in two writes took 44 ms: asyncio sets TCP_NODELAY only where the socket's protocol number is TCP's."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(_accepted_without_delay(address)) is True


async def _accepted_without_delay(address: str) -> bool:
    accepted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def on_connection(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        accepted.set_result(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
        writer.close()

    try:
        opened = bind(address)
    except Unavailable:
        if ":" in address.rpartition(":")[0] and not _has_ipv6():
            return True  # a machine without IPv6 has nothing to set
        raise
    assert opened.proto == socket.IPPROTO_TCP
    async with await asyncio.start_server(on_connection, sock=opened):
        _, writer = await asyncio.open_connection(*opened.getsockname()[:2])
        answer = await asyncio.wait_for(accepted, 10)
        writer.close()
        await writer.wait_closed()
    return answer


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def test_a_server_runs_on_uvloop() -> None:
    loop = new_event_loop()
    loop.close()
    assert isinstance(loop, uvloop.Loop)


def test_a_port_in_use_and_an_address_that_is_none_are_said() -> None:
    with bind("127.0.0.1:0") as opened, pytest.raises(Unavailable, match="stop what uses it"):
        bind(f"127.0.0.1:{opened.getsockname()[1]}")
    for wrong in ("8470", "127.0.0.1:", "127.0.0.1:70000", ":80"):
        with pytest.raises(UntrustedInput, match="host:port"):
            bind(wrong)
