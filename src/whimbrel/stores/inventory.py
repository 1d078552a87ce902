"""The enrolled devices as people look at them and govern them: pages by id, labels of operators, blocks, removals.

A page is read by the primary key, behind the last id of the page before it (keyset pagination).
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    FromClause,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from whimbrel import limits
from whimbrel.errors import NotFound
from whimbrel.flows.device_records import RunningVersion
from whimbrel.flows.devices.records import (
    BuildOnDevice,
    DeviceAccess,
    DeviceFilter,
    DevicePortion,
    DeviceRecord,
    DuplicateIdentity,
    ModelOnDevice,
    Waiting,
    all_labels,
)
from whimbrel.health.report import Build
from whimbrel.model.documents import parse
from whimbrel.stores import schema
from whimbrel.stores.admissions import admit
from whimbrel.stores.rows import packed, portions, upsert

_ACCESS, _DUPLICATE = "access_", "duplicate_"  # prefixes of joined columns
_OF_A_DEVICE = (schema.devices, schema.device_models, schema.device_duplicates)  # rows that end with it


_WAITS = (
    update(schema.device_models)
    .where(
        schema.device_models.c.namespace == bindparam("of"),
        schema.device_models.c.device_id == bindparam("who"),
        schema.device_models.c.model == bindparam("which"),
    )
    .values(waits_for=bindparam("reason"), waits_told_at=bindparam("told_at"))
)
_BUILDS = (
    update(schema.device_models)
    .where(
        schema.device_models.c.namespace == bindparam("of"),
        schema.device_models.c.device_id == bindparam("who"),
        schema.device_models.c.model == bindparam("which"),
    )
    .values(build_serial=bindparam("of_serial"), variant=bindparam("named"), build=bindparam("told"))
)


class Inventory:
    """The inventory of one namespace, within one transaction."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self.connection = connection
        self.namespace = namespace

    # --- looked at ---

    def device(self, device_id: str) -> DeviceRecord:
        """One enrolled device. Raises `NotFound`."""
        query = self._devices().where(schema.devices.c.device_id == device_id)
        row = self.connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"no device {device_id!r} is enrolled; see: whimbrel device list")
        return _device(row)

    def look(self, asked: DeviceFilter, *, after: str, limit: int) -> DevicePortion:
        """Look at the first `limit` devices behind the id `after`, by id: those whose labels match."""
        table, models = schema.devices, schema.device_models
        query = self._devices().where(table.c.device_id > after)
        if asked.model is not None:
            follows = [
                models.c.namespace == table.c.namespace,
                models.c.device_id == table.c.device_id,
                models.c.model == asked.model,
            ]
            if asked.runs is not None:
                serials = [serial for serial in asked.runs if serial is not None]
                without = [models.c.serial.is_(None)] if None in asked.runs else []
                follows.append(or_(models.c.serial.in_(serials), *without))
            query = query.where(select(models.c.model).where(*follows).exists())
        if asked.heard_before is not None:
            query = query.where(table.c.seen_at < asked.heard_before)
        if asked.blocked:
            query = query.where(self._among(schema.device_access, schema.device_access.c.state == "blocked"))
        if asked.duplicate:
            noticed = schema.device_duplicates.c.noticed_at.is_not(None)
            query = query.where(self._among(schema.device_duplicates, noticed))
        rows = self.connection.execute(query.order_by(table.c.device_id).limit(limit)).all()
        # Most devices of a fleet have the labels of many others: each set of them is read and matched once.
        matches = functools.cache(lambda *labels: asked.selector.matches(_merged(*labels)))
        matching = [_device(row) for row in rows if matches(row.labels, row.operator_labels)]
        return DevicePortion(matching, len(rows), rows[-1].device_id if rows else after)

    def count_heard_before(self, at: float) -> int:
        """How many enrolled devices were not heard of since. `at`: POSIX seconds."""
        table = schema.devices
        query = select(func.count()).where(table.c.namespace == self.namespace, table.c.seen_at < at)
        return int(self.connection.execute(query).scalar_one())

    def count_duplicates(self) -> int:
        """How many ids were noticed to be used by two installations."""
        table = schema.device_duplicates
        query = select(func.count()).where(table.c.namespace == self.namespace, table.c.noticed_at.is_not(None))
        return int(self.connection.execute(query).scalar_one())

    def _among(self, few: Table, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """Whether a device is among those of a small table: it is read first, and not the devices."""
        named = select(few.c.device_id).where(few.c.namespace == self.namespace, condition)
        return schema.devices.c.device_id.in_(named)

    def models_of(self, devices: Sequence[str]) -> list[ModelOnDevice]:
        """What some devices run, by model."""
        table = schema.device_models
        query = select(table).where(table.c.namespace == self.namespace)
        return [
            ModelOnDevice(
                **{name: getattr(row, name) for name in ModelOnDevice.__struct_fields__ if name != "build"},
                build=_build(row),
            )
            for some in portions(devices)
            for row in self.connection.execute(query.where(table.c.device_id.in_(some)))
        ]

    def _devices(self) -> Select[Any]:
        table = schema.devices
        joined: FromClause = table
        for other in (schema.device_access, schema.device_duplicates):
            joined = joined.outerjoin(
                other, and_(other.c.namespace == table.c.namespace, other.c.device_id == table.c.device_id)
            )
        columns = [
            other.c[name].label(prefix + name)
            for other, prefix, kind in (
                (schema.device_access, _ACCESS, DeviceAccess),
                (schema.device_duplicates, _DUPLICATE, DuplicateIdentity),
            )
            for name in kind.__struct_fields__
        ]
        return select(table, *columns).select_from(joined).where(table.c.namespace == self.namespace)

    # --- governed ---

    def access(self, devices: Sequence[str]) -> dict[str, DeviceAccess]:
        """What devices may do that were ever blocked or removed; the others are left out."""
        table = schema.device_access
        query = select(table).where(table.c.namespace == self.namespace)
        return {
            row.device_id: _access(row)
            for some in portions(devices)
            for row in self.connection.execute(query.where(table.c.device_id.in_(some)))
        }

    def set_access(self, entry: DeviceAccess) -> None:
        """Write what a device may do from now on."""
        values = msgspec.structs.asdict(entry) | {"namespace": self.namespace}
        columns = tuple(name for name in DeviceAccess.__struct_fields__ if name != "device_id")
        upsert(self.connection, schema.device_access, values, update=columns)

    def admit(self, device_id: str, *, at: float) -> None:
        """A person vouches for a device."""
        admit(self.connection, self.namespace, device_id, at=at)

    def set_operator_labels(self, device_id: str, labels: Mapping[str, str]) -> None:
        """Write the labels that people gave a device."""
        table = schema.devices
        self.connection.execute(
            update(table)
            .where(table.c.namespace == self.namespace, table.c.device_id == device_id)
            .values(operator_labels=packed(dict(labels)))
        )

    def expect_no_report(self, device_id: str, *, rollouts: Sequence[str]) -> None:
        """Ask no more after the reports of a device in the cohorts of `rollouts`: it is kept from sending any."""
        table = schema.participations
        for places in self._places(device_id, rollouts):
            self.connection.execute(update(table).where(*places).values(silence_judged=True, hearing="left"))

    def remove(self, device_id: str, *, rollouts: Sequence[str]) -> int:
        """Delete a device and its places in the cohorts of `rollouts`. Returns how many those were."""
        for table in _OF_A_DEVICE:
            self.connection.execute(
                delete(table).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
            )
        return sum(
            self.connection.execute(delete(schema.participations).where(*places)).rowcount
            for places in self._places(device_id, rollouts)
        )

    def _places(self, device_id: str, rollouts: Sequence[str]) -> Iterator[tuple[ColumnElement[bool], ...]]:
        """The conditions for a device's places in cohorts; every column of the key is named, so that it is used."""
        table = schema.participations
        for some in portions(rollouts):
            yield (
                table.c.namespace == self.namespace,
                table.c.rollout.in_(some),
                table.c.stage.in_(range(limits.STAGES)),
                table.c.device_id == device_id,
            )

    # --- observed ---

    def note_waiting(self, *waiting: Waiting) -> None:
        """Write what devices wait for. What a device says of a model that it does not follow is left out."""
        rows = [
            {
                "of": self.namespace,
                "who": each.device_id,
                "which": each.model,
                "reason": each.waits_for,
                "told_at": each.at,
            }
            for each in waiting
        ]
        if rows:
            self.connection.execute(_WAITS, rows)

    def note_builds(self, *builds: BuildOnDevice) -> None:
        """Write which builds devices run. What a device says of a model that it does not follow is left out."""
        rows = [
            {
                "of": self.namespace,
                "who": each.device_id,
                "which": each.model,
                "of_serial": each.build.serial,
                "named": each.build.variant,
                "told": packed(each.build),
            }
            for each in builds
        ]
        if rows:
            self.connection.execute(_BUILDS, rows)

    def duplicate(self, device_id: str) -> DuplicateIdentity | None:
        """What is known of a device with whose id two installations report; None for nothing."""
        table = schema.device_duplicates
        query = select(table).where(table.c.namespace == self.namespace, table.c.device_id == device_id)
        row = self.connection.execute(query).one_or_none()
        return _duplicate(row) if row is not None else None

    def save_duplicate(self, entry: DuplicateIdentity) -> None:
        """Write what is known of such a device."""
        values = msgspec.structs.asdict(entry) | {"namespace": self.namespace}
        columns = tuple(name for name in DuplicateIdentity.__struct_fields__ if name != "device_id")
        upsert(self.connection, schema.device_duplicates, values, update=columns)


def _build(row: Row[Any]) -> Build | None:
    """The build that a device told; None where it told none of the version that it runs now."""
    if row.serial is None or row.build_serial != row.serial:
        return None
    return parse(Build, row.build, what="a stored build")


def note_running(connection: Connection, namespace: str, running: Sequence[RunningVersion]) -> None:
    """Write which versions devices say that they run, and since when: a new serial begins a new time."""
    if running:
        rows = [msgspec.structs.asdict(row) | {"namespace": namespace, "since": row.at} for row in running]
        connection.execute(_NOTE_RUNNING[connection.dialect.name], rows)


def access_changes(connection: Connection, *, since: float) -> list[tuple[str, DeviceAccess]]:
    """What devices of any namespace may do: those that changed at `since` or later, with their namespaces."""
    table = schema.device_access
    rows = connection.execute(select(table).where(table.c.since >= since))
    return [(row.namespace, _access(row)) for row in rows]


def access_that_matters(connection: Connection, *, removed_since: float) -> list[tuple[str, DeviceAccess]]:
    """What refuses a token: devices that are blocked, and those that were removed at `removed_since` or later."""
    table = schema.device_access
    rows = connection.execute(select(table).where(or_(table.c.state == "blocked", table.c.not_before >= removed_since)))
    return [(row.namespace, _access(row)) for row in rows]


def _upsert_running(dialect: str) -> Executable:
    table = schema.device_models
    statement = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={
            "serial": new.serial,
            "hardware_class": new.hardware_class,
            "at": new.at,
            "since": case((table.c.serial.is_distinct_from(new.serial), new.at), else_=table.c.since),
        },
    )


