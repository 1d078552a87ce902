"""Places, turns and budgets: who gets one, who waits, and who comes again later."""

import asyncio
import contextlib
import logging
import resource
import threading
from typing import Any

import pytest

from whimbrel import limits
from whimbrel.errors import Unavailable, UntrustedInput
from whimbrel.flows.device_records import DeviceMessage
from whimbrel.server import damped_log, downloads
from whimbrel.server.addresses import Networks
from whimbrel.server.damped_log import DampedLog
from whimbrel.server.descriptors import room_for
from whimbrel.server.downloads import Download, Downloads
from whimbrel.server.http import Budget, read_body
from whimbrel.server.intake import Intake
from whimbrel.server.questions import Questions

# --- addresses ---
PROXIES = Networks(["10.0.0.0/24", "fd00::7"])


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("10.0.0.9", None),
        ("::ffff:10.0.0.9", None),
        ("fd00::7", None),
        ("fd00::8", "fd00::/64"),
        ("", ""),
        ("unknown" * 100, ("unknown" * 100)[: limits.NAME_CHARS]),
    ],
)
def test_a_client_is_an_address_or_a_customers_network_and_a_proxy_is_many(host: str, client: str | None) -> None:
    assert PROXIES.client_of(host) == client


def test_a_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(UntrustedInput, match="expected an address"):
        Networks(["proxy.example.com"])


# --- downloads ---
def test_so_many_downloads_and_so_many_a_client() -> None:
    places = Downloads(most=3, an_address=2)
    with places.place(Download(None), client="a"), places.place(Download(None), client="a"):
        with pytest.raises(Unavailable, match="to this address"), places.place(Download(None), client="a"):
            pass
        third = places.place(Download(None), client="b")
        with third, pytest.raises(Unavailable, match="3 downloads"), places.place(Download(None), client="c"):
            pass
        with places.place(Download(None), client="c"):
            pass


def test_the_slowest_download_gives_way_where_it_is_slow_indeed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(downloads.time, "monotonic", lambda: now)
    cut: list[str] = []
    places = Downloads(most=2, an_address=2)
    with contextlib.ExitStack() as held:
        slow, fast = Download(lambda: cut.append("slow")), Download(lambda: cut.append("fast"))
        for download in (slow, fast):
            held.enter_context(places.place(download, client=None))
        slow.sent_bytes, fast.sent_bytes = 1000, 10**9
        now += limits.DOWNLOAD_GRACE_S - 1
        with pytest.raises(Unavailable), places.place(Download(None), client="b"):
            pass
        now += 2
        held.enter_context(places.place(Download(lambda: cut.append("third")), client="b"))
        assert cut == ["slow"]
        with pytest.raises(Unavailable), places.place(Download(None), client="c"):
            pass  # the others are fast, or have just begun


# --- questions, bodies, messages ---
def test_questions_take_turns_and_too_many_come_again_later() -> None:
    async def play() -> None:
        questions, go_on = Questions(at_once=2, waiting=3), threading.Event()
        asked = [asyncio.create_task(questions.ask(lambda: go_on.wait(10))) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="too many devices ask"):
            await questions.ask(lambda: True)
        go_on.set()
        assert await asyncio.gather(*asked) == [True] * 5
        assert await questions.ask(lambda: 7) == 7

    asyncio.run(play())


def test_bodies_that_come_at_once_have_one_budget_and_give_it_back() -> None:
    budget = Budget(1500)

    async def body_of(content: bytes, *, then: asyncio.Event | None = None) -> bytes:
        parts = [{"body": content, "more_body": True, "type": "http.request"}, {"type": "http.request"}]

        async def receive() -> dict[str, Any]:
            if len(parts) == 1 and then is not None:
                await then.wait()
            return parts.pop(0)

        return await read_body({"headers": []}, receive, limit=1000, budget=budget)

    async def play() -> None:
        go_on = asyncio.Event()
        first = asyncio.create_task(body_of(bytes(1000), then=go_on))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too much comes in at once"):
            await body_of(bytes(1000))
        go_on.set()
        assert len(await first) == 1000
        with pytest.raises(UntrustedInput):
            await body_of(bytes(1001))
        assert len(await body_of(bytes(1000))) == 1000

    asyncio.run(play())


class Slow:
    """An inbox that stores nothing before it may."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def write(self, records: object) -> None:
        await self.go_on.wait()


def test_messages_that_wait_have_a_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES", 1500)
    message = DeviceMessage(namespace="default", device_id="dev-1", kind="reports", body=bytes(1000), at=0.0)

    async def play() -> None:
        inbox = Slow()
        intake = Intake(inbox, written=lambda: None)
        running = asyncio.create_task(intake.run())
        first = asyncio.create_task(intake.put(message))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many reports"):
            await intake.put(message)
        inbox.go_on.set()
        await first
        await intake.put(message)
        running.cancel()

    asyncio.run(play())


# --- descriptors and the log ---
@pytest.mark.parametrize(
    ("soft", "hard", "room"),
    [
        (1024, 100_000, 20_000),
        (1024, resource.RLIM_INFINITY, 20_000),
        (1024, 4096, 4096 - limits.DESCRIPTORS_KEPT - limits.DOWNLOADS),
        (300, 300, 75),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 20_000),
    ],
)
def test_a_server_holds_as_many_connections_as_it_has_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, room: int
) -> None:
    current = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(current))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: current.__setitem__(slice(None), pair))
    assert room_for(20_000) == room
    assert current[1] == hard


def test_a_server_with_hardly_a_descriptor_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    with pytest.raises(Unavailable, match="LimitNOFILE"):
        room_for(20_000)


def test_refusals_of_a_kind_are_one_line_in_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(damped_log.time, "monotonic", lambda: now)
    log = DampedLog("devices")
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            log.note("too long")
            log.flush()
        assert [record.fields["times"] for record in caplog.records] == [1]
        now += limits.DAMPED_LOG_S
        log.flush()
        assert [record.fields["times"] for record in caplog.records] == [1, 99]
        for number in range(1000):
            log.note(f"invented {number}")
    assert len(caplog.records) < 100
    assert log.total == 1100
