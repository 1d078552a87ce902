"""How a server is put together: the one place where its parts meet, from a repository's folder to sockets.

1. There are two listeners, so that what devices reach holds no admin API: one for devices and static files, one for
   people (on loopback, unless the command line names another address). `whimbrel serve` runs the first one in a process
   of its own (`device_process`), so that what happens there slows no rollback.
2. `create_repository` makes a new repository. `open_repository` opens one, for a server, or for the command line that
   works on a folder without a server.
3. The clock of a server is given here. Nothing below asks the machine for the time.
"""

import asyncio
import logging
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from whimbrel import limits
from whimbrel.durable import write_durably
from whimbrel.errors import Conflict, Unavailable, WhimbrelError
from whimbrel.flows.accounts.permissions import Caller, Role
from whimbrel.flows.accounts.records import AccountRecord, TokenRecord
from whimbrel.flows.accounts.tokens import BOOTSTRAP
from whimbrel.flows.audit import audit
from whimbrel.flows.devices.records import EnrolTokenTerms
from whimbrel.flows.ports import Inbox
from whimbrel.server.addresses import LOOPBACK, Networks, address_of, bind
from whimbrel.server.admin.operations import AdminContext
from whimbrel.server.alerts import Alerts
from whimbrel.server.auth import DeviceTokens
from whimbrel.server.bounded_acts import BoundedActs
from whimbrel.server.config import FILE, Config, CurrentReceivers, Folder
from whimbrel.server.connection import Bounds
from whimbrel.server.controllers import Controllers
from whimbrel.server.descriptors import room_for
from whimbrel.server.device_listener import DeviceListener
from whimbrel.server.device_process import DeviceOrder, DeviceProcess
from whimbrel.server.listener import Listener
from whimbrel.server.logs import LogFormat, fields
from whimbrel.server.oidc import OidcProvider
from whimbrel.server.people_app import PeopleApp
from whimbrel.server.start_checks import check_folders, exposed_admin, exposed_files, offline_keys_beside
from whimbrel.server.static import BytesSent
from whimbrel.server.tls import Certificate, TlsFiles
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database, Migration
from whimbrel.stores.inbox import open_inbox
from whimbrel.stores.kept_release_keys import sealing_key_trouble
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.sealing_key import SealingKey
from whimbrel.stores.signer import make_signer
from whimbrel.stores.transaction import transaction
from whimbrel.stores.tuf_repository import copy_files, first_metadata
from whimbrel.version import __version__

log = logging.getLogger(__name__)


