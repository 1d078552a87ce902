"""What happens when a person asks for something? The operations behind the admin API, each in one transaction.

Every change writes the audit log, and returns when the signed metadata says so too.
"""

import asyncio
import importlib.metadata
import json
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from whimbrel.errors import Conflict, NotAllowed, NotFound, Refused, UntrustedInput
from whimbrel.flows.publishing.build_deltas import write_index
from whimbrel.flows.publishing.publish import build_hash, check_budgets, check_unpublished
from whimbrel.flows.records import AuditRecord, ModelRecord, ModelSettings, VersionRecord
from whimbrel.flows.reports.history import history_of, inventory_of
from whimbrel.flows.versions import find_version
from whimbrel.model.documents import Document, convert, parse, plain
from whimbrel.model.ids import END, Name
from whimbrel.model.release import Line, Release
from whimbrel.model.ways import NOTHING
from whimbrel.plan.plan import VersionName
from whimbrel.server.alerts import Alerts
from whimbrel.server.auth import bearer
from whimbrel.server.controllers import Controllers
from whimbrel.server.static import BytesSent
from whimbrel.stores.blobs import Blobs
from whimbrel.stores.database import Database
from whimbrel.stores.signer import Key
from whimbrel.stores.transaction import Stores, transaction
from whimbrel.trust import roles

T = TypeVar("T")
Because = Annotated[str, Meta(max_length=2000)]
Actor = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+" + END)]  # a column, a line


class NewModel(Document, frozen=True):
    """POST models: the name, and what the targets and publisher keys signed for it."""

    name: Name
    targets: bytes  # the next top-level targets, with the model's delegations
    publisher: bytes  # publisher-<name>, version 1
    line: bytes  # models/<name>/line.json
    salt: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    settings: ModelSettings = msgspec.field(default_factory=ModelSettings)


class NewVersion(Document, frozen=True):
    """POST versions: the release document and the publisher's role that lists it."""

    release: bytes
    publisher: bytes


class NewLine(Document, frozen=True):
    """PUT line: the line document and the publisher's role that lists it."""

    line: bytes
    publisher: bytes
    because: Because = ""


class Reason(Document, frozen=True):
    """Who moves a rollout by hand, and why."""

    because: Because = ""
    actor: Actor = "admin"


class NewAlias(Document, frozen=True):
    """PUT alias: the version it names."""

    version: Annotated[str, Meta(max_length=256)]


Consent = Literal["approve", "reject"]


class AdminContext(msgspec.Struct, frozen=True):
    """What the admin API works on. `clock` gives POSIX seconds."""

    database: Database
    blobs: Blobs
    controllers: Controllers
    alerts: Alerts
    policy_key: Key
    clock: Callable[[], float]
    sent: BytesSent = msgspec.field(default_factory=BytesSent)


