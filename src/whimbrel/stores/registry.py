"""The registry: models, versions, aliases, artifacts, rollouts, quarantine, secrets and leases.

A `Registry` lives as long as one transaction, in one namespace. It raises `Conflict` where somebody was first, and
`NotFound` where something does not exist.
"""

import functools
import hashlib
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, Table, and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from whimbrel.errors import Conflict, NotFound
from whimbrel.flows.audit_chain import ChainedEntry
from whimbrel.flows.records import (
    WATCHED_AFTER_HOURS,
    ApprovalRecord,
    AuditRecord,
    ModelRecord,
    ModelSettings,
    QuarantineRecord,
    RolloutRecord,
    VerdictRecord,
    VersionRecord,
)
from whimbrel.model.documents import parse
from whimbrel.model.release import Release
from whimbrel.model.selector import Selector
from whimbrel.plan.plan import Plan
from whimbrel.plan.ranges import Range
from whimbrel.plan.rollout_states import ENDED, LIVE, State
from whimbrel.policy.policy import SetLead
from whimbrel.stores import schema
from whimbrel.stores.audit_log import AuditLog
from whimbrel.stores.experiments import Experiments
from whimbrel.stores.rows import packed, upsert


class Registry:
    """The registry of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # --- models ---

    def add_model(self, model: ModelRecord) -> None:
        """Raises `Conflict` where the name is taken."""
        values = msgspec.structs.asdict(model) | {"settings": packed(model.settings)}
        if not upsert(self.connection, schema.models, values):
            raise Conflict(f"model {model.name!r} exists already; publish to it, or choose another name")

    def model(self, name: str, *, lock: bool = False) -> ModelRecord:
        """Raises `NotFound`, naming the models there are. `lock`: nobody else changes it in this transaction."""
        query = self._of(schema.models).where(schema.models.c.name == name)
        row = self.connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            names = ", ".join(model.name for model in self.models()) or "none yet"
            command = f"whimbrel model add {shlex.quote(name)}"
            raise NotFound(f"there is no model {name!r} (models: {names}); make it with: {command}")
        return _model(row)

    def models(self) -> list[ModelRecord]:
        """All of them, by name."""
        return [_model(row) for row in self._rows(schema.models, order=("name",))]

    def change_model(self, name: str, **changes: Any) -> None:
        """Set columns of a model."""
        if isinstance(changes.get("settings"), ModelSettings):
            changes["settings"] = packed(changes["settings"])
        self.connection.execute(
            update(schema.models).where(*self._key(schema.models), schema.models.c.name == name).values(**changes)
        )

    # --- versions ---

    def add_version(self, version: VersionRecord, *, release: bytes, digests: Iterable[str]) -> None:
        """Raises `Conflict` where the serial, version or semantic version is taken."""
        try:
            self.connection.execute(insert(schema.versions).values(**msgspec.structs.asdict(version), release=release))
        except IntegrityError as error:
            raise Conflict(
                f"{version.model} has a version {version.version} or {version.semantic_version} already"
            ) from error
        for sha256 in sorted(set(digests)):
            self.connection.execute(
                insert(schema.version_artifacts).values(
                    namespace=self.namespace, model=version.model, serial=version.serial, sha256=sha256
                )
            )

    def versions(self, model: str) -> list[VersionRecord]:
        """A model's versions, by serial."""
        return [_version(row) for row in self._rows(schema.versions, order=("serial",), model=model)]

    def version(self, model: str, serial: int) -> VersionRecord:
        """Raises `NotFound`."""
        return _version(self._version_row(model, serial))

    def release_bytes(self, model: str, serial: int) -> bytes:
        """The release document as it was signed. Raises `NotFound`."""
        return bytes(self._version_row(model, serial).release)

    def published(self, model: str) -> list[tuple[VersionRecord, Release]]:
        """A model's versions with their releases, by serial."""
        return [
            (version, parse(Release, self.release_bytes(model, version.serial), what="a stored release"))
            for version in self.versions(model)
        ]

    def change_version(self, model: str, serial: int, **changes: Any) -> None:
        """Set columns of a version (retired, good): never the release."""
        table = schema.versions
        self.connection.execute(
            update(table).where(*self._key(table), table.c.model == model, table.c.serial == serial).values(**changes)
        )

    def aliases(self, model: str) -> dict[str, int]:
        """Names that people gave to versions."""
        table = schema.aliases
        rows = self.connection.execute(self._of(table).where(table.c.model == model).order_by(table.c.alias))
        return {row.alias: row.serial for row in rows}

    def set_alias(self, model: str, alias: str, serial: int | None) -> None:
        """Point `alias` at a version; None takes it away."""
        table = schema.aliases
        if serial is None:
            self.connection.execute(
                delete(table).where(*self._key(table), table.c.model == model, table.c.alias == alias)
            )
            return
        values = {"namespace": self.namespace, "model": model, "alias": alias, "serial": serial}
        upsert(self.connection, table, values, update=("serial",))

    # --- artifacts ---

    def add_artifact(self, sha256: str, *, size_bytes: int, at: float) -> None:
        """Note that an artifact is stored. Its time is renewed, so that it is not collected before it is used."""
        values = {"namespace": self.namespace, "sha256": sha256, "size_bytes": size_bytes, "created_at": at}
        upsert(self.connection, schema.artifacts, values, update=("created_at",))

    def artifact_size(self, sha256: str) -> int | None:
        """Its size in bytes; None where it is not stored."""
        table = schema.artifacts
        return self.connection.execute(
            select(table.c.size_bytes).where(*self._key(table), table.c.sha256 == sha256)
        ).scalar_one_or_none()

    def collectable(self, *, older_than: float) -> list[tuple[str, int]]:
        """(digest, size) of artifacts that nothing holds.

        Held is what a version holds that is not retired, or is a baseline, good to go back to, part of a live rollout,
        or still runs on a device; and patches that lead to an artifact that is there.
        """
        v, va, a = schema.versions, schema.version_artifacts, schema.artifacts
        rollout, model, on_device = schema.rollouts, schema.models, schema.device_models
        same = and_(v.c.namespace == va.c.namespace, v.c.model == va.c.model, v.c.serial == va.c.serial)
        in_rollout = (
            select(rollout.c.id)
            .where(
                rollout.c.namespace == v.c.namespace,
                rollout.c.model == v.c.model,
                or_(rollout.c.target == v.c.serial, rollout.c.baseline == v.c.serial),
                rollout.c.state.in_([state.value for state in LIVE]),
            )
            .exists()
        )
        is_baseline = (
            select(model.c.name)
            .where(model.c.namespace == v.c.namespace, model.c.name == v.c.model, model.c.baseline == v.c.serial)
            .exists()
        )
        runs = (
            select(on_device.c.device_id)
            .where(
                on_device.c.namespace == v.c.namespace,
                on_device.c.model == v.c.model,
                on_device.c.serial == v.c.serial,
            )
            .exists()
        )
        held = (
            select(va.c.sha256)
            .join(v, same)
            .where(
                va.c.namespace == a.c.namespace,
                va.c.sha256 == a.c.sha256,
                or_(v.c.retired.is_(False), in_rollout, is_baseline, runs),
            )
            .exists()
        )
        d, to = schema.deltas, schema.artifacts.alias()
        way = (
            select(d.c.sha256)
            .join(to, and_(to.c.namespace == d.c.namespace, to.c.sha256 == d.c.target))
            .where(d.c.namespace == a.c.namespace, d.c.sha256 == a.c.sha256)
            .exists()
        )
        rows = self.connection.execute(
            select(a.c.sha256, a.c.size_bytes).where(*self._key(a), a.c.created_at < older_than, ~held, ~way)
        )
        return [(row.sha256, row.size_bytes) for row in rows]

    def forget_artifact(self, sha256: str) -> None:
        """Note that an artifact is no longer stored."""
        table = schema.artifacts
        self.connection.execute(delete(table).where(*self._key(table), table.c.sha256 == sha256))

    # --- rollouts ---

    def add_rollout(self, rollout: RolloutRecord, *, plan_text: str) -> None:
        """Raises `Conflict` where the id is taken."""
        values = _rollout_values(rollout) | {"plan_text": plan_text}
        if not upsert(self.connection, schema.rollouts, values):
            raise Conflict(f"there is a rollout {rollout.id!r} already")

    def rollout(self, identifier: str) -> RolloutRecord:
        """Raises `NotFound`."""
        table = schema.rollouts
        row = self.connection.execute(self._of(table).where(table.c.id == identifier)).one_or_none()
        if row is None:
            raise NotFound(f"there is no rollout {identifier!r}; see: whimbrel rollout list")
        return _rollout(row)

    def rollouts(self, *, model: str | None = None, live: bool = False, unended: bool = False) -> list[RolloutRecord]:
        """Rollouts, oldest first. `live`: those with a say in the policy; `unended`: those that may still move."""
        named = {} if model is None else {"model": model}
        query = _rollouts(tuple(named), live=live, unended=unended)
        return [_rollout(row) for row in self.connection.execute(query, named | {"namespace": self.namespace})]

    def watched_rollouts(self, model: str, *, now: float) -> list[RolloutRecord]:
        """Rollouts that have not ended, or that ended less than a day of their own hours ago; oldest first."""
        named = {"namespace": self.namespace, "model": model, "now": now}
        return [_rollout(row) for row in self.connection.execute(_watched_rollouts(), named)]

    def set_leads(self, model: str) -> list[SetLead]:
        """The versions of a model that rollouts carried in a set, each with the version that led it; oldest first."""
        rows = self.connection.execute(_set_leads(), {"namespace": self.namespace, "model": model})
        return list(dict.fromkeys(SetLead(serial=row[0], model=row[1], lead_serial=row[2]) for row in rows))

    def save_rollout(self, rollout: RolloutRecord, *, before: RolloutRecord) -> None:
        """Write its new state, when it still is as it was before. Raises `Conflict` otherwise."""
        table = schema.rollouts
        done = self.connection.execute(
            update(table)
            .where(
                *self._key(table),
                table.c.id == rollout.id,
                table.c.state == before.state.value,
                table.c.stage == before.stage,
            )
            .values(**_rollout_values(rollout))
        )
        if done.rowcount != 1:
            raise Conflict(f"rollout {rollout.id} was moved by somebody else meanwhile; look again")

    def add_approval(self, entry: ApprovalRecord) -> None:
        """Note that a person agreed."""
        self.connection.execute(
            insert(schema.approvals).values(namespace=self.namespace, **msgspec.structs.asdict(entry))
        )

    def approvals(self, rollout: str) -> list[ApprovalRecord]:
        """The approvals of a rollout, oldest first."""
        table = schema.approvals
        rows = self.connection.execute(self._of(table).where(table.c.rollout == rollout).order_by(table.c.id))
        return [
            ApprovalRecord(**{name: getattr(row, name) for name in ApprovalRecord.__struct_fields__}) for row in rows
        ]

    # --- quarantine, audit ---

    def quarantine(self, entry: QuarantineRecord) -> None:
        """Note that the fleet refuses a version from now on."""
        values = msgspec.structs.asdict(entry) | {"selector": packed(entry.selector)}
        self.connection.execute(insert(schema.quarantines).values(**values))

    def quarantines(self, model: str) -> list[QuarantineRecord]:
        """The versions of a model that the fleet refuses, oldest first."""
        table = schema.quarantines
        rows = self.connection.execute(
            self._of(table).where(table.c.model == model, table.c.lifted_at.is_(None)).order_by(table.c.id)
        )
        return [
            QuarantineRecord(
                namespace=row.namespace,
                model=row.model,
                serial=row.serial,
                at=row.at,
                because=row.because,
                selector=parse(Selector, row.selector, what="a stored selector"),
            )
            for row in rows
        ]

    def lift_quarantines(self, model: str, serial: int, *, at: float) -> None:
        """Lift the quarantines of a version: a person wants it offered again."""
        table = schema.quarantines
        self.connection.execute(
            update(table)
            .where(*self._key(table), table.c.model == model, table.c.serial == serial, table.c.lifted_at.is_(None))
            .values(lifted_at=at)
        )

    def overridden(self, model: str) -> list[int]:
        """Serials that a person had offered again: devices that refused them themselves try once more."""
        table = schema.quarantines
        rows = self.connection.execute(
            self._of(table).where(table.c.model == model, table.c.lifted_at.is_not(None)).order_by(table.c.id)
        )
        return sorted({row.serial for row in rows})

    def experiment_ranges(self, model: str) -> list[tuple[str, Range]]:
        """The bucket ranges of a model's live experiments, with their names."""
        live = Experiments(self.connection, self.namespace).all(model=model, live=True)
        return [(f"experiment {experiment.id}", experiment.range) for experiment in live]

    def write_verdict(self, entry: VerdictRecord) -> None:
        """Append a verdict of the gate."""
        self.connection.execute(
            insert(schema.verdicts).values(namespace=self.namespace, **msgspec.structs.asdict(entry))
        )

    def verdicts(self, rollout: str) -> list[VerdictRecord]:
        """The verdicts on a rollout, oldest first."""
        table = schema.verdicts
        rows = self.connection.execute(self._of(table).where(table.c.rollout == rollout).order_by(table.c.id))
        return [VerdictRecord(**{name: getattr(row, name) for name in VerdictRecord.__struct_fields__}) for row in rows]

    def write_audit(self, entry: AuditRecord) -> None:
        """Append to the audit log, which is a room of its own: `stores/audit_log`."""
        AuditLog(self.connection, self.namespace).add(entry)

    def audit_log(
        self, *, model: str | None = None, rollout: str | None = None, device: str | None = None, limit: int = 100
    ) -> list[ChainedEntry]:
        """The newest entries of that room, of one model, rollout or device."""
        return AuditLog(self.connection, self.namespace).newest(
            model=model, rollout=rollout, device=device, limit=limit
        )

    def _key(self, table: Any) -> tuple[Any, ...]:
        return (table.c.namespace == self.namespace,)

    def _of(self, table: Any) -> Any:
        return select(table).where(*self._key(table))

    def _rows(self, table: Table, *, order: tuple[str, ...], **named: object) -> Sequence[Row[Any]]:
        query = _query(table, order, tuple(named))
        return self.connection.execute(query, named | {"namespace": self.namespace}).all()

    def _version_row(self, model: str, serial: int) -> Row[Any]:
        table = schema.versions
        row: Row[Any] | None = self.connection.execute(
            self._of(table).where(table.c.model == model, table.c.serial == serial)
        ).one_or_none()
        if row is None:
            raise NotFound(f"{model} has no version with serial {serial}; see: whimbrel version list --model {model}")
        return row


