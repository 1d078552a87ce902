"""How a server is put together: the one place where its parts meet, from a repository's folder to sockets.

1. There are two listeners, so that what devices reach holds no admin API: one for devices and static files, one for
   people (on loopback, unless the command line names another address).
2. `create_repository` makes a new repository. `open_repository` opens one, for a server, or for the command line that
   works on a folder without a server.
3. The clock of a server is given here. Nothing below asks the machine for the time.
"""

import asyncio
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, NotFound, Unavailable, UntrustedInput
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.flows.ports import Inbox
from whimbrel.server.admin.app import admin_app
from whimbrel.server.admin.operations import AdminContext
from whimbrel.server.alerts import Alerts
from whimbrel.server.attestation import Attestations
from whimbrel.server.auth import DeviceTokens, Gatekeeper
from whimbrel.server.config import FILE, Config, CurrentReceivers, Folder
from whimbrel.server.controllers import Controllers
from whimbrel.server.device_access import AccessWatch
from whimbrel.server.device_api import DeviceApi
from whimbrel.server.http import App, Receive, Scope, Send, problem, respond, unforeseen
from whimbrel.server.intake import Intake
from whimbrel.server.logs import fields
from whimbrel.server.start_checks import check_folders, exposed_admin, exposed_files
from whimbrel.server.static import BytesSent, Static
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database, Migration
from whimbrel.stores.inbox_nats import InboxNats
from whimbrel.stores.inbox_table import InboxTable
from whimbrel.stores.signer import load_signer, make_signer
from whimbrel.stores.transaction import transaction
from whimbrel.stores.tuf_repository import OnlineSigners, copy_files, first_metadata
from whimbrel.version import __version__

log = logging.getLogger(__name__)

_PATH = re.compile(r"^/([a-z0-9][a-z0-9_-]{0,63})/(metadata|targets|artifacts|device)/(.+)\Z")
_WAITING = 1024  # connections that the kernel has made and nobody has accepted yet
_CONNECTIONS = 20_000  # sockets a process; beyond that devices get 503 and come again


class Repository(msgspec.Struct, frozen=True):
    """An open repository. `clock` gives POSIX seconds to every part that needs the time."""

    folder: Folder
    database: Database
    blobs: Blobs
    inbox: Inbox
    signers: OnlineSigners
    controllers: Controllers
    alerts: Alerts
    clock: Callable[[], float]

    def admin_context(self, sent: BytesSent | None = None) -> AdminContext:
        """What the admin API works on."""
        key = self.signers.policy.public_key
        return AdminContext(
            self.database, self.blobs, self.controllers, self.alerts, key, self.clock, sent or BytesSent()
        )


def create_repository(path: Path, config: Config, *, clock: Callable[[], float] = time.time) -> Folder:
    """Make a new repository: keys, first metadata, database, tokens. Raises `Conflict` where one exists already."""
    if (path / FILE).exists():
        raise Conflict(f"{path} is a Whimbrel repository already; it is left as it is")
    if path.exists() and any(path.iterdir()):
        raise Conflict(f"{path} is not empty; name a new folder, so that nothing of yours is mixed with keys")
    path.mkdir(parents=True, exist_ok=True)
    try:
        return _create(path, config, now=clock())
    except BaseException:
        for entry in path.iterdir():  # the folder was empty: all of this is half a repository
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        with suppress(OSError):
            path.rmdir()
        raise