_NOTE_RUNNING = {dialect: _upsert_running(dialect) for dialect in ("postgresql", "sqlite")}


def _device(row: Row[Any]) -> DeviceRecord:
    return DeviceRecord(
        device_id=row.device_id,
        labels=parse(dict[str, str], row.labels, what="stored labels"),
        operator_labels=parse(dict[str, str], row.operator_labels, what="stored labels"),
        enrolled_at=row.enrolled_at,
        heard_at=row.seen_at,
        admission=row.admission,
        admitted_at=row.admitted_at,
        enrol_token_name=row.enrol_token_name,
        has_key=row.public_key is not None,
        credential_epoch=row.credential_epoch,
        allowed_again_until=row.allowed_again_until,
        granted_labels=parse(dict[str, str], row.granted_labels, what="stored labels"),
        access=_access(row, _ACCESS) if row.access_state is not None else None,
        duplicate=_duplicate(row, _DUPLICATE) if row.duplicate_noticed_at is not None else None,
    )


def _merged(labels: bytes, operator_labels: bytes) -> dict[str, str]:
    operators, told = (parse(dict[str, str], each, what="stored labels") for each in (operator_labels, labels))
    return all_labels(told, operators)


def _access(row: Row[Any], prefix: str = "") -> DeviceAccess:
    return DeviceAccess(**{name: getattr(row, prefix + name) for name in DeviceAccess.__struct_fields__})


def _duplicate(row: Row[Any], prefix: str = "") -> DuplicateIdentity:
    return DuplicateIdentity(**{name: getattr(row, prefix + name) for name in DuplicateIdentity.__struct_fields__})
