"""Which good tokens are refused, and until when."""

import asyncio
from pathlib import Path

import pytest

from support.server_in_memory import ServerInMemory
from whimbrel.errors import NotAllowed, Refused, Unavailable
from whimbrel.flows.devices.records import DeviceAccess
from whimbrel.server import device_access
from whimbrel.server.auth import TOKEN_LIFE_S, Gatekeeper
from whimbrel.server.device_access import AccessWatch
from whimbrel.stores.database import Database
from whimbrel.stores.transaction import transaction

T0 = 1_800_000_000.0
BLOCKED = DeviceAccess(device_id="dev-1", state="blocked", since=T0)
REMOVED = DeviceAccess(device_id="dev-1", state="removed", since=T0, not_before=T0)


def keeping(*entries: DeviceAccess, now: float = T0) -> Gatekeeper:
    gatekeeper = Gatekeeper()
    gatekeeper.note([("default", entry) for entry in entries], now=now)
    return gatekeeper


def test_a_blocked_device_is_refused_with_any_token_and_others_are_not() -> None:
    gatekeeper = keeping(BLOCKED)
    for issued in (T0 - 10, T0 + 10):
        with pytest.raises(Refused, match="blocked this device") as caught:
            gatekeeper.check("default", "dev-1", issued=issued)
        assert caught.value.status == 403
    gatekeeper.check("default", "dev-2", issued=T0)
    gatekeeper.check("other", "dev-1", issued=T0)


def test_a_removed_device_is_told_to_enrol_again_and_its_next_token_is_good() -> None:
    back = DeviceAccess(device_id="dev-1", state="open", since=T0 + 5, not_before=T0)
    for entry in (REMOVED, back):
        gatekeeper = keeping(entry)
        with pytest.raises(NotAllowed, match="enrol it again") as caught:
            gatekeeper.check("default", "dev-1", issued=T0 - 1)
        assert caught.value.status == 401
    gatekeeper.check("default", "dev-1", issued=T0 + 6)


def test_what_refuses_nothing_any_more_is_forgotten() -> None:
    gatekeeper = keeping(BLOCKED)
    gatekeeper.note([("default", DeviceAccess(device_id="dev-1", state="open", since=T0 + 1))], now=T0 + 1)
    gatekeeper.check("default", "dev-1", issued=T0)
    back = DeviceAccess(device_id="dev-1", state="open", since=T0 + 5, not_before=T0)
    gatekeeper.note([("default", back)], now=T0 + TOKEN_LIFE_S + 1)
    gatekeeper.check("default", "dev-1", issued=T0 - 1)  # such a token is over by its own time


def test_the_memory_follows_the_database_also_where_rows_come_late(tmp_path: Path) -> None:
    database, now = Database(f"sqlite:///{tmp_path}/registry.db"), [T0 + 100]
    try:
        database.migrate()

        def write(entry: DeviceAccess) -> None:
            with transaction(database, "default") as stores:
                stores.inventory.set_access(entry)

        write(BLOCKED)
        gatekeeper = Gatekeeper()
        watch = AccessWatch(database, gatekeeper, clock=lambda: now[0])
        watch.read()
        with pytest.raises(Refused):
            gatekeeper.check("default", "dev-1", issued=T0)
        # Written by a server whose clock is 20 s behind, and seen after the last look.
        write(DeviceAccess(device_id="dev-1", state="open", since=T0 + 80))
        write(DeviceAccess(device_id="dev-2", state="blocked", since=T0 + 80))
        now[0] += 2
        watch.read()
        gatekeeper.check("default", "dev-1", issued=T0)
        with pytest.raises(Refused):
            gatekeeper.check("default", "dev-2", issued=T0)
    finally:
        database.close()


def test_trouble_with_the_memory_of_blocked_devices_is_logged_once_and_ends_nothing(
    server: ServerInMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[Exception | None] = [
        Unavailable("locked"),
        Unavailable("locked"),
        None,
        Unavailable("again"),
        KeyError(),
    ]

    def read() -> None:
        if not steps:
            raise asyncio.CancelledError
        if error := steps.pop(0):
            raise error

    watch = AccessWatch(server.database, Gatekeeper(), clock=server.clock)
    monkeypatch.setattr(watch, "read", read)
    monkeypatch.setattr(device_access, "PERIOD_S", 0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch.run())
    words = "blocked devices could not be looked up; what was known last holds"
    assert caplog.messages == [f"{words}: locked", f"{words}: again", "blocked devices could not be looked up"]