def hashed(secret: str) -> str:
    """A secret as it is stored: its SHA-256, which is enough, since secrets are random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


def take_lease(connection: Connection, name: str, *, holder: str, now: float, life_s: float) -> bool:
    """Take or renew a lease that is free, over, or `holder`'s own. Returns whether `holder` has it now."""
    table = schema.leases
    mine_or_over = or_(table.c.holder == holder, table.c.until < now)
    done = connection.execute(
        update(table).where(table.c.name == name, mine_or_over).values(holder=holder, until=now + life_s)
    )
    if done.rowcount == 1:
        return True
    return upsert(connection, table, {"name": name, "holder": holder, "until": now + life_s})


def drop_lease(connection: Connection, name: str, *, holder: str) -> None:
    """Drop a lease, so that another holder may take it at once."""
    table = schema.leases
    connection.execute(delete(table).where(table.c.name == name, table.c.holder == holder))


def namespaces(connection: Connection) -> list[str]:
    """Namespaces that have a repository."""
    return list(connection.execute(select(func.distinct(schema.role_documents.c.namespace))).scalars())


def _model(row: Row[Any]) -> ModelRecord:
    return ModelRecord(
        namespace=row.namespace,
        name=row.name,
        created_at=row.created_at,
        salt=row.salt,
        settings=parse(ModelSettings, row.settings, what=f"the settings of {row.name}"),
        baseline=row.baseline,
    )