def _create(path: Path, config: Config, *, now: float) -> Folder:
    folder = Folder(path, config)
    root, targets = make_signer(folder.offline_keys / "root.pem"), make_signer(folder.offline_keys / "targets.pem")
    online = OnlineSigners(
        snapshot=make_signer(folder.online_keys / "snapshot.pem"),
        timestamp=make_signer(folder.online_keys / "timestamp.pem"),
        policy=make_signer(folder.online_keys / "policy.pem"),
    )
    DeviceTokens.open(folder.online_keys / "device-tokens.key")
    today = datetime.fromtimestamp(now, UTC)
    first_root, first_targets = first_metadata(root=root, targets=targets, online=online, now=today)
    database = Database(folder.database_url)
    database.migrate()
    admin, enrol = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    with transaction(database, config.namespace) as stores:
        if stores.roles.newest():
            raise Conflict(
                f"the database holds a namespace {config.namespace!r} already; choose another name or database"
            )
        stores.roles.add_role("root", first_root)
        stores.roles.add_role("targets", first_targets)
        stores.roles.sign_snapshot_and_timestamp(online, now=today)
        stores.registry.add_secret(admin, kind="admin", name="first", at=now)
        stores.enrolments.add_token("first", [enrol], terms=EnrolTokenTerms(), at=now)
        write_durably(folder.root, stores.roles.role_bytes("root"))
        files = stores.roles.files_since(0)
        newest = stores.roles.newest()["timestamp"]
    asyncio.run(copy_files(Blobs.open(config.artifacts, base=path), config.namespace, files))
    with transaction(database, config.namespace) as stores:
        stores.roles.set_published(newest)
    database.close()
    write_durably(folder.admin_token, admin.encode() + b"\n", mode=0o600)
    write_durably(folder.enrol_token, enrol.encode() + b"\n", mode=0o600)
    return Folder.make(path, config)  # last: a folder without it is no repository


def migrate_repository(folder: Folder) -> Migration:
    """Bring the schema of a repository's database to this program's. Raises `Refused` for a newer one."""
    database = Database(folder.database_url)
    try:
        return database.migrate()
    finally:
        database.close()


@contextmanager
def open_repository(folder: Folder, *, clock: Callable[[], float] = time.time) -> Iterator[Repository]:
    """Open a repository. `clock`: POSIX seconds. Raises `Refused` where its database has not this program's schema."""
    database = Database(folder.database_url)
    try:
        database.check_schema()
        signers = OnlineSigners(
            snapshot=load_signer(folder.online_keys / "snapshot.pem"),
            timestamp=load_signer(folder.online_keys / "timestamp.pem"),
            policy=load_signer(folder.online_keys / "policy.pem"),
        )
        blobs = Blobs.open(folder.config.artifacts, base=folder.path)
        inbox: Inbox = (
            InboxTable(database)
            if folder.config.inbox == "table"
            else InboxNats(folder.config.inbox, stream=folder.config.inbox_stream)
        )
        controllers = Controllers(database, blobs, inbox, signers, clock=clock, evidence=folder.config.evidence)
        alerts = Alerts(database, folder.path, CurrentReceivers(folder), leads=controllers.leads_now, clock=clock)
        yield Repository(folder, database, blobs, inbox, signers, controllers, alerts, clock)
    finally:
        database.close()