class Operations:
    """Every operation of the admin API, each in one transaction."""

    def __init__(self, context: AdminContext) -> None:
        self.context = context

    def now(self) -> float:
        """POSIX seconds, by the clock of this server."""
        return self.context.clock()

    async def admit(self, namespace: str, authorization: str | None) -> None:
        """Let the holder of an admin token in. Raises `NotAllowed`."""
        token = bearer(authorization)
        known = token and await self.do(namespace, lambda stores: stores.registry.secret_name(token, kind="admin"))
        if not known:
            raise NotAllowed("the admin API needs its token (Authorization: Bearer ...); init wrote it to admin.token")

    async def do(self, namespace: str, work: Callable[[Stores], T]) -> T:
        """Work in one transaction, off the event loop."""

        def inside() -> T:
            with transaction(self.context.database, namespace) as stores:
                return work(stores)

        return await asyncio.to_thread(inside)

    async def change(self, namespace: str, work: Callable[[Stores], T]) -> T:
        """The same, and return when the signed metadata says so too."""
        answer = await self.do(namespace, work)
        await self.context.controllers.settle()
        return answer

    def status(self, stores: Stores) -> dict[str, Any]:
        return {
            "version": importlib.metadata.version("whimbrel"),
            "namespace": stores.namespace,
            "models": len(stores.registry.models()),
            "devices": stores.fleet.count_devices(),
            "live_rollouts": len(stores.registry.rollouts(live=True)),
            "live_experiments": len(stores.experiments.all(live=True)),
            "timestamp_version": stores.roles.published_timestamp(),
            "sent": msgspec.structs.asdict(self.context.sent),
        }

    def add_model(self, stores: Stores, *, data: NewModel) -> dict[str, Any]:
        now = self.now()
        line = parse(Line, data.line, what="the line")
        if line.model != data.name:
            raise UntrustedInput(f"the line is of {line.model!r}; expected {data.name!r}")
        record = ModelRecord(
            namespace=stores.namespace, name=data.name, created_at=now, salt=data.salt, settings=data.settings
        )
        stores.registry.add_model(record)
        stores.roles.accept_delegation(data.targets, now=_utc(now))
        stores.roles.accept_publication(
            roles.publisher_role(data.name), data.publisher, {roles.line_path(data.name): data.line}, now=_utc(now)
        )
        stores.registry.write_audit(
            AuditRecord(
                namespace=stores.namespace,
                at=now,
                actor="admin",
                action="add model",
                because="delegated by the targets key",
                model=data.name,
            )
        )
        return plain(record)

    def set_model(self, stores: Stores, *, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        model = stores.registry.model(name)
        merged = msgspec.to_builtins(model.settings) | changes
        settings = convert(ModelSettings, merged, what="the settings")
        stores.registry.change_model(name, settings=settings)
        stores.registry.write_audit(
            AuditRecord(
                namespace=stores.namespace,
                at=self.now(),
                actor="admin",
                action="set model",
                because=", ".join(sorted(changes)),
                model=name,
                evidence=changes,
            )
        )
        return model_view(stores, stores.registry.model(name))

    def versions(self, stores: Stores, *, model: str) -> list[dict[str, Any]]:
        stores.registry.model(model)
        named: dict[int, list[str]] = {}
        for alias, serial in stores.registry.aliases(model).items():
            named.setdefault(serial, []).append(alias)
        running = stores.fleet.inventory(model)
        return [
            msgspec.to_builtins(v) | {"aliases": named.get(v.serial, []), "devices": running.get(v.serial, 0)}
            for v in stores.registry.versions(model)
        ]

    def version(self, stores: Stores, *, model: str, name: str) -> dict[str, Any]:
        version = _named(stores, model, name)
        release = json.loads(stores.registry.release_bytes(model, version.serial))
        return plain(version) | {"release": release}

    def history(self, stores: Stores, *, model: str, version: str | None) -> dict[str, Any]:
        stores.registry.model(model)
        published = stores.registry.published(model)
        target = None
        if version is not None:
            target = find_version([record for record, _ in published], _asked_version(model, version)).serial
        releases = {record.serial: release for record, release in published}
        steps = write_index(releases[target], stores.deltas.of(model)).steps if target is not None else ()
        running = inventory_of(
            stores.fleet.inventory(model),
            [record for record, _ in published],
            releases=releases,
            steps=steps,
            target=target,
        )
        return plain(history_of(stores.registry, stores.fleet, model, running=running))

    def publish(self, stores: Stores, *, model: str, data: NewVersion) -> dict[str, Any]:
        now = self.now()
        record = stores.registry.model(model)
        release = parse(Release, data.release, what="the release")
        before = stores.registry.versions(model)
        published = stores.registry.published(model)
        if release.model != model:
            raise UntrustedInput(f"the release is of {release.model!r}; expected {model!r}")
        check_unpublished(release, published)
        if release.serial != len(before) + 1:
            raise Conflict(f"serial {release.serial} came, {len(before) + 1} is next: somebody was first; try again")
        if release.build_hash != build_hash(release.variants):
            raise UntrustedInput(f"build hash {release.build_hash} does not belong to these files")
        check_budgets(release, record.settings)
        for file in (file for variant in release.variants for file in variant.files):
            stored = stores.registry.artifact_size(file.sha256)
            if stored is None:
                raise Refused(f"artifact {file.sha256} is not stored yet; send it first")
            if stored != file.size_bytes:  # budgets and devices go by the size that is signed
                raise UntrustedInput(f"{file.name} is said to have {file.size_bytes} bytes; {stored} are stored")
        path = roles.release_path(model, release.serial)
        stores.roles.accept_publication(
            roles.publisher_role(model), data.publisher, {path: data.release}, now=_utc(now)
        )
        first = record.baseline is None
        version = VersionRecord(
            namespace=stores.namespace,
            model=model,
            serial=release.serial,
            version=release.version,
            semantic_version=release.semantic_version,
            build_hash=release.build_hash,
            created_at=now,
            size_bytes=max(variant.size_bytes for variant in release.variants),
            good=first,
        )
        stores.registry.add_version(version, release=data.release, digests=release.digests)
        if first:  # nothing to compare it with: there is no rollout for the first one
            stores.registry.change_model(model, baseline=release.serial)
            stores.registry.set_alias(model, "champion", release.serial)
        stores.registry.write_audit(
            AuditRecord(
                namespace=stores.namespace,
                at=now,
                actor=roles.publisher_role(model),
                action="publish",
                because=f"{release.version} ({release.semantic_version}){', the first: it is the baseline' * first}",
                model=model,
                evidence={"serial": release.serial, "build_hash": release.build_hash},
            )
        )
        return plain(version) | {"baseline": first}

    def deltas(self, stores: Stores, *, model: str, name: str) -> dict[str, Any]:
        version = _named(stores, model, name)
        release = parse(Release, stores.registry.release_bytes(model, version.serial), what="a stored release")
        serials = {
            digest: before.version for before, known in stores.registry.published(model) for digest in known.digests
        }
        names = {file.sha256: f"{each.name}/{file.name}" for each in release.variants for file in each.files}
        rows = [
            msgspec.structs.asdict(delta)
            | {
                "from": "nothing" if delta.base == NOTHING else serials.get(delta.base),
                "file": names.get(delta.target),
            }
            for delta in stores.deltas.of(model)
            if delta.target in release.digests
        ]
        return {"model": model, "version": version.version, "deltas": rows}

    async def build_deltas(self, namespace: str, model: str) -> None:
        """Make the patches of a model that are missing, and list them."""
        await self.context.controllers.build_deltas(namespace, model=model)
        await self.context.controllers.settle()

    def retire(self, stores: Stores, *, model: str, name: str, data: Reason) -> dict[str, Any]:
        version = _named(stores, model, name)
        if stores.registry.model(model).baseline == version.serial:
            raise Refused(f"{model} {version.version} is the baseline; roll another version out first")
        for rollout in stores.registry.rollouts(model=model, live=True):
            if version.serial in {rollout.target, rollout.baseline}:
                raise Refused(f"{model} {version.version} is part of rollout {rollout.id}; abort it first")
        for experiment in stores.experiments.all(model=model, live=True):
            if version.serial == experiment.serials[experiment.plan.control_id]:  # an arm's is: it is stopped then
                raise Refused(f"{model} {version.version} is the control of {experiment.id}; stop it first")
        stores.registry.change_version(model, version.serial, retired=True)
        stores.registry.write_audit(
            AuditRecord(
                namespace=stores.namespace,
                at=self.now(),
                actor=data.actor,
                action="retire",
                because=data.because or "no reason given",
                model=model,
                evidence={"serial": version.serial},
            )
        )
        return plain(stores.registry.version(model, version.serial))

    def line(self, stores: Stores, *, model: str) -> dict[str, Any]:
        stores.registry.model(model)
        held = stores.roles.current_target(roles.publisher_role(model), roles.line_path(model))
        if held is None:
            raise NotFound(f"{model} has no line yet")
        return plain(parse(Line, held, what="the stored line"))

    def set_line(self, stores: Stores, *, model: str, data: NewLine) -> dict[str, Any]:
        now = self.now()
        stores.registry.model(model)
        line = parse(Line, data.line, what="the line")
        held = stores.roles.current_target(roles.publisher_role(model), roles.line_path(model))
        before = parse(Line, held, what="the stored line") if held else None
        if line.model != model:
            raise UntrustedInput(f"the line is of {line.model!r}; expected {model!r}")
        if before is not None and line.sequence != before.sequence + 1:
            raise Conflict(f"line sequence {line.sequence} came, and {before.sequence + 1} is next; try again")
        if before is not None and not (
            line.minimum_serial >= before.minimum_serial and set(line.revoked) >= set(before.revoked)
        ):
            raise Refused("a line only grows: its floor is never lowered, and a revocation is never taken back")
        stores.roles.accept_publication(
            roles.publisher_role(model), data.publisher, {roles.line_path(model): data.line}, now=_utc(now)
        )
        stores.registry.write_audit(
            AuditRecord(
                namespace=stores.namespace,
                at=now,
                actor=roles.publisher_role(model),
                action="set line",
                because=data.because or "no reason given",
                model=model,
                evidence=msgspec.to_builtins(line),
            )
        )
        return plain(line)

    def set_alias(self, stores: Stores, *, model: str, alias: str, name: str) -> dict[str, Any]:
        version = _named(stores, model, name)
        stores.registry.set_alias(model, convert(Name, alias, what="an alias"), version.serial)
        return {"model": model, "alias": alias, "version": version.version, "serial": version.serial}

    async def store(self, namespace: str, digest: str, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        path = f"{namespace}/artifacts/{digest}"
        size = await self.context.blobs.receive(path, chunks, sha256=digest)
        await self.do(namespace, lambda stores: stores.registry.add_artifact(digest, size_bytes=size, at=self.now()))
        return {"sha256": digest, "size_bytes": size}

    async def collect(self, namespace: str, older_than_s: float) -> dict[str, Any]:
        before = self.now() - older_than_s
        freed: list[str] = []
        size = 0
        for digest, size_bytes in await self.do(
            namespace, lambda stores: stores.registry.collectable(older_than=before)
        ):
            # Forgotten first: a file without a row is sent again at the next publication, a row without a file is not.
            def forget(stores: Stores, digest: str = digest) -> bool:
                if digest not in {one for one, _ in stores.registry.collectable(older_than=before)}:
                    return False
                stores.registry.forget_artifact(digest)
                stores.deltas.forget_target(digest)
                return True

            if await self.do(namespace, forget):
                await self.context.blobs.delete(f"{namespace}/artifacts/{digest}")
                freed.append(digest)
                size += size_bytes
        return {"collected": freed, "size_bytes": size}

    def alerts(self, stores: Stores, *, limit: int) -> list[dict[str, Any]]:
        rows = stores.alerts.newest(limit=limit)
        return [msgspec.to_builtins(row) for row in rows]

    def receivers(self) -> list[dict[str, Any]]:
        return [
            {"name": each.name, "form": each.form, "on": list(each.on)}
            for each in self.context.alerts.receivers.values()
        ]

    def new_enrol_token(self, stores: Stores, *, name: str) -> dict[str, str]:
        token = secrets.token_urlsafe(24)
        stores.registry.add_secret(token, kind="enrol", name=name, at=self.now())
        return {"name": name, "token": token}


def _utc(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _asked_version(model: str, text: str) -> VersionName:
    """The version as a plan says it. Raises `Refused` where it is no version of this model."""
    try:
        name = VersionName.parse(text)
    except ValueError as error:
        raise Refused(str(error)) from error
    if name.model != model:
        raise Refused(f"{text!r} is no version of {model!r}; ask about the model that it is a version of")
    return name


def _named(stores: Stores, model: str, name: str) -> VersionRecord:
    """A version by alias, serial, calendar or semantic version."""
    stores.registry.model(model)
    versions = stores.registry.versions(model)
    wanted = stores.registry.aliases(model).get(name)
    if wanted is None and name.isdigit() and len(name) < 16:
        wanted = int(name)
    if wanted is not None:
        return stores.registry.version(model, wanted)
    return find_version(versions, VersionName(model, name, prefix=False))


def model_view(stores: Stores, model: ModelRecord) -> dict[str, Any]:
    versions = {v.serial: v.version for v in stores.registry.versions(model.name)}
    view: dict[str, Any] = msgspec.to_builtins(model) | {
        "baseline_version": versions.get(model.baseline or 0),
        "versions": len(versions),
        "aliases": stores.registry.aliases(model.name),
        "devices": {versions.get(serial or 0, "none"): n for serial, n in stores.fleet.inventory(model.name).items()},
    }
    return view
