"""The server in this process: its real applications on stores in memory, with no socket, no thread and no waiting.

1. `server_in_memory(versions=N)` opens one: the admin API, the device API with its intake, the static files and the
   controllers are the product's own, and speak through their ASGI seam to httpx clients (`people`, `public`).
2. Its database is SQLite in memory, a copy of one that was made once in this process (sqlite3's backup: 25 migrations
   in half a millisecond). Its blob store is the product's own on obstore's store in memory.
3. Everything happens in one thread: what a server gives to a thread is done at once, as in `sim/inline_loop`.
4. The time is `clock.now`, and stands still until a test moves it. Whatever waits (`asyncio.sleep`) waits really.
   Opened and closed it costs 5 ms, a question to the admin API 2 ms, a change with its round of the controllers 10 ms.
5. The admin API as an application is made once in a process, because that takes a second: each server lends it its
   operations for a request.
"""

import asyncio
import functools
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
from litestar import Litestar
from litestar.routes import HTTPRoute
from obstore.store import MemoryStore

from support.repository import file_of
from support.values import SALT, T0
from whimbrel.flows.accounts.permissions import Caller, Role
from whimbrel.flows.accounts.tokens import NewToken, make_token
from whimbrel.flows.publishing.accept_version import accept_version
from whimbrel.flows.publishing.add_model import add_model
from whimbrel.flows.publishing.publish import identify, write_release
from whimbrel.flows.records import ModelSettings
from whimbrel.model.documents import digest_of, encode
from whimbrel.model.release import Line, Release, Training, Variant
from whimbrel.server.addresses import LOOPBACK, Networks
from whimbrel.server.admin.app import admin_app
from whimbrel.server.admin.operations import AdminContext, Operations
from whimbrel.server.alerts import Alerts
from whimbrel.server.app import Repository, create_repository
from whimbrel.server.attestation import Attestations
from whimbrel.server.auth import DeviceTokens, Gatekeeper
from whimbrel.server.bounded_acts import BoundedActs
from whimbrel.server.config import Config, CurrentReceivers, Folder
from whimbrel.server.controllers import Controllers
from whimbrel.server.device_api import DeviceApi
from whimbrel.server.device_listener import device_app
from whimbrel.server.http import App, Receive, Scope, Send
from whimbrel.server.intake import Intake
from whimbrel.server.static import Static
from whimbrel.sim.inline_loop import InlineLoop
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.inbox_table import InboxTable
from whimbrel.stores.key_folder import KeyFolder
from whimbrel.stores.online_signers import OnlineSigners
from whimbrel.stores.sealing_key import SealingKey
from whimbrel.stores.signer import load_signer
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.stores.tuf_repository import delegate_model, publish_documents
from whimbrel.trust import roles

NAMESPACE, MODEL = "default", "wake"
ADDRESS = "192.0.2.1"  # where requests come from, unless a test says another one
_MADE_BY = Caller(account="admin", kind="person", roles=(Role.ADMIN,))


class Clock:
    """The time of a server: POSIX seconds that stand still."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class OneThread(asyncio.SelectorEventLoop):
    """An event loop that does at once what is given to a thread. It sleeps where it waits, as for the blob store."""

    run_in_executor = InlineLoop.run_in_executor


class BlobsInMemory(Blobs):
    """The product's blob store in memory. `written`: the paths in the order in which they were put. `fails`: raised."""

    def __init__(self, files: dict[str, bytes]) -> None:
        store = MemoryStore()
        for path, content in files.items():
            store.put(path, content)
        super().__init__(store)
        self.written: list[str] = []
        self.fails: Exception | None = None

    async def put(self, path: str, content: bytes) -> None:
        if self.fails is not None:
            raise self.fails
        await super().put(path, content)
        self.written.append(path)