def device_app(static: Static, devices: DeviceApi) -> App:
    """The ASGI application that devices reach: static files and the device API."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await route(scope, receive, watched)
        except Exception as error:
            reason = unforeseen(error)
            if begun:
                raise  # the connection is closed, so that the other side sees that the answer is cut
            status, body, headers = problem(reason)
            await respond(send, status, body, headers=headers, content_type=None)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        match = _PATH.match(path)
        if match is None:
            if path == "/healthz":
                await respond(send, 200, b"ok\n", content_type=b"text/plain")
                return
            status, body, headers = problem(NotFound("there is nothing at this path; see docs/reference/http.md"))
            await respond(send, status, body, headers=headers, content_type=None)
        elif match[2] == "device":
            version, _, name = match[3].partition("/")
            await devices.answer(scope, receive, send, namespace=match[1], name=name if version == "v1" else match[3])
        else:
            await static.answer(scope, send, namespace=match[1], path=f"{match[2]}/{match[3]}")

    return app


class Listening(msgspec.Struct, frozen=True):
    """Where a server listens."""

    devices: str
    admin: str


@asynccontextmanager
async def running(folder: Folder, *, listen: str, admin_listen: str) -> AsyncIterator[Listening]:
    """Run a whole server in this process, until the block ends. Ports may be 0. The database is brought up first.

    Raises `Unavailable` for a port in use and for a folder that cannot be written, `Refused` for a newer database.
    """
    began = time.monotonic()
    _prepare(folder)
    with open_repository(folder) as repository:
        repository.alerts.introduce()
        intake = Intake(repository.inbox, written=repository.controllers.wake)
        tokens, gatekeeper = DeviceTokens.open(folder.online_keys / "device-tokens.key"), Gatekeeper()
        access = AccessWatch(repository.database, gatekeeper, clock=repository.clock)
        access.read()  # before the first request
        apps: list[tuple[App, socket.socket]] = []
        try:
            static = Static(repository.blobs)
            devices = DeviceApi(
                repository.database,
                tokens,
                intake,
                clock=repository.clock,
                gatekeeper=gatekeeper,
                attestations=Attestations.open(folder.config.attestation, folder.path),
                certificates=folder.config.client_certificates,
            )
            apps.append((device_app(static, devices), bind(listen)))
            apps.append((admin_app(repository.admin_context(static.sent)), bind(admin_listen)))  # type: ignore[arg-type]
        except BaseException:
            for _, opened in apps:
                opened.close()
            raise
        if warning := exposed_admin(apps[1][1].getsockname()[0], _address(apps[1][1])):
            log.warning("%s", warning)
        servers = [_server(app) for app, _ in apps]
        tasks = [
            asyncio.create_task(server.serve(sockets=[opened]))
            for server, (_, opened) in zip(servers, apps, strict=True)
        ]
        loops = [
            asyncio.create_task(intake.run()),
            asyncio.create_task(access.run()),
            asyncio.create_task(repository.controllers.run()),
            asyncio.create_task(repository.controllers.run_builds()),
            asyncio.create_task(repository.alerts.run()),
        ]
        try:
            while not all(server.started for server in servers):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)
            listening = Listening(*(f"http://{_address(opened)}" for _, opened in apps))
            log.info("started", extra=fields(**_described(repository, listening)))
            yield listening
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks, return_exceptions=True)
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await repository.inbox.close()
            log.info("stopped", extra=fields(version=__version__, ran_s=round(time.monotonic() - began, 1)))


def _prepare(folder: Folder) -> None:
    """What is checked, and brought up, before anything listens."""
    database = Database(folder.database_url)
    try:
        check_folders(folder, database=database.folder)
        if warning := exposed_files(folder):
            log.warning("%s", warning)
        migration = database.migrate()
    finally:
        database.close()
    if migration.changed:
        log.info("the database was brought from the schema %s to %s", migration.before or "none", migration.after)


def _described(repository: Repository, listening: Listening) -> dict[str, object]:
    """A running server, for its log."""
    config = repository.folder.config
    return {
        "version": __version__,
        "folder": repository.folder.path,
        "namespace": config.namespace,
        "devices": listening.devices,
        "admin": listening.admin,
        "database": repository.database.kind,
        "artifacts": config.artifacts.partition("://")[0] if "://" in config.artifacts else "folder",
        "inbox": "table" if config.inbox == "table" else "NATS",
        "receivers": len(config.receivers),
        "pid": os.getpid(),
    }


async def serve_until_stopped(folder: Folder, *, listen: str, admin_listen: str) -> AsyncIterator[Listening]:
    """Run a server until SIGINT or SIGTERM. Yields once, when the server listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_on(number: signal.Signals) -> None:
        log.info("stopping: %s came", number.name)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop_on, number)
    async with running(folder, listen=listen, admin_listen=admin_listen) as listening:
        yield listening
        await stop.wait()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The event loop that a server runs on: uvloop's where it is installed (not on Windows), else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Quiet(uvicorn.Server):
    """A server that leaves signals to `serve_until_stopped`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: App) -> uvicorn.Server:
    return _Quiet(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # the peer's own address counts: `client_certificates` trusts it
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )


def bind(address: str) -> socket.socket:
    """A listening socket at `host:port`. Raises `UntrustedInput` for no such address, `Unavailable` for one in use."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UntrustedInput(f"{address!r} is no address; expected host:port, such as 127.0.0.1:8470")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol's number is what asyncio asks for before it sets TCP_NODELAY on a connection. `socket.create_server`
    # leaves it 0, and then each answer on a kept connection waits 40 ms for the other side's delayed acknowledgement.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, int(port)))
        opened.listen(_WAITING)
        return opened
    except OSError as error:
        opened.close()
        raise Unavailable(
            f"cannot listen on {address}: {error.strerror or error}; stop what uses it, or name another with --listen"
        ) from error


def _address(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