def _version(row: Row[Any]) -> VersionRecord:
    return VersionRecord(**{name: getattr(row, name) for name in VersionRecord.__struct_fields__})


def _rollout_values(rollout: RolloutRecord) -> dict[str, Any]:
    return msgspec.structs.asdict(rollout) | {
        "plan": packed(rollout.plan),
        "shares": packed(rollout.shares),
        "without": packed(rollout.without),
        "delays": packed(rollout.delays),
        "delays_by_class": packed(rollout.delays_by_class),
        "members": packed(rollout.members),
        "state": rollout.state.value,
    }


@functools.cache  # to build a statement costs as much as to run it
def _query(table: Table, order: tuple[str, ...], named: tuple[str, ...]) -> Select[Any]:
    conditions = [table.c[name] == bindparam(name) for name in ("namespace", *named)]
    return select(table).where(*conditions).order_by(*(table.c[name] for name in order))


@functools.cache
def _rollouts(named: tuple[str, ...], *, live: bool, unended: bool) -> Select[Any]:
    state, query = schema.rollouts.c.state, _query(schema.rollouts, ("created_at", "id"), named)
    if live:
        query = query.where(state.in_([live_state.value for live_state in LIVE]))
    if unended:
        query = query.where(state.not_in([ended_state.value for ended_state in ENDED]))
    return query