class ServerInMemory:
    """A server without listeners. What it is made of can be reached; see `server_in_memory`."""

    def __init__(self, folder: Folder, database: Database, files: dict[str, bytes], *, now: float) -> None:
        self.loop = OneThread()
        self.clock = Clock(now)
        self.folder, self.database = folder, database
        self.blobs = BlobsInMemory(files)
        self.inbox = InboxTable(database)
        self.signers = OnlineSigners.of(KeyFolder(folder.online_keys))
        receivers = CurrentReceivers(folder)
        self.controllers = self.new_controllers(receivers)
        self.acts = BoundedActs(database, clock=self.clock)
        self.alerts = Alerts(database, folder.path, receivers, leads=self.controllers.leads_now, clock=self.clock)
        self.repository = Repository(
            folder,
            database,
            self.blobs,
            self.inbox,
            self.signers,
            self.controllers,
            self.alerts,
            self.acts,
            self.clock,
        )
        self.admin = self.admin_over(self.repository.admin_context())
        self.gatekeeper = Gatekeeper()
        self.tokens = DeviceTokens.open(folder.online_keys / "device-tokens.key")
        self.intake = Intake(self.inbox, written=self.controllers.wake.set)
        self.static = Static(self.blobs)
        self.device_api = DeviceApi(
            database,
            self.tokens,
            self.intake,
            clock=self.clock,
            gatekeeper=self.gatekeeper,
            acts=self.acts,
            attestations=Attestations.open(folder.config.attestation, folder.path),
            certificates=folder.config.client_certificates,
            draw_cohort_key=lambda device_id: device_id,  # so that a test knows the bucket of a name
            sealing_key=SealingKey(folder.sealing_key),
        )
        self.devices = device_app(self.static, self.device_api, Networks(LOOPBACK))
        self._tasks: list[asyncio.Task[None]] = []

    # --- parts ---

    def new_controllers(self, receivers: CurrentReceivers | None = None) -> Controllers:
        """Controllers as another process has them, with a memory and a lease of their own."""
        receivers = receivers or CurrentReceivers(self.folder)
        return Controllers(
            self.database,
            self.blobs,
            self.inbox,
            self.signers,
            clock=self.clock,
            evidence=self.folder.config.evidence,
            asking_for_anchors=lambda: receivers.asking_for("audit_anchor"),
            anchor_period_s=self.folder.config.audit_anchor_hours * 3600.0,
        )

    def admin_over(self, context: AdminContext) -> App:
        """The admin API on another context: with a provider, a second person for keys, or somebody's folder."""
        application, operations = _application(context), Operations(context)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            application.state["operations"] = operations
            await cast(App, application)(scope, receive, send)

        return app

    def run(self, work: Any) -> Any:
        """The result of a coroutine, with the intake running beside it."""
        return self.loop.run_until_complete(self._beside_intake(work))

    async def _beside_intake(self, work: Any) -> Any:
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self.intake.run()))
        return await work

    def round(self) -> None:
        """One round of the controllers."""
        self.run(self.controllers.round())

    @contextmanager
    def stores(self) -> Iterator[Stores]:
        """One transaction."""
        with transaction(self.database, NAMESPACE) as stores:
            yield stores

    def close(self) -> None:
        """End the intake and the loop."""
        self.loop.run_until_complete(self._end_tasks())
        self.loop.close()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- clients ---

    def client(self, app: App, *, base: str, token: str | None = None, address: str = ADDRESS) -> httpx.Client:
        """An httpx client whose requests `app` answers in this thread. Paths are below `base`."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        transport = _InThisThread(self, app, address)
        return httpx.Client(base_url=f"http://server{base}", headers=headers, transport=transport)

    def people(self, token: str | None = None, *, app: App | None = None, address: str = ADDRESS) -> httpx.Client:
        """A client of the admin API, by default with the first admin's token. '' is no token."""
        token = self.admin_token if token is None else token or None
        return self.client(app or self.admin, base=f"/{NAMESPACE}/admin/v1", token=token, address=address)

    def public(self, token: str | None = None, *, address: str = ADDRESS) -> httpx.Client:
        """A client of the devices' listener, below the namespace: `/device/v1/...`, `/metadata/...`."""
        return self.client(self.devices, base=f"/{NAMESPACE}", token=token, address=address)

    @property
    def admin_token(self) -> str:
        """The token of `init`."""
        return self.folder.admin_token.read_text().strip()

    @property
    def enrol_token(self) -> str:
        """The token that lets devices in, of `init`."""
        return self.folder.enrol_token.read_text().strip()

    def token(self, name: str, *given: Role | str, person: str | None = None, days: float = 90.0) -> str:
        """The text of a new token: a machine's, or a `person`'s."""
        secret = f"secret-of-{name}"
        asked = NewToken(
            name=name,
            account=person or name,
            kind="person" if person else "machine",
            roles=tuple(map(Role, given)),
            days=days,
        )
        with self.stores() as stores:
            make_token(
                stores.accounts,
                stores.registry,
                asked,
                caller=_MADE_BY,
                identifier=digest_of(name.encode())[:12],
                secret=secret,
                provider=False,
                now=self.clock.now,
            )
        return secret

    def person(self, name: str, *given: Role | str) -> httpx.Client:
        """A person's client of the admin API. Without roles: a releaser."""
        return self.people(self.token(f"{name}-token", *(given or (Role.RELEASER,)), person=name))

    def machine(self, name: str, *given: Role | str) -> httpx.Client:
        """A machine's client of the admin API."""
        return self.people(self.token(name, *given))

    def device(self, device_id: str = "dev-1", **labels: str) -> httpx.Client:
        """The client of a device that enrols now with the token of `init`, and has a token."""
        body = {"device_id": device_id, "enrol_token": self.enrol_token, "takes_cohort_key": True, "labels": labels}
        with self.public() as http:
            credential = http.post("/device/v1/enrol", json=body).raise_for_status().json()
            token = http.post("/device/v1/token", json=credential).raise_for_status().json()["token"]
        return self.public(token)

    # --- what publishers do ---

    @property
    def today(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now, UTC)

    def add_model(self, model: str = MODEL, *, salt: int = SALT, **settings: Any) -> None:
        """Add a model, signed with the offline keys. The next round publishes it."""
        online = load_signer(self.folder.online_keys / "policy.pem")
        line = encode(Line(model=model, sequence=1))
        with self.stores() as stores:
            add_model(
                stores.registry,
                stores.roles,
                model,
                targets=delegate_model(
                    stores.roles.role_bytes(roles.TARGETS),
                    model,
                    publisher=self.publisher.public_key,
                    policy=online.public_key,
                    signer=load_signer(self.folder.offline_keys / "targets.pem"),
                    now=self.today,
                ),
                publisher=publish_documents(
                    None, {roles.line_path(model): line}, signer=self.publisher, now=self.today
                ),
                line=line,
                salt=salt,
                settings=ModelSettings(**settings),
                now=self.clock.now,
            )

    @property
    def publisher(self) -> Any:
        """The key that signs all versions here: the one of the targets role, as a small repository may have it."""
        return load_signer(self.folder.offline_keys / "targets.pem")

    def signed(self, model: str, documents: dict[str, bytes]) -> bytes:
        """The publisher role of a model with further documents, signed."""
        with self.stores() as stores:
            held = stores.roles.role_bytes(roles.publisher_role(model))
        return publish_documents(held, documents, signer=self.publisher, now=self.today)

    def release(self, *contents: bytes, model: str = MODEL, **changes: Any) -> Release:
        """The document of a next version: each of `contents` is an artifact, stored now, and a variant of its own."""
        with self.stores() as stores:
            before = stores.registry.versions(model)
            for content in contents:
                stores.registry.add_artifact(digest_of(content), size_bytes=len(content), at=self.clock.now)
        for content in contents:
            self.run(self.blobs.put(f"{NAMESPACE}/artifacts/{digest_of(content)}", content))
        variants = [Variant(name=f"v{n}", files=(file_of(content),)) for n, content in enumerate(contents)]
        identity = identify(
            before, variants=variants, version=None, semantic_version=f"{len(before) + 1}.0.0", now=self.today
        )
        fields: dict[str, Any] = {"training": Training(), "metrics": {}, "changelog": (), "now": self.today} | changes
        return write_release(model, identity, variants=variants, **fields)

    def publish(self, *contents: bytes, model: str = MODEL, **changes: Any) -> Release:
        """Publish a next version (`wake@2.0.0` is the second). The next round signs what follows from it."""
        if not contents:
            with self.stores() as stores:
                contents = (f"{model} {len(stores.registry.versions(model)) + 1}".encode(),)
        release = self.release(*contents, model=model, **changes)
        publisher = self.signed(model, {roles.release_path(model, release.serial): encode(release)})
        with self.stores() as stores:
            accept_version(
                stores.registry,
                stores.roles,
                model,
                release=encode(release),
                publisher=publisher,
                now=self.clock.now,
            )
        return release