class Repository(msgspec.Struct, frozen=True):
    """An open repository. `clock` gives POSIX seconds to every part that needs the time."""

    folder: Folder
    database: Database
    blobs: Blobs
    inbox: Inbox
    signers: OnlineSigners
    controllers: Controllers
    alerts: Alerts
    acts: BoundedActs
    clock: Callable[[], float]

    def admin_context(self, sent: BytesSent | None = None, *, folder: Caller | None = None) -> AdminContext:
        """What the admin API works on. `folder`: who asks without a token, where it is a command's own."""
        settings = self.folder.config.oidc
        keys = KeyFolder(self.folder.online_keys)
        return AdminContext(
            self.database,
            self.blobs,
            self.controllers,
            self.alerts,
            self.signers,
            keys,
            self.clock,
            self.acts,
            SealingKey(self.folder.sealing_key),
            sent or BytesSent(),
            folder=folder,
            oidc=None if settings is None else OidcProvider(settings, clock=self.clock),
            second_person_for_keys=self.folder.config.second_person_for_keys,
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
    online = {name: make_signer(folder.online_keys / f"{name}.pem") for name in ("snapshot", "timestamp", "policy")}
    DeviceTokens.open(folder.online_keys / "device-tokens.key")
    today = datetime.fromtimestamp(now, UTC)
    first_root, first_targets = first_metadata(
        root=root,
        targets=targets,
        snapshot=online["snapshot"].public_key,
        timestamp=online["timestamp"].public_key,
        now=today,
    )
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
        stores.roles.sign_snapshot_and_timestamp(OnlineSigners(online.values()), now=today)
        stores.accounts.add_account(AccountRecord(name=BOOTSTRAP, kind="person", created_at=now))
        stores.accounts.add_token(_first_token(now=now), secret=admin)
        stores.enrolments.add_token("first", [enrol], terms=EnrolTokenTerms(), at=now)
        because = f"the namespace {config.namespace!r}, with its keys and two tokens"
        audit(stores.registry, actor="init", action="create_repository", because=because, now=now)
        write_durably(folder.root, stores.roles.role_bytes("root"))
        files = stores.roles.files_since(0)
        newest = stores.roles.newest()
    asyncio.run(copy_files(Blobs.open(config.artifacts, base=path), config.namespace, files))
    with transaction(database, config.namespace) as stores:
        stores.roles.set_published(newest["timestamp"], newest["root"])
    database.close()
    write_durably(folder.admin_token, admin.encode() + b"\n", mode=0o600)
    write_durably(folder.enrol_token, enrol.encode() + b"\n", mode=0o600)
    return Folder.make(path, config)  # last: a folder without it is no repository


def _first_token(*, now: float) -> TokenRecord:
    """The token of admin.token: it is good until somebody revokes it."""
    return TokenRecord(
        id=secrets.token_hex(6),
        name="first",
        account=BOOTSTRAP,
        kind="person",
        roles=(Role.ADMIN,),
        source="init",
        created_at=now,
        created_by="init",
    )


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
        signers = OnlineSigners.of(KeyFolder(folder.online_keys))
        blobs = Blobs.open(folder.config.artifacts, base=folder.path)
        inbox = open_inbox(folder.config.inbox, stream=folder.config.inbox_stream, database=database)
        receivers = CurrentReceivers(folder)
        controllers = Controllers(
            database,
            blobs,
            inbox,
            signers,
            clock=clock,
            evidence=folder.config.evidence,
            asking_for_anchors=lambda: receivers.asking_for("audit_anchor"),
            anchor_period_s=folder.config.audit_anchor_hours * 3600.0,
        )
        alerts = Alerts(database, folder.path, receivers, leads=controllers.leads_now, clock=clock)
        acts = BoundedActs(database, clock=clock)
        yield Repository(folder, database, blobs, inbox, signers, controllers, alerts, acts, clock)
        acts.write(all_of_it=True)
    finally:
        database.close()


class Served(msgspec.Struct, frozen=True):
    """How a server listens. `apart`: the device listener has a process of its own, where the system can do that.

    `proxies`: addresses or networks that are believed in what they say of their clients. `bounds`: of the device
    listener, for tests.
    """

    listen: str
    admin_listen: str
    tls: TlsFiles | None = None
    admin_tls: TlsFiles | None = None
    proxies: tuple[str, ...] = LOOPBACK
    apart: bool = False
    log_format: LogFormat = "text"
    verbose: bool = False
    bounds: Bounds = Bounds()


class Listening(msgspec.Struct, frozen=True):
    """Where a server listens. `read_certificates_again`: for new connections. `broken`: a listener ended by itself."""

    devices: str
    admin: str
    read_certificates_again: Callable[[], None]
    broken: asyncio.Event


@asynccontextmanager
async def running(folder: Folder, served: Served) -> AsyncIterator[Listening]:
    """Run a whole server, until the block ends. Ports may be 0. They are taken, and then the database is
    brought up, before anything is served.

    Raises `Unavailable` for a port in use and for a folder that cannot be written, `Refused` for a newer database,
    `UntrustedInput` for a certificate or an address that cannot be used.
    """
    began = time.monotonic()
    proxies = Networks(served.proxies)
    with ExitStack() as held:
        device_socket = held.enter_context(bind(served.listen))  # before the database is brought up: an older server
        admin_socket = held.enter_context(bind(served.admin_listen))  # that still runs has these ports
        _prepare(folder)
        repository = held.enter_context(open_repository(folder))
        certificate = Certificate(served.admin_tls, clock=repository.clock) if served.admin_tls else None
        devices = _device_side(repository, served, device_socket, proxies=proxies)
        repository.alerts.introduce()
        for_people = PeopleApp(repository.admin_context(devices.sent))
        people = Listener(
            for_people,
            admin_socket,
            name="admin",
            bounds=Bounds(connections=room_for(limits.ADMIN_CONNECTIONS)),
            proxies=proxies,
            certificate=certificate,
        )
        if certificate is None and (warning := exposed_admin(admin_socket.getsockname()[0], address_of(admin_socket))):
            log.warning("%s", warning)

        if warning := offline_keys_beside(folder):
            log.warning("%s", warning)
        if warning := sealing_key_trouble(repository.database, SealingKey(folder.sealing_key)):
            log.warning("%s", warning)

        def read_certificates_again() -> None:
            devices.read_certificate_again()
            if certificate is not None:
                certificate.read_again()

        listening = Listening(
            f"{'https' if served.tls else 'http'}://{address_of(device_socket)}",
            f"{'https' if served.admin_tls else 'http'}://{address_of(admin_socket)}",
            read_certificates_again,
            asyncio.Event(),
        )
        tasks = [asyncio.create_task(devices.run()), asyncio.create_task(people.run())]
        loops = [
            asyncio.create_task(repository.acts.run()),
            asyncio.create_task(repository.controllers.run()),
            asyncio.create_task(repository.controllers.run_builds()),
            asyncio.create_task(repository.alerts.run()),
        ]
        try:
            await _until_started(tasks, lambda: devices.started and people.started)
            for task in tasks:
                task.add_done_callback(lambda _: listening.broken.set())
            log.info("started", extra=fields(**_described(repository, listening)))
            yield listening
        finally:
            for_people.streams.close()
            people.stop()
            await devices.stop()
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(error, Exception) and not isinstance(error, WhimbrelError):  # those are told elsewhere
                    log.error("a listener ended by a fault", exc_info=error)
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await repository.inbox.close()
            log.info("stopped", extra=fields(version=__version__, ran_s=round(time.monotonic() - began, 1)))


async def _until_started(tasks: list[asyncio.Task[None]], started: Callable[[], bool]) -> None:
    """Return when all listen. Raises what one of them raises."""
    deadline = time.monotonic() + limits.DEVICE_PROCESS_START_S
    while not started():
        for task in tasks:
            if task.done():
                task.result()
        if time.monotonic() > deadline:
            raise Unavailable(f"this server does not listen after {limits.DEVICE_PROCESS_START_S:g} s; see its log")
        await asyncio.sleep(0.01)


def _device_side(
    repository: Repository, served: Served, opened: socket.socket, *, proxies: Networks
) -> DeviceListener | DeviceProcess:
    """The device listener, in this process or in one of its own."""
    wake = repository.controllers.wake.set
    if served.apart and os.name == "posix":
        DeviceTokens.open(repository.folder.online_keys / "device-tokens.key")  # made by one process alone
        if served.tls is not None:
            Certificate(served.tls, clock=repository.clock)  # what is wrong with it is said here
        order = DeviceOrder(
            folder=str(repository.folder.path),
            listen_fd=opened.fileno(),
            channel_fd=0,
            proxies=served.proxies,
            log_format=served.log_format,
            verbose=served.verbose,
            tls=served.tls,
        )
        return DeviceProcess(order, opened, sent=BytesSent(), written=wake)
    return DeviceListener(
        repository.folder,
        opened,
        database=repository.database,
        blobs=repository.blobs,
        inbox=repository.inbox,
        written=wake,
        clock=repository.clock,
        bounds=served.bounds,
        proxies=proxies,
        certificate=Certificate(served.tls, clock=repository.clock) if served.tls else None,
    )


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


async def serve_until_stopped(folder: Folder, served: Served) -> AsyncIterator[Listening]:
    """Run a server until SIGINT or SIGTERM. Yields once, when the server listens. SIGHUP: read certificates again.

    Raises what `running` raises, and `Unavailable` where a listener ended by itself.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_on(number: signal.Signals) -> None:
        log.info("stopping: %s came", number.name)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop_on, number)
    async with running(folder, served) as listening:
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, listening.read_certificates_again)
        yield listening
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(listening.broken.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        if listening.broken.is_set():
            raise Unavailable("a listener ended by a fault, so this server ends, too; see its log, and start it again")