@functools.cache
def _watched_rollouts() -> Select[Any]:
    table = schema.rollouts
    lately = table.c.ended_at + WATCHED_AFTER_HOURS * table.c.hour_s > bindparam("now")
    unended = table.c.state.not_in([ended_state.value for ended_state in ENDED])
    return _query(table, ("created_at", "id"), ("model",)).where(or_(unended, lately))


@functools.cache
def _set_leads() -> Select[Any]:
    carried, lead = schema.rollouts, schema.rollouts.alias("lead")
    return (
        select(carried.c.target, lead.c.model, lead.c.target)
        .join(lead, (lead.c.namespace == carried.c.namespace) & (lead.c.id == carried.c.lead))
        .where(carried.c.namespace == bindparam("namespace"), carried.c.model == bindparam("model"))
        .order_by(carried.c.created_at, carried.c.id)
    )


@functools.lru_cache(maxsize=256)  # a plan stays as it is, and is asked for in every round
def _plan(content: bytes, rollout: str) -> Plan:
    return parse(Plan, content, what=f"the plan of rollout {rollout}")


def _rollout(row: Row[Any]) -> RolloutRecord:
    values = {name: getattr(row, name) for name in RolloutRecord.__struct_fields__}
    values["plan"] = _plan(row.plan, row.id)
    values["without"] = parse(tuple[str, ...], bytes(row.without) or b"[]", what=f"the slices of rollout {row.id}")
    values["delays"] = parse(tuple[float, ...], bytes(row.delays) or b"[]", what=f"the delays of rollout {row.id}")
    values["delays_by_class"] = parse(
        dict[str, tuple[float, ...]], bytes(row.delays_by_class) or b"{}", what=f"the delays of rollout {row.id}"
    )
    values["members"] = parse(tuple[str, ...], bytes(row.members) or b"[]", what=f"the set of rollout {row.id}")
    values["shares"] = parse(tuple[int, ...], row.shares, what=f"the shares of rollout {row.id}")
    values["state"] = State(row.state)
    return RolloutRecord(**values)