class _InThisThread(httpx.BaseTransport):
    """Requests of a usual client, answered by an ASGI application on the server's loop."""

    def __init__(self, server: ServerInMemory, app: App, address: str) -> None:
        self._server = server
        self._asgi = httpx.ASGITransport(cast(Any, app), client=(address, 40000))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return cast(httpx.Response, self._server.run(self._answer(request)))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        sync = cast(httpx.SyncByteStream, request.stream)

        class Chunks(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in sync:
                    yield chunk

        asked = httpx.Request(
            request.method, request.url, headers=request.headers, stream=Chunks(), extensions=request.extensions
        )
        answer = await self._asgi.handle_async_request(asked)
        content = b"".join([chunk async for chunk in cast(httpx.AsyncByteStream, answer.stream)])
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(content))


# --- templates ---


class _Template(msgspec.Struct, frozen=True):
    """A server that was made once: a folder with its keys and tokens, the files, and the database."""

    folder: Path
    config: Config
    files: dict[str, bytes]
    rows: sqlite3.Connection


@contextmanager
def server_in_memory(*, versions: int = 2, **config: Any) -> Iterator[ServerInMemory]:
    """A server with a model `wake` and some versions of it; without versions there is no model. `config`: settings.

    Its time is T0, when the repository was made. What was published is signed and copied.
    """
    template = _template(versions)
    database = _copy_of(template.rows)
    with tempfile.TemporaryDirectory(prefix="whimbrel-tests-", dir=_IN_MEMORY) as within:
        path = Path(within) / "repo"
        shutil.copytree(template.folder, path)
        folder = Folder(path, msgspec.structs.replace(template.config, **config))
        server = ServerInMemory(folder, database, template.files, now=T0)
        try:
            yield server
        finally:
            server.close()
            _FREE.databases.append(database)


