"""A server's memory of who may not speak follows the database, whoever changed it, and outlives its trouble."""

import asyncio
import logging

import msgspec
import pytest

from support.server_in_memory import ServerInMemory
from whimbrel.errors import NotAllowed, Refused, Unavailable
from whimbrel.flows.devices.records import DeviceAccess
from whimbrel.server import device_access
from whimbrel.server.auth import Gatekeeper
from whimbrel.server.device_access import AccessWatch

HOUR_S = 3600.0


def set_access(server: ServerInMemory, device: str, state: str, *, since: float, not_before: float = 0.0) -> None:
    entry = DeviceAccess(device_id=device, state=state, since=since, not_before=not_before)
    with server.stores() as stores:
        stores.inventory.set_access(entry)


def watch(server: ServerInMemory) -> tuple[Gatekeeper, AccessWatch]:
    gatekeeper = Gatekeeper()
    return gatekeeper, AccessWatch(server.database, gatekeeper, clock=server.clock)


def refuses(gatekeeper: Gatekeeper, device: str, *, issued: float, epoch: int = 1) -> type[Exception] | None:
    try:
        gatekeeper.check("default", device, issued=issued, epoch=epoch)
    except (Refused, NotAllowed) as error:
        return type(error)
    return None


def test_a_start_takes_all_that_refuses_a_token_however_old(server: ServerInMemory) -> None:
    now = server.clock.now
    set_access(server, "blocked", "blocked", since=now - 10**7)
    set_access(server, "removed", "removed", since=now - HOUR_S + 1, not_before=now - HOUR_S + 1)
    gatekeeper, look = watch(server)
    look.read()
    assert refuses(gatekeeper, "blocked", issued=now) is Refused
    assert refuses(gatekeeper, "removed", issued=now - HOUR_S) is NotAllowed
    assert refuses(gatekeeper, "another", issued=now) is None


@pytest.mark.parametrize(("late_s", "heard"), [(60.0, True), (61.0, False)])
def test_later_looks_read_what_changed_lately_with_a_minutes_overlap(
    server: ServerInMemory, late_s: float, heard: bool
) -> None:
    gatekeeper, look = watch(server)
    look.read()
    set_access(server, "dev-1", "blocked", since=server.clock.now - late_s)
    server.clock.now += 2
    look.read()
    assert (refuses(gatekeeper, "dev-1", issued=server.clock.now) is Refused) is heard


def test_a_clock_that_went_back_misses_nothing(server: ServerInMemory) -> None:
    gatekeeper, look = watch(server)
    look.read()
    server.clock.now -= HOUR_S
    set_access(server, "dev-1", "blocked", since=server.clock.now)
    look.read()
    assert refuses(gatekeeper, "dev-1", issued=server.clock.now) is Refused


@pytest.mark.parametrize("began", [True, False])
def test_a_credential_that_was_replaced_elsewhere_refuses_the_tokens_of_before(
    server: ServerInMemory, began: bool
) -> None:
    gatekeeper, look = watch(server)
    if began:
        look.read()
    device = server.device("dev-1")
    body = {"device_id": "dev-1", "enrol_token": server.enrol_token}
    with server.stores() as stores:
        known = stores.enrolments.known("dev-1")
    assert known is not None
    assert device.post("/device/v1/enrol", json=body).status_code == 403
    with server.stores() as stores:
        stores.enrolments.save(
            msgspec.structs.replace(known, epoch=2, credential_at=server.clock.now), labels=None, at=server.clock.now
        )
    server.clock.now += 2
    look.read()
    assert refuses(gatekeeper, "dev-1", issued=server.clock.now, epoch=1) is NotAllowed
    assert refuses(gatekeeper, "dev-1", issued=server.clock.now, epoch=2) is None


def test_where_the_database_does_not_answer_what_was_known_holds_and_trouble_is_told_once(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger=device_access.__name__)
    monkeypatch.setattr(device_access, "PERIOD_S", 0.0)
    set_access(server, "dev-1", "blocked", since=server.clock.now)
    gatekeeper, look = watch(server)
    look.read()
    set_access(server, "dev-2", "blocked", since=server.clock.now)
    read, tries = look.read, 0
    fails: list[Exception | None] = [
        Unavailable("locked"),
        Unavailable("locked"),
        None,
        Unavailable("locked again"),
        ZeroDivisionError(),
        None,
    ]

    def sick() -> None:
        nonlocal tries
        tries += 1
        error = fails[tries - 1] if tries <= len(fails) else None
        if error is not None:
            assert refuses(gatekeeper, "dev-1", issued=server.clock.now) is Refused
            raise error
        read()

    monkeypatch.setattr(look, "read", sick)

    async def play() -> None:
        task = asyncio.create_task(look.run())
        while tries < len(fails) and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    server.run(play())
    assert [each.getMessage() for each in caplog.records] == [
        "blocked devices could not be looked up; what was known last holds: locked",
        "blocked devices could not be looked up; what was known last holds: locked again",
        "blocked devices could not be looked up",
    ]
    assert refuses(gatekeeper, "dev-2", issued=server.clock.now) is Refused