_APPLICATION: list[Litestar] = []


class _Free(threading.local):
    """Databases in memory that no test of this thread uses now, with what they have compiled."""

    def __init__(self) -> None:
        self.databases: list[Database] = []


_FREE = _Free()


def _application(context: AdminContext) -> Litestar:
    """The admin API, made for the first who asks."""
    if not _APPLICATION:
        _APPLICATION.append(admin_app(context))
    return _APPLICATION[0]


def _copy_of(rows: sqlite3.Connection) -> Database:
    """A database in memory that holds what `rows` holds."""
    if _FREE.databases:
        database = _FREE.databases.pop()
        try:
            _copy_rows(rows, database)
            return database
        except sqlite3.OperationalError:  # an error that a test keeps holds a cursor of it
            database.close()
    database = Database("sqlite://")
    _copy_rows(rows, database)
    return database


def admin_routes() -> list[HTTPRoute]:
    """The routes of the admin API, as its application has them."""
    if not _APPLICATION:
        with server_in_memory(versions=0):
            pass
    return [route for route in _APPLICATION[0].routes if isinstance(route, HTTPRoute)]


def _copy_rows(rows: sqlite3.Connection, database: Database) -> None:
    """Have the database in memory hold what `rows` holds, and nothing else."""
    raw = database.engine.raw_connection()
    try:
        rows.backup(cast(sqlite3.Connection, raw.driver_connection))
    finally:
        raw.close()


@functools.cache
def _template(versions: int) -> _Template:
    made = _repository()
    if versions == 0:
        return made
    with server_in_memory(versions=versions - 1) as server:
        if versions == 1:
            server.add_model()
        server.publish()
        server.round()
        server.controllers.leader.resign()
        rows = sqlite3.connect(":memory:", check_same_thread=False)  # tests of several threads copy it
        raw = server.database.engine.raw_connection()
        cast(sqlite3.Connection, raw.driver_connection).backup(rows)
        raw.close()
        store = server.blobs._store
        files = {each["path"]: bytes(store.get(each["path"]).bytes()) for page in store.list() for each in page}
    return _Template(made.folder, made.config, files, rows)


@functools.cache
def _repository() -> _Template:
    """A new repository with its keys, as `init` makes it, made once."""
    within = Path(_WITHIN.name) / "repo"
    folder = create_repository(within, Config(), clock=lambda: T0)
    file = sqlite3.connect(within / "whimbrel.db")
    file.execute("PRAGMA journal_mode=DELETE")  # a copy in memory has no write-ahead log
    rows = sqlite3.connect(":memory:", check_same_thread=False)  # tests of several threads copy it
    file.backup(rows)
    file.close()
    files = {
        path.relative_to(within / "files").as_posix(): path.read_bytes()
        for path in (within / "files").rglob("*")
        if path.is_file()
    }
    shutil.rmtree(within / "files")
    for name in os.listdir(within):
        if name.startswith("whimbrel.db"):
            (within / name).unlink()
    return _Template(within, folder.config, files, rows)


_IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # for a folder, where the system has such a place
_WITHIN = tempfile.TemporaryDirectory(prefix="whimbrel-tests-", dir=_IN_MEMORY)
